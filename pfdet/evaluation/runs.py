"""Rows of a sorted table by runs: what comparing boxes pair by pair needs.

All of it works on NumPy and CuPy arrays, and keeps them where they are.
"""

from collections.abc import Iterator
from types import ModuleType

import numpy as np

# Pairs of boxes compared at once. On a CPU enough to hide NumPy's overhead and few enough for its
# second cache; on a GPU enough to fill it, in some 2 GB.
PAIRS_PER_BLOCK = 1 << 15
PAIRS_PER_GPU_BLOCK = 1 << 24


def array_module(array) -> ModuleType:
    """NumPy, or CuPy for its arrays; Chainer is not imported for the sake of NumPy's."""
    if type(array) is np.ndarray:
        return np
    from chainer.backends import cuda
    return cuda.get_array_module(array)


def blocks(count) -> Iterator[slice]:
    """Cut rows into blocks of about :data:`PAIRS_PER_BLOCK` pairs, of at least one row each.

    Args:
        count (int array): Number of pairs of each row, :math:`(n,)`.

    Yields:
        slice: Of rows. Without a pair in any row, there is none.
    """
    if len(count) == 0:
        return
    xp = array_module(count)
    size = PAIRS_PER_BLOCK if xp is np else PAIRS_PER_GPU_BLOCK
    end_pair = xp.cumsum(count)
    # The host must know how much there is to do: these are the points where it waits.
    n_pair = int(end_pair[-1])
    if n_pair == 0:
        return
    # A block ends with the row that brings its last pair.
    ends = xp.searchsorted(end_pair, xp.arange(size, n_pair, size), side='left') + 1
    begin = 0
    for end in [*ends.tolist(), len(count)]:
        if end > begin:
            yield slice(begin, end)
            begin = end


def rows_of_pairs(count) -> tuple:
    """The row of each pair, and which of its row's pairs it is.

    Args:
        count (int array): Number of pairs of each row, :math:`(n,)`, at least one row.

    Returns:
        tuple of int arrays: Both :math:`(\\sum count,)`; pairs of one row are consecutive.
    """
    xp = array_module(count)
    end_pair = xp.cumsum(count)
    if xp is np:
        pair = np.arange(end_pair[-1])
        row = np.repeat(np.arange(len(count)), count)
    else:
        # CuPy repeats no row by an array's counts.
        pair = xp.arange(int(end_pair[-1]))
        row = xp.searchsorted(end_pair, pair, side='right')
    return row, pair - (end_pair - count).take(row)


def is_first(x):
    """True at the first of each run of equal values, bool :math:`(n,)`."""
    xp = array_module(x)
    first = xp.ones(len(x), bool)
    first[1:] = x[1:] != x[:-1]
    return first
