"""Runs of images of like aspect ratio: which place of a list sorted by group comes where."""

from bisect import bisect_right

import numpy as np

# Images to sort at a time, so that what sorting needs beside the result stays small.
_PIECE = 1 << 16


class Runs:
    """Cut a list sorted by group into runs, and put these in a random order.

    A run has ``chunk`` places in a row, so it is of one group or, where one ends, of neighbours.
    What is left over comes last, cut into halves, quarters and so on of a run. Within a run of
    several groups, halves change places at random, halves of these too: it does not always go from
    narrow to wide, and yet smaller batches than a run need even less padding. Within a run of one
    group, places keep the order they have in the list, which is random already.

    Args:
        ends (int array): Where each group of the list ends, ascending.
        chunk (int): Places in a run.
        rng (numpy.random.Generator): Draws both orders.
    """

    def __init__(self, ends: np.ndarray, chunk: int, rng: np.random.Generator):
        n = int(ends[-1])
        self.chunk = chunk
        sizes, rest = [chunk] * (n // chunk), n % chunk
        self._n_whole = len(sizes)
        half = chunk
        while half % 2 == 0:
            half //= 2
            if half <= rest:
                sizes.append(half)
                rest -= half
        if rest:
            sizes.append(rest)
        sizes = np.array(sizes)
        # Every run takes a piece of the list, anywhere.
        pieces = rng.permutation(len(sizes))
        start = np.empty(len(sizes), np.int64)
        start[pieces] = np.cumsum(sizes[pieces]) - sizes[pieces]
        self._start = start.tolist()
        # Where the runs that are shorter begin.
        self._short = (np.cumsum(sizes) - sizes)[self._n_whole :].tolist()

        mixed = np.searchsorted(ends, start, 'right') != np.searchsorted(
            ends, start + sizes - 1, 'right'
        )
        whole = np.flatnonzero(mixed[: self._n_whole])
        orders = [*_halves_changed(len(whole), chunk, rng)]
        short = [k for k in range(self._n_whole, len(sizes)) if mixed[k]]
        orders += [_halves_changed(1, int(sizes[k]), rng)[0] for k in short]
        self._order = dict(zip([*whole.tolist(), *short], orders, strict=True))

    def __getitem__(self, position: int) -> int:
        """The place in the list of what comes at a position."""
        run, k = divmod(position, self.chunk)
        if run >= self._n_whole:
            i = bisect_right(self._short, position) - 1
            run, k = self._n_whole + i, position - self._short[i]
        order = self._order.get(run)
        return self._start[run] + (k if order is None else int(order[k]))


def _halves_changed(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` orders of ``range(size)``: halves change places or not, halves of these and so on."""
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
    """Number the groups from 0 on, in their order, with little memory beside the result.

    Args:
        group (int array): The group of each image, :math:`(n,)`; few of them are distinct.

    Returns:
        pair: uint8 :math:`(n,)`, or a larger type for more than 256 groups, and how many there
        are.
    """
    pieces = [slice(k, k + _PIECE) for k in range(0, len(group), _PIECE)]
    groups = np.unique(np.concatenate([np.unique(group[piece]) for piece in pieces]))
    number = np.empty(len(group), np.min_scalar_type(len(groups) - 1))
    for piece in pieces:
        number[piece] = np.searchsorted(groups, group[piece])
    return number, len(groups)


def sort_by_group(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort the images by group, with little memory beside the result.

    Args:
        group (int array): See :func:`number_groups`.

    Returns:
        pair: The images, int32 :math:`(n,)`, ascending in a group, and where each group ends.
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
