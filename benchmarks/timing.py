"""Timing of functions, for the benchmarks."""

import time
from collections.abc import Callable


def best_seconds(function: Callable, repeat: int) -> tuple[object, float]:
    """Return the last result and the shortest time of ``repeat`` calls."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return result, min(times)
