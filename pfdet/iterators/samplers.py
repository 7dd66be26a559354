"""Global sequences of images.

A sampler maps a position in the global order to an image. The image depends only on the position
and the seed, so any number of ranks can share one sequence and a run can resume anywhere in it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pfdet.iterators.aspect_runs import Runs, sort_by_group

# Images grouped at a time, to bound the temporary memory.
_PIECE = 1 << 16


class SequentialSampler:
    """Every image once per epoch, in a new random order each epoch.

    "Sampling training images in sequence without replacement" (Peng et al. (2020), section 4.2),
    the non-balance strategy.

    With ``group``, each run of ``chunk`` positions holds images of one group or, at a boundary, of
    adjacent groups. The images of a run and the order of runs are drawn anew each epoch. With
    groups of similar aspect ratio, the images of an iteration need little padding. The sequence
    depends on ``chunk`` but not on the number of ranks. If the global batch size divides
    ``chunk``, no iteration spans two runs.

    Not thread-safe.

    Args:
        n_image (int): Number of images.
        seed (int): Random seed.
        group (int array): Group of each image, :math:`(n,)`. Adjacent group numbers must be
            similar groups.
        chunk (int): Length of a run.

    Raises:
        ValueError: There is no image, or ``chunk`` is below 1.
    """

    def __init__(self, n_image: int, seed: int, group: np.ndarray | None = None, chunk: int = 1):
        if n_image < 1:
            raise ValueError('a sampler needs at least one image')
        if chunk < 1:
            raise ValueError(f'chunk must be at least 1, not {chunk}')
        self.n_image = n_image
        self.seed = seed
        self.chunk = chunk
        self._sorted: np.ndarray | None = None
        self._ends = np.array([n_image])
        if group is not None:
            self._sorted, self._ends = sort_by_group(group)
        # Two epochs, because prefetching alternates between both sides of an epoch boundary. The
        # arrays are reused to avoid heap fragmentation.
        self._epochs: list[_Epoch | None] = [None, None]

    def _epoch(self, number: int) -> '_Epoch':
        cached = self._epochs[number % 2]
        if cached is not None and cached.number == number:
            return cached
        order = np.empty(self.n_image, np.int32) if cached is None else cached.order
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
        epoch = _Epoch(number, order, runs)
        self._epochs[number % 2] = epoch
        return epoch

    def __len__(self) -> int:
        """Number of positions in an epoch."""
        return self.n_image

    def __getitem__(self, position: int) -> int:
        """The image at a position of any epoch."""
        number, offset = divmod(position, self.n_image)
        epoch = self._epoch(number)
        return int(epoch.order[offset if epoch.runs is None else epoch.runs[offset]])


class _Epoch(NamedTuple):
    """Images of an epoch, shuffled within groups, and the runs that give their order."""

    number: int
    order: np.ndarray
    runs: Runs | None


def replacements(sampler: Sequence[int], position: int, n: int = 64) -> Iterator[int]:
    """Yield images to try in place of one that cannot be read.

    These are the images at the following positions. They have the sampler's distribution and, if it
    groups images by aspect ratio, are mostly of the same group. They depend only on the position,
    so they are the same on any number of ranks and after resuming. A replacement is used one more
    time in its epoch. Over many epochs no image is preferred, because each epoch has its own order.

    Args:
        sampler (sequence): Maps positions to images.
        position (int): Position of the image that cannot be read.
        n (int): Number of following positions to search.

    Yields:
        int: An image not yielded before.
    """
    tried = {sampler[position]}
    for p in range(position + 1, position + 1 + n):
        image = sampler[p]
        if image not in tried:
            tried.add(image)
            yield image


def aspect_groups(sizes: np.ndarray, step: float = 0.05) -> np.ndarray:
    """Group images of similar aspect ratio.

    Args:
        sizes (int array): Heights and widths, :math:`(n, 2)`.
        step (float): Range of a group in log2 of width over height. By default, the ratios in a
            group differ by at most 3.5 %; see ``benchmarks/aspect_grouping.py``.

    Returns:
        int16 array: Group of each image, :math:`(n,)`.
    """
    groups = np.empty(len(sizes), np.int16)
    for k in range(0, len(sizes), _PIECE):
        height, width = np.maximum(sizes[k : k + _PIECE], 1).T
        groups[k : k + _PIECE] = np.round(np.log2(width / height) / step)
    return groups
