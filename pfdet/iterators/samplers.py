"""Global sequences of images.

A sampler maps a position in the global order to an image. Position alone decides, so that any
number of ranks can share one sequence and a run can be resumed anywhere in it.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np


class SequentialSampler:
    """Every image once an epoch, in an order drawn anew each epoch.

    "Sampling training images in sequence without replacement" (Concurrent softmax, section 4.2),
    the non-balance strategy.

    With ``group``, runs of ``chunk`` positions hold images of one group or, where one ends, of
    neighbouring ones; which images of a group come together, and the order of runs, is drawn anew
    each epoch. With groups of like aspect ratio, the images of an iteration need little padding.
    The sequence depends on ``chunk``, not on the number of ranks; a run covers an iteration where
    the global batch divides it.

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
        self.n_image = n_image
        self.seed = seed
        self.group = group
        self.chunk = chunk
        # Prefetching crosses the border between epochs, back and forth.
        self._order = functools.lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> np.ndarray:
        dtype = np.int32 if self.n_image < 2 ** 31 else np.int64
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(np.arange(self.n_image, dtype=dtype))
        return order if self.group is None else in_runs(order, self.group, self.chunk, rng)

    def __len__(self) -> int:
        """Positions in an epoch."""
        return self.n_image

    def __getitem__(self, position: int) -> int:
        """The image at a position, which may be of any epoch."""
        epoch, place = divmod(position, self.n_image)
        return int(self._order(epoch)[place])


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
        int array: :math:`(n,)`.
    """
    height, width = np.maximum(sizes, 1).T
    return np.round(np.log2(width / height) / step).astype(np.int16)


def in_runs(order: np.ndarray, group: np.ndarray, chunk: int, rng) -> np.ndarray:
    """Reorder so that runs of ``chunk`` are of one group or of neighbours.

    The same holds for halves of runs, halves of these and so on: smaller batches need even less
    padding. What is left over comes last, in such halves.
    """
    n = len(order)
    halves = [chunk >> k for k in range(1, chunk.bit_length()) if chunk % (1 << k) == 0]
    sizes, rest = [chunk] * (n // chunk), n % chunk
    for half in halves:
        if half <= rest:
            sizes.append(half)
            rest -= half
    sizes = np.array([*sizes, rest])
    # Each run, and each part of the rest, takes a piece of the images sorted by group, anywhere.
    pieces = rng.permutation(len(sizes))
    start = np.empty(len(sizes), np.int64)
    start[pieces] = np.cumsum(sizes[pieces]) - sizes[pieces]
    by_group = order[np.argsort(group[order], kind='stable')]
    result = by_group[np.arange(n) + np.repeat(start - np.cumsum(sizes) + sizes, sizes)]
    # Halves change places, so that a run does not always go from narrow to wide.
    for half in halves:
        pairs = result[:n // (2 * half) * 2 * half].reshape(-1, 2, half)
        swapped = rng.random(len(pairs)) < 0.5
        pairs[swapped] = pairs[swapped, ::-1]
    return result
