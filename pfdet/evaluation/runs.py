"""Rows of a sorted table by runs: what comparing boxes pair by pair needs."""

from collections.abc import Iterator

import numpy as np

# Pairs of boxes compared at once: enough to hide NumPy's overhead, few enough for the cache.
PAIRS_PER_BLOCK = 1 << 16


def blocks(count: np.ndarray) -> Iterator[slice]:
    """Cut rows into blocks of about :data:`PAIRS_PER_BLOCK` pairs, of at least one row each.

    Args:
        count (int array): Number of pairs of each row, :math:`(n,)`.

    Yields:
        slice: Of rows.
    """
    end_pair = np.cumsum(count)
    begin = 0
    while begin < len(count):
        done = end_pair[begin - 1] if begin else 0
        end = int(np.searchsorted(end_pair, done + PAIRS_PER_BLOCK, side='right'))
        end = max(end, begin + 1)
        yield slice(begin, end)
        begin = end


def is_first(x: np.ndarray) -> np.ndarray:
    """True at the first of each run of equal values, bool :math:`(n,)`."""
    first = np.ones(len(x), bool)
    first[1:] = x[1:] != x[:-1]
    return first
