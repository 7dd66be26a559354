"""Global image sequences with balanced classes (Peng et al. (2020), section 4.2).

A class is drawn for every position, then the next image of that class. The class of a position and
the number of its earlier occurrences depend only on the seed and the position. Ranks can therefore
share one sequence without communication:

- Positions are split into blocks. One multinomial draw gives the occurrences of each class in a
  block, and a shuffle gives their order. The distribution is the same as that of independent draws
  per position. The occurrences before a block are a sum of such draws, which take tens of
  microseconds each, so a run can resume anywhere without iterating over the sequence.
- The images of a class are shuffled anew for each pass over them. The :math:`k`-th occurrence of
  the class takes the :math:`k`-th image of the concatenated passes.

A rank holds one shuffled pass of every class: 4 bytes per image and class. The unshuffled images
of the classes have the same size; ranks of a node share them if they come from
:func:`~pfdet.iterators.class_images.shared_class_images`.
"""

import functools
from typing import NamedTuple

import numpy as np

from pfdet.iterators.aspect_runs import Runs, number_groups
from pfdet.iterators.class_images import ClassImages

# Positions per block: two milliseconds to draw, half a megabyte to keep.
_BLOCK = 1 << 17
# Positions per cell. Occurrences before a cell are counted ahead of time, those within it on
# demand.
_CELL = 1 << 12
# Several passes of a small class are drawn together, about this many images at a time.
_PASSES = 1 << 12


def soft_balance(count: np.ndarray, lam: float) -> np.ndarray:
    r"""Compute the sampling probability of each class (Peng et al. (2020), equations 6 to 8).

    .. math:: P^*_s(i) \propto \alpha^\lambda P_n(i), \quad
        P_n(i) = n_i / \sum_j n_j, \quad \alpha = 1 / (C P_n(i))

    This is :math:`P_n` for :math:`\lambda = 0` and uniform for :math:`\lambda = 1`.

    Args:
        count (int array): Number of images of each class, :math:`n_i`, :math:`(C,)`. Classes
            without an image have probability 0 and do not count in :math:`C`.
        lam (float): :math:`\lambda \ge 0`.

    Returns:
        float64 array: Probabilities :math:`(C,)`.

    Raises:
        ValueError: ``lam`` is out of range or no class has an image.
    """
    if not 0 <= lam < np.inf:
        raise ValueError(f'lambda must be at least 0 and finite, not {lam}')
    count = np.asarray(count)
    present = count > 0
    if not present.any():
        raise ValueError('balanced sampling needs a class with an image')
    # P_s is proportional to n^(1 - lambda). Scale the largest term to 1 to avoid overflow.
    n = count[present] / (count.max() if lam < 1 else count[present].min())
    probability = np.zeros(len(count))
    probability[present] = n ** (1 - lam) / (n ** (1 - lam)).sum()
    return probability


