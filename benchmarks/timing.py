"""How the benchmarks time a function."""

import time
from collections.abc import Callable


def best_seconds(function: Callable, repeat: int) -> tuple[object, float]:
    """What it returns and its least time."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return result, min(times)
