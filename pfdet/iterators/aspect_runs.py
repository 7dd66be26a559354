"""Runs of images of similar aspect ratio, taken from a list sorted by group."""

from bisect import bisect_right

import numpy as np

# Images sorted at a time, to bound the temporary memory.
_PIECE = 1 << 16


class Runs:
    """Split a list sorted by group into runs, and shuffle the runs.

    A run consists of ``chunk`` consecutive elements. All are of one group or, at a boundary, of
    adjacent groups. The remainder of the list comes last, split into shorter runs of a half, a
    quarter and so on of ``chunk``.

    Within a run of several groups, the two halves are swapped at random, then the halves of each
    half, and so on. The groups therefore come in random order, while batches smaller than a run
    still hold similar images. A run of one group keeps the order of the list.

    ``runs[position]`` is the index in the list of the element at a position of the new order.

    Args:
        ends (int array): End of each group in the list, ascending.
        chunk (int): Length of a run.
        rng (numpy.random.Generator): Draws the order of runs and of halves.
    """

    def __init__(self, ends: np.ndarray, chunk: int, rng: np.random.Generator):
        n = int(ends[-1])
        self.chunk = chunk
        lengths, rest = [chunk] * (n // chunk), n % chunk
        self._n_whole = len(lengths)
        half = chunk
        while half % 2 == 0:
            half //= 2
            if half <= rest:
                lengths.append(half)
                rest -= half
        if rest:
            lengths.append(rest)
        sizes = np.array(lengths)
        # Distribute the runs over the list in random order.
        pieces = rng.permutation(len(sizes))
        start = np.empty(len(sizes), np.int64)
        start[pieces] = np.cumsum(sizes[pieces]) - sizes[pieces]
        self._start = start.tolist()
        # First positions of the shorter runs.
        self._short = (np.cumsum(sizes) - sizes)[self._n_whole :].tolist()

        mixed = np.searchsorted(ends, start, 'right') != np.searchsorted(
            ends, start + sizes - 1, 'right'
        )
        whole = np.flatnonzero(mixed[: self._n_whole])
        orders = [*_swap_halves(len(whole), chunk, rng)]
        short = [k for k in range(self._n_whole, len(sizes)) if mixed[k]]
        orders += [_swap_halves(1, int(sizes[k]), rng)[0] for k in short]
        self._order = dict(zip([*whole.tolist(), *short], orders, strict=True))

    def __getitem__(self, position: int) -> int:
        """Index in the list of the element at a position."""
        run, k = divmod(position, self.chunk)
        if run >= self._n_whole:
            i = bisect_right(self._short, position) - 1
            run, k = self._n_whole + i, position - self._short[i]
        order = self._order.get(run)
        return self._start[run] + (k if order is None else int(order[k]))


def _swap_halves(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``n`` orders of ``range(size)`` by swapping halves at random, recursively."""
    order = np.empty((n, size), np.int32)
    order[:] = np.arange(size)
    half = size
    while half % 2 == 0 and n:
        half //= 2
        pairs = order.reshape(-1, 2, half)
        swapped = rng.random(len(pairs)) < 0.5
        pairs[swapped] = pairs[swapped, ::-1]
    return order


def number_groups(group: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the groups from 0 in ascending order, with little temporary memory.

    Args:
        group (int array): Group of each image, :math:`(n,)`, with few distinct values.

    Returns:
        tuple of array and int: Number of each image's group, :math:`(n,)`, uint8 or, for more than
        256 groups, a larger type; and the number of groups.
    """
    pieces = [slice(k, k + _PIECE) for k in range(0, len(group), _PIECE)]
    groups = np.unique(np.concatenate([np.unique(group[piece]) for piece in pieces]))
    number = np.empty(len(group), np.min_scalar_type(len(groups) - 1))
    for piece in pieces:
        number[piece] = np.searchsorted(groups, group[piece])
    return number, len(groups)


def sort_by_group(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort the images by group, with little temporary memory.

    Args:
        group (int array): Group of each image, :math:`(n,)`, with few distinct values.

    Returns:
        tuple of arrays: Images, int32 :math:`(n,)`, ascending within a group; and the end of each
        group, :math:`(G,)`.
    """
    number, n_group = number_groups(group)
    pieces = [number[k : k + _PIECE] for k in range(0, len(number), _PIECE)]
    counts = [np.bincount(piece, minlength=n_group) for piece in pieces]
    ends = np.cumsum(sum(counts))
    images, cursor = np.empty(len(group), np.int32), np.append(0, ends[:-1])
    for k, piece, count in zip(range(0, len(number), _PIECE), pieces, counts, strict=True):
        order = np.argsort(piece, kind='stable')
        first = cursor - np.cumsum(count) + count
        images[np.repeat(first, count) + np.arange(len(order))] = order + k
        cursor += count
    return images, ends
