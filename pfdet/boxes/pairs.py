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
    n_pair = end_pair[-1].item()
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
        pair = xp.arange(end_pair[-1].item())
        row = xp.searchsorted(end_pair, pair, side='right')
    return row, pair - (end_pair - count).take(row)


def score_keys(score):
    """Integers of 32 bits that compare as scores do, the two zeros being equal, int64.

    With them and an index in one integer, sorting by score takes one quick sort of plain numbers;
    sorting indices by a key takes several times as long.
    """
    xp = array_module(score)
    if score.dtype.kind != 'f' or score.dtype.itemsize > 4:
        return xp.unique(score, return_inverse=True)[1].reshape(-1).astype(np.int64)
    # The bits of positive floats ascend as they do, those of negative ones descend; adding 0
    # makes -0 and 0 equal.
    bits = (score.astype(np.float32) + np.float32(0)).view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)


def order_by(key: np.ndarray) -> np.ndarray:
    """Indices that sort by a key of integers, not negative, equal ones as they come."""
    n_bit = len(key).bit_length()
    if len(key) == 0 or int(key.max()) >= 1 << (63 - n_bit):
        return np.argsort(key, kind='stable')
    packed = (key.astype(np.int64) << n_bit) + np.arange(len(key))
    packed.sort()
    return packed & ((1 << n_bit) - 1)


def is_first(x):
    """True at the first of each run of equal values, bool :math:`(n,)`."""
    xp = array_module(x)
    first = xp.ones(len(x), bool)
    first[1:] = x[1:] != x[:-1]
    return first
