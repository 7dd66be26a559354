"""Global sequences of images.

A sampler maps a position in the global order to an image. Position alone decides, so that any
number of ranks can share one sequence and a run can be resumed anywhere in it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pfdet.iterators.aspect_runs import Runs, sort_by_group

# Images to group at a time, so that what it needs beside the result stays small.
_PIECE = 1 << 16


class SequentialSampler:
    """Every image once an epoch, in an order drawn anew each epoch.

    "Sampling training images in sequence without replacement" (Concurrent softmax, section 4.2),
    the non-balance strategy.

    With ``group``, runs of ``chunk`` positions hold images of one group or, where one ends, of
    neighbouring ones; which images of a group come together, and the order of runs, is drawn anew
    each epoch. With groups of like aspect ratio, the images of an iteration need little padding.
    The sequence depends on ``chunk``, not on the number of ranks; a run covers an iteration where
    the global batch divides it.

    It is for one thread at a time.

    Args:
        n_image (int): Number of images.
        seed (int): Of the orders.
        group (int array): The group of each image, :math:`(n,)`; groups whose numbers are near
            are alike.
        chunk (int): Positions of one group in a row.
    """

    def __init__(self, n_image: int, seed: int, group: np.ndarray | None = None, chunk: int = 1):
        if n_image < 1:
            raise ValueError('a sampler needs at least one image')
        if chunk < 1:
            raise ValueError(f'chunk must be at least 1, not {chunk}')
        self.n_image = n_image
        self.seed = seed
        self.chunk = chunk
        self._sorted, self._ends = None, np.array([n_image])
        if group is not None:
            self._sorted, self._ends = sort_by_group(group)
        # Prefetching crosses the border between epochs, back and forth. The arrays stay, so that
        # no memory is left over between them.
        self._epochs: list[_Epoch | None] = [None, None]

    def _epoch(self, number: int) -> '_Epoch':
        kept = self._epochs[number % 2]
        if kept is not None and kept.number == number:
            return kept
        order = np.empty(self.n_image, np.int32) if kept is None else kept.order
        if self._sorted is None:
            order[:] = 1
            order[0] = 0
            np.cumsum(order, dtype=order.dtype, out=order)
        else:
            order[:] = self._sorted
        rng = np.random.default_rng((self.seed, number))
        start = 0
        for end in self._ends.tolist():
            rng.shuffle(order[start:end])
            start = end
        runs = None if self._sorted is None else Runs(self._ends, self.chunk, rng)
        self._epochs[number % 2] = _Epoch(number, order, runs)
        return self._epochs[number % 2]

    def __len__(self) -> int:
        """Positions in an epoch."""
        return self.n_image

    def __getitem__(self, position: int) -> int:
        """The image at a position, which may be of any epoch."""
        number, place = divmod(position, self.n_image)
        epoch = self._epoch(number)
        return int(epoch.order[place if epoch.runs is None else epoch.runs[place]])


class _Epoch(NamedTuple):
    """The images of an epoch, shuffled within groups, and in which order these come."""

    number: int
    order: np.ndarray
    runs: Runs | None


def replacements(sampler: Sequence[int], position: int, n: int = 64) -> Iterator[int]:
    """Images to take, one after the other, where the image at a position cannot be read.

    They are those at the positions that follow, which come from the same sampler's distribution
    and, where it groups images by aspect ratio, mostly from the same group. Nothing but the
    position decides, so they are the same on any number of ranks and after resuming. Such an image
    is seen once more in its epoch; since each epoch has an order of its own, none is seen more
    often in the long run.

    Args:
        sampler (sequence): Maps positions to images.
        position (int): Of the image that cannot be read.
        n (int): Positions to look at.

    Yields:
        int: An image that has not been tried.
    """
    tried = {sampler[position]}
    for p in range(position + 1, position + 1 + n):
        image = sampler[p]
        if image not in tried:
            tried.add(image)
            yield image


def aspect_groups(sizes: np.ndarray, step: float = 0.05) -> np.ndarray:
    """Groups of images of like aspect ratio.

    Args:
        sizes (int array): Heights and widths, :math:`(n, 2)`.
        step (float): Width of a group in binary logarithms of the ratio. By default the ratios in
            a group differ by at most 3.5 %; see ``benchmarks/aspect_grouping.py``.

    Returns:
        int array: int16 :math:`(n,)`.
    """
    groups = np.empty(len(sizes), np.int16)
    for k in range(0, len(sizes), _PIECE):
        height, width = np.maximum(sizes[k : k + _PIECE], 1).T
        groups[k : k + _PIECE] = np.round(np.log2(width / height) / step)
    return groups