class SoftBalanceSampler:
    r"""Soft-balance sampling (Peng et al. (2020), section 4.2).

    A class is drawn from :math:`P^*_s`, then an image of that class. Within a class, images are
    drawn without replacement. An image of several classes can be drawn through each of them.
    Images without a class are never drawn. An epoch has as many positions as the data set has
    images, as in :class:`~pfdet.iterators.samplers.SequentialSampler`.

    With ``group``, each run of ``chunk`` positions holds images of one group or, at a boundary, of
    adjacent groups. Positions are reordered within blocks of 131,072 positions, or of an epoch if
    that is shorter. The images of a block are the same as without ``group``. Where a class starts a
    new pass within a block, images of both passes mix. Runs start at multiples of ``chunk``. The
    sequence depends on ``chunk`` but not on the number of ranks.

    Not thread-safe.

    Args:
        classes (ClassImages): The images of each class.
        lam (float): :math:`\lambda`, see :func:`soft_balance`.
        seed (int): Random seed, not negative.
        group (int array): Group of each image, :math:`(n,)`, see
            :func:`~pfdet.iterators.samplers.aspect_groups`.
        chunk (int): Length of a run.

    Raises:
        ValueError: ``chunk`` or ``lam`` is out of range or no class has an image.
    """

    def __init__(
        self,
        classes: ClassImages,
        lam: float,
        seed: int,
        group: np.ndarray | None = None,
        chunk: int = 1,
    ):
        if chunk < 1:
            raise ValueError(f'chunk must be at least 1, not {chunk}')
        self.classes = classes
        self.lam = lam
        self.seed = seed
        self.chunk = chunk
        self.probability = soft_balance(classes.count, lam)
        # A multinomial draw gives the remainder to the last class, which must have an image.
        self._present = np.flatnonzero(classes.count)
        self._offsets = classes.offsets.tolist()
        # Images shuffled at a time, by class: one pass, or several passes of a small class.
        self._shuffle_sizes = [n * max(1, _PASSES // max(1, n)) for n in classes.count.tolist()]
        self._counts_before = {0: np.zeros(len(classes.count), np.int64)}
        self._block_size = _BLOCK
        # Shuffled images are stored with their group in the upper bits, which avoids a random
        # access per image.
        self._n_bit, n_group = 31, 1
        self._group: np.ndarray | None = None
        if group is not None:
            self._block_size = max(1, min(_BLOCK, classes.n_image) // chunk) * chunk
            self._n_bit = max(1, (classes.n_image - 1).bit_length())
            self._group, n_group = number_groups(group)
        # One array for all classes, to avoid heap fragmentation.
        shuffled = np.empty(
            sum(self._shuffle_sizes), np.uint32 if n_group <= 1 << 32 - self._n_bit else np.uint64
        )
        self._shuffled = np.split(shuffled, np.cumsum(self._shuffle_sizes)[:-1])
        self._shuffle_numbers = [-1] * len(self._shuffle_sizes)
        # Two blocks, because prefetching alternates between both sides of a block boundary.
        self._block = functools.lru_cache(maxsize=2)(self._draw_block)

    def __reduce__(self) -> tuple:
        return SoftBalanceSampler, (self.classes, self.lam, self.seed, self._group, self.chunk)

    def __len__(self) -> int:
        """Number of positions in an epoch."""
        return self.classes.n_image

    def __getitem__(self, position: int) -> int:
        """The image at a position of any epoch."""
        block, offset = self._locate(position)
        if isinstance(block, _GroupedBlock):
            return int(block.images[block.order[block.runs[offset]]]) & (1 << self._n_bit) - 1
        label = int(block.label[offset])
        cell = offset // _CELL
        nth = int(block.before[cell, label]) + np.count_nonzero(
            block.label[cell * _CELL : offset] == label
        )
        number, k = divmod(nth, self._shuffle_sizes[label])
        return int(self._shuffle(label, number)[k])

    def label(self, position: int) -> int:
        """The class drawn for a position."""
        block, offset = self._locate(position)
        if isinstance(block, _GroupedBlock):
            return int(np.searchsorted(block.ends, block.order[block.runs[offset]], 'right'))
        return int(block.label[offset])

    def _locate(self, position: int) -> tuple['_Block | _GroupedBlock', int]:
        """Block of a position, and the offset within it."""
        if position < 0:
            raise IndexError(f'position {position} of a sequence that begins at 0')
        number, offset = divmod(position, self._block_size)
        return self._block(number), offset

    def _draw_block(self, number: int) -> '_Block | _GroupedBlock':
        count, rng = self._count(number)
        before = self._count_before(number)
        if self._group is not None:
            return self._draw_grouped_block(count, before, rng)
        n_class = len(self.probability)
        label = np.repeat(np.arange(n_class), count)
        rng.shuffle(label)
        n_cell = self._block_size // _CELL
        cells = label.reshape(n_cell, _CELL) + n_class * np.arange(n_cell)[:, None]
        cells = np.bincount(cells.ravel(), minlength=n_cell * n_class).reshape(n_cell, n_class)
        return _Block(label.astype(np.int16), before + np.cumsum(cells, axis=0) - cells)

    def _draw_grouped_block(
        self, count: np.ndarray, before: np.ndarray, rng: np.random.Generator
    ) -> '_GroupedBlock':
        assert self._group is not None
        parts: list[np.ndarray] = []
        for c in self._present.tolist():
            self._append_images(parts, c, int(before[c]), int(count[c]))
        images = np.concatenate(parts)
        group = (images >> images.dtype.type(self._n_bit)).astype(self._group.dtype)
        # Shuffle, then sort by group.
        order = rng.permutation(len(images))
        order = order.take(np.argsort(group.take(order), kind='stable')).astype(np.int32)
        n_image = np.bincount(group)
        runs = Runs(np.cumsum(n_image[n_image > 0]), self.chunk, rng)
        return _GroupedBlock(np.cumsum(count), images, order, runs)

    def _count(self, number: int) -> tuple[np.ndarray, np.random.Generator]:
        """Occurrences of each class in a block, and the generator for its further draws."""
        rng = np.random.default_rng((self.seed, 0, number))
        count = np.zeros(len(self.probability), np.int64)
        count[self._present] = rng.multinomial(self._block_size, self.probability[self._present])
        return count, rng

    def _count_before(self, number: int) -> np.ndarray:
        """Occurrences of each class before a block."""
        known = number
        while known not in self._counts_before:
            known -= 1
        for k in range(known, number):
            self._counts_before[k + 1] = self._counts_before[k] + self._count(k)[0]
        return self._counts_before[number]

    def _append_images(self, parts: list[np.ndarray], label: int, first: int, n: int) -> None:
        """Append the images of ``n`` occurrences of a class, starting at occurrence ``first``."""
        number, k = divmod(first, self._shuffle_sizes[label])
        images = self._shuffle(label, number)[k : k + n]
        while len(images) < n:
            # The next shuffle overwrites this one.
            parts.append(images.copy())
            number, n = number + 1, n - len(images)
            images = self._shuffle(label, number)[:n]
        parts.append(images)

    def _shuffle(self, label: int, number: int) -> np.ndarray:
        """Shuffled images of a class: one pass, or several passes of a small class."""
        shuffled = self._shuffled[label]
        if self._shuffle_numbers[label] != number:
            rng = np.random.default_rng((self.seed, 1, label, number))
            images = self.classes.images[self._offsets[label] : self._offsets[label + 1]]
            codes = images.astype(shuffled.dtype)
            if self._group is not None:
                codes |= self._group.take(images).astype(shuffled.dtype) << self._n_bit
            if len(shuffled) > len(images):
                passes = shuffled.reshape(-1, len(images))
                passes[:] = codes.take(rng.random(passes.shape).argsort(axis=1))
            elif len(images) > _BLOCK:
                # Slower than a permutation, but in place.
                shuffled[:] = codes
                rng.shuffle(shuffled)
            else:
                shuffled[:] = codes.take(rng.permutation(len(codes)))
            self._shuffle_numbers[label] = number
        return shuffled


class _Block(NamedTuple):
    """Consecutive positions."""

    label: np.ndarray  # int16 (B,): class of each position
    before: np.ndarray  # int64 (B / cell, C): occurrences of each class before each cell


class _GroupedBlock(NamedTuple):
    """Consecutive positions, reordered by group."""

    ends: np.ndarray  # (C,): end of each class in images
    images: np.ndarray  # (B,): images class by class, with their groups in the upper bits
    order: np.ndarray  # int32 (B,): indices in images, sorted by group
    runs: Runs  # runs of order


class ClassAwareSampler(SoftBalanceSampler):
    r"""Class-aware sampling (Peng et al. (2020), equation 6).

    A class is drawn uniformly, then an image of that class. This is :class:`SoftBalanceSampler`
    with :math:`\lambda = 1`.

    Args:
        classes, seed, group, chunk: See :class:`SoftBalanceSampler`.
    """

    def __init__(
        self, classes: ClassImages, seed: int, group: np.ndarray | None = None, chunk: int = 1
    ):
        super().__init__(classes, 1.0, seed, group, chunk)

    def __reduce__(self) -> tuple:
        return ClassAwareSampler, (self.classes, self.seed, self._group, self.chunk)
