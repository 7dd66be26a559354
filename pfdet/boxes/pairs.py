"""Enumerating pairs of boxes in blocks, and fast stable sorting.

NMS and matching compare only boxes of the same image and class. Sorted by that key, the candidates
of a box are consecutive rows, so pairs are described by a count per row. All functions work on
NumPy and CuPy arrays without moving them between host and device.
"""

from collections.abc import Iterator

import numpy as np

from pfdet.boxes.arrays import Array, array_module

# Pairs of boxes compared at once. On a CPU the block hides NumPy's call overhead and still fits the
# L2 cache. On a GPU it keeps the device busy and takes about 2 GB.
PAIRS_PER_BLOCK = 1 << 15
PAIRS_PER_GPU_BLOCK = 1 << 24


def blocks(count: Array) -> Iterator[slice]:
    """Split rows into blocks of about :data:`PAIRS_PER_BLOCK` pairs and at least one row.

    Args:
        count (int array): Number of pairs of each row, :math:`(n,)`.

    Yields:
        slice: Rows of a block. Yields nothing if no row has a pair.
    """
    if len(count) == 0:
        return
    xp = array_module(count)
    size = PAIRS_PER_BLOCK if xp is np else PAIRS_PER_GPU_BLOCK
    end_pair = xp.cumsum(count)
    # The host needs the number of pairs and waits for the device here.
    n_pair = end_pair[-1].item()
    if n_pair == 0:
        return
    # A block ends with the row that contains its last pair.
    ends = xp.searchsorted(end_pair, xp.arange(size, n_pair, size), side='left') + 1
    begin = 0
    for end in [*ends.tolist(), len(count)]:
        if end > begin:
            yield slice(begin, end)
            begin = end


def rows_of_pairs(count: Array) -> tuple[Array, Array]:
    """Enumerate the pairs of all rows.

    Args:
        count (int array): Number of pairs of each row, :math:`(n,)`, with :math:`n > 0`.

    Returns:
        tuple of int arrays: For each pair, its row and its position within the row, both
        :math:`(\\sum count,)`. Pairs of a row are consecutive.
    """
    xp = array_module(count)
    end_pair = xp.cumsum(count)
    if xp is np:
        pair = np.arange(end_pair[-1])
        row = np.repeat(np.arange(len(count)), count)
    else:
        # cupy.repeat does not accept an array of counts.
        pair = xp.arange(end_pair[-1].item())
        row = xp.searchsorted(end_pair, pair, side='right')
    return row, pair - (end_pair - count).take(row)


def score_keys(score: Array) -> Array:
    """Map scores to integers of the same order.

    A key and an index packed into one int64 sort in one pass over plain integers. An argsort takes
    several times as long.

    Args:
        score (array): :math:`(n,)`, any dtype.

    Returns:
        int64 array: Keys :math:`(n,)` in the range of int32. Equal scores, including 0 and -0, have
        equal keys.
    """
    xp = array_module(score)
    if score.dtype.kind != 'f' or score.dtype.itemsize > 4:
        return xp.unique(score, return_inverse=True)[1].reshape(-1).astype(np.int64)
    # Read as integers, positive floats keep their order and negative ones reverse it. Adding 0
    # turns -0 into 0.
    bits = (score.astype(np.float32) + np.float32(0)).view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)


def stable_argsort(key: np.ndarray) -> np.ndarray:
    """Argsort non-negative integers, stable and faster than :func:`numpy.argsort`.

    Args:
        key (int array): :math:`(n,)`, not negative.

    Returns:
        int array: Indices :math:`(n,)`.
    """
    n_bit = len(key).bit_length()
    if len(key) == 0 or int(key.max()) >= 1 << (63 - n_bit):
        return np.argsort(key, kind='stable')
    packed = (key.astype(np.int64) << n_bit) + np.arange(len(key))
    packed.sort()
    return packed & ((1 << n_bit) - 1)


def is_first(x: Array) -> Array:
    """Mark the first element of each run of equal values.

    Args:
        x (array): :math:`(n,)`.

    Returns:
        bool array: :math:`(n,)`.
    """
    xp = array_module(x)
    first = xp.ones(len(x), bool)
    first[1:] = x[1:] != x[:-1]
    return first
