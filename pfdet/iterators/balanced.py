"""Global sequences in which rare classes come more often than their images do.

A class is drawn for every position, then the next image of that class (Concurrent softmax, section
4.2). The class of a position, and how often that class came before it, follow from the seed and
the position alone, so every rank reads its own positions from one sequence that nobody sends:

- Positions are cut into blocks. How often each class comes in a block is one multinomial draw, in
  what order a shuffle, which together is the same as drawing class by class. How often classes come
  before a block is the sum of such draws, tens of microseconds each, so a run resumes anywhere
  without going through the sequence.
- A class deals its images pass by pass, each pass in an order of its own. The :math:`k`-th
  occurrence of the class takes the :math:`k`-th image dealt.

A rank holds one shuffled pass of every class: 4 bytes for every class of every image. The images
of the classes in their given order are as many bytes more, which the ranks of a node share if they
come from :func:`shared_class_images`.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pfdet.errors import InputError
from pfdet.iterators.aspect_runs import Runs, number_groups
from pfdet.openimages.column_file import map_columns, write_columns
from pfdet.openimages.index import AnnotationIndex

_KIND = 'list of images by class'
# Positions of a block: two milliseconds to draw, and half a megabyte to keep.
_BLOCK = 1 << 17
# Occurrences of a class are counted in whole cells ahead of time, within one when asked for.
_CELL = 1 << 12
# Passes of small classes are drawn together, about so many images at a time.
_PASSES = 1 << 12


@dataclass(frozen=True, eq=False)
class ClassImages:
    """The images of every class.

    Pickled, it is the path of its file, if it has one.

    Attributes:
        offsets (array): int64 :math:`(C + 1,)`. Class :math:`c` has
            ``images[offsets[c]:offsets[c + 1]]``.
        images (array): int32, ascending in a class.
        n_image (int): Images there are, with a class or without.
        path (pathlib.Path): The file the arrays are mapped from, if they are.
    """

    offsets: np.ndarray
    images: np.ndarray
    n_image: int
    path: Path | None = None

    @property
    def count(self) -> np.ndarray:
        """:math:`n_i`, the number of images of each class, :math:`(C,)`."""
        return np.diff(self.offsets)

    def __reduce__(self) -> tuple:
        if self.path is not None:
            return _open, (self.path,)
        return ClassImages, (self.offsets, self.images, self.n_image)


def class_images(index: AnnotationIndex, expand: bool = False) -> ClassImages:
    """Find the images with a box of each class.

    Args:
        index (AnnotationIndex): The training set.
        expand (bool): Whether an image of a class is also one of the class's ancestors. The paper
            counts "images containing objects of the i-th class" and does not say. By default
            labels count as annotated, where the long tail is: expanded, a parent such as
            Clothing has most of the images of the data set, which they have through their own
            classes already.

    Raises:
        InputError: If no image has a box.
    """
    n_class = len(index.classes)
    offsets, label = index.image_classes()
    if not len(label):
        raise InputError(f'{index.path}: no image has a box; expected images of some class')
    image = np.repeat(np.arange(len(index), dtype=np.int32), np.diff(offsets))
    image = image[np.argsort(label, kind='stable')]
    count = np.bincount(label, minlength=n_class)
    if expand:
        lists = np.split(image, np.cumsum(count)[:-1])
        lists = [_union(lists, index.hierarchy.closure[:, c], len(index)) for c in range(n_class)]
        image = np.concatenate(lists)
        count = np.array([len(images) for images in lists])
    return ClassImages(np.append(0, np.cumsum(count)), image, len(index))


def _union(lists: list[np.ndarray], chosen: np.ndarray, n_image: int) -> np.ndarray:
    """The images that are in one of the chosen lists, ascending."""
    found = np.zeros(n_image, bool)
    for c in np.flatnonzero(chosen):
        found[lists[c]] = True
    return np.flatnonzero(found).astype(np.int32)


def shared_class_images(index: AnnotationIndex, expand: bool = False) -> ClassImages:
    """:func:`class_images`, mapped from a file beside the index, which processes share.

    The file is made where there is none, or one of another index. Where it cannot be written, the
    arrays are this process's own. Several processes may call this at the same time, but it is
    cheaper when one has made the file before the others ask.

    Args:
        index (AnnotationIndex): The training set.
        expand (bool): See :func:`class_images`.

    Raises:
        InputError: If no image has a box.
    """
    path = Path(f'{index.path}.class-images{"-expanded" if expand else ""}')
    # The checksums in the index's header tell whether the file is of this index.
    _, header = map_columns(index.path, 'annotation index')
    made_of = {
        name: header['columns'][name]['crc32']
        for name in ('object_offsets', 'label_offsets', 'label')
    }
    if expand:
        made_of['ancestors'] = header['ancestors']
    try:
        return _open(path, made_of)
    except InputError:
        found = class_images(index, expand)
    try:
        write_columns(
            path,
            _KIND,
            {'offsets': found.offsets, 'images': found.images},
            {'n_image': found.n_image, 'made_of': made_of},
        )
    except OSError:
        return found
    return _open(path, made_of)


def _open(path: Path, made_of: dict | None = None) -> ClassImages:
    columns, header = map_columns(path, _KIND)
    if made_of is not None and header['made_of'] != made_of:
        raise InputError(f'{path}: made of another index')
    return ClassImages(columns['offsets'], columns['images'], header['n_image'], path)


def soft_balance(count: np.ndarray, lam: float) -> np.ndarray:
    r"""The probability of each class to be sampled.

    Concurrent softmax, equations 6 to 8: :math:`P^*_s(i) \propto \alpha^\lambda P_n(i)`, where
    :math:`P_n(i) = n_i / \sum_j n_j` and :math:`\alpha = 1 / (C P_n(i))`. That is :math:`P_n` with
    :math:`\lambda = 0` and the same for all classes with :math:`\lambda = 1`.

    Args:
        count (int array): :math:`n_i`, images of each class, :math:`(C,)`. Classes without an
            image are left out: they have probability 0 and do not count in :math:`C`.
        lam (float): :math:`\lambda \ge 0`.

    Returns:
        array: float64 :math:`(C,)`.
    """
    if not 0 <= lam < np.inf:
        raise ValueError(f'lambda must be at least 0 and finite, not {lam}')
    count = np.asarray(count)
    present = count > 0
    if not present.any():
        raise ValueError('balanced sampling needs a class with an image')
    # P_s is proportional to n^(1 - lambda). With the largest term 1, no lambda overflows.
    n = count[present] / (count.max() if lam < 1 else count[present].min())
    probability = np.zeros(len(count))
    probability[present] = n ** (1 - lam) / (n ** (1 - lam)).sum()
    return probability


class SoftBalanceSampler:
    r"""A class drawn from :math:`P^*_s`, then an image of that class.

    An image comes again for a class after all others of the class have come. Those of several
    classes come through each of them. Images without a class never come. An epoch is as long as
    that of :class:`~pfdet.iterators.samplers.SequentialSampler`, all images' number.

    With ``group``, runs of ``chunk`` positions hold images of one group or, where one ends, of
    neighbouring ones: positions are reordered in blocks of 131,072, or of an epoch if that is
    less. What a block holds is drawn all the same, but where a class begins its next pass within a
    block, images of both passes mix. Runs begin at multiples of ``chunk``; the
    sequence depends on ``chunk`` and not on the number of ranks.

    It is for one thread at a time.

    Args:
        classes (ClassImages): The images of each class.
        lam (float): :math:`\lambda`, see :func:`soft_balance`.
        seed (int): Of the sequence, not negative.
        group (int array): The group of each image, :math:`(n,)`, as from
            :func:`~pfdet.iterators.samplers.aspect_groups`.
        chunk (int): Positions of one group in a row.
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
        # The remainder of a multinomial draw goes to the last class, which must have an image.
        self._present = np.flatnonzero(classes.count)
        self._offsets = classes.offsets.tolist()
        self._deals = [n * max(1, _PASSES // max(1, n)) for n in classes.count.tolist()]
        self._counted = {0: np.zeros(len(classes.count), np.int64)}
        self._block_size = _BLOCK
        # Images are dealt as numbers: in the lower bits the image, above them its group, which is
        # then at hand without a look elsewhere in memory.
        self._n_bit, self._group, n_group = 31, None, 1
        if group is not None:
            self._block_size = max(1, min(_BLOCK, classes.n_image) // chunk) * chunk
            self._n_bit = max(1, (classes.n_image - 1).bit_length())
            self._group, n_group = number_groups(group)
        # In one array, as pieces of the heap would be left over.
        dealt = np.empty(
            sum(self._deals), np.uint32 if n_group <= 1 << 32 - self._n_bit else np.uint64
        )
        self._dealt = np.split(dealt, np.cumsum(self._deals)[:-1])
        self._dealt_number = [-1] * len(self._deals)
        # Prefetching crosses the border between blocks, back and forth.
        self._block = functools.lru_cache(maxsize=2)(self._block)

    def __reduce__(self) -> tuple:
        return SoftBalanceSampler, (self.classes, self.lam, self.seed, self._group, self.chunk)

    def __len__(self) -> int:
        """Positions in an epoch."""
        return self.classes.n_image

    def __getitem__(self, position: int) -> int:
        """The image at a position, which may be of any epoch."""
        block, place = self._find(position)
        if isinstance(block, _GroupedBlock):
            return int(block.dealt[block.order[block.runs[place]]]) & (1 << self._n_bit) - 1
        label = int(block.label[place])
        cell = place // _CELL
        nth = int(block.before[cell, label]) + np.count_nonzero(
            block.label[cell * _CELL : place] == label
        )
        deal, k = divmod(nth, self._deals[label])
        return int(self._deal(label, deal)[k])

    def label(self, position: int) -> int:
        """The class that was drawn for a position."""
        block, place = self._find(position)
        if isinstance(block, _GroupedBlock):
            return int(np.searchsorted(block.ends, block.order[block.runs[place]], 'right'))
        return int(block.label[place])

    def _find(self, position: int) -> tuple['_Block | _GroupedBlock', int]:
        if position < 0:
            raise IndexError(f'position {position} of a sequence that begins at 0')
        number, place = divmod(position, self._block_size)
        return self._block(number), place

    def _block(self, number: int) -> '_Block | _GroupedBlock':
        count, rng = self._count(number)
        before = self._count_before(number)
        if self._group is not None:
            return self._grouped_block(count, before, rng)
        n_class = len(self.probability)
        label = np.repeat(np.arange(n_class), count)
        rng.shuffle(label)
        n_cell = self._block_size // _CELL
        cells = label.reshape(n_cell, _CELL) + n_class * np.arange(n_cell)[:, None]
        cells = np.bincount(cells.ravel(), minlength=n_cell * n_class).reshape(n_cell, n_class)
        return _Block(label.astype(np.int16), before + np.cumsum(cells, axis=0) - cells)

    def _grouped_block(self, count: np.ndarray, before: np.ndarray, rng) -> '_GroupedBlock':
        parts = []
        for c in self._present.tolist():
            self._add_images(parts, c, int(before[c]), int(count[c]))
        dealt = np.concatenate(parts)
        group = (dealt >> dealt.dtype.type(self._n_bit)).astype(self._group.dtype)
        # Shuffled, and then sorted by group.
        order = rng.permutation(len(dealt))
        order = order.take(np.argsort(group.take(order), kind='stable')).astype(np.int32)
        n_dealt = np.bincount(group)
        runs = Runs(np.cumsum(n_dealt[n_dealt > 0]), self.chunk, rng)
        return _GroupedBlock(np.cumsum(count), dealt, order, runs)

    def _count(self, number: int) -> tuple[np.ndarray, np.random.Generator]:
        """How often each class comes in a block, and the generator that the rest is drawn from."""
        rng = np.random.default_rng((self.seed, 0, number))
        count = np.zeros(len(self.probability), np.int64)
        count[self._present] = rng.multinomial(self._block_size, self.probability[self._present])
        return count, rng

    def _count_before(self, number: int) -> np.ndarray:
        """How often each class comes before a block."""
        known = number
        while known not in self._counted:
            known -= 1
        for k in range(known, number):
            self._counted[k + 1] = self._counted[k] + self._count(k)[0]
        return self._counted[number]

    def _add_images(self, parts: list[np.ndarray], label: int, first: int, n: int) -> None:
        """Append the images of ``n`` occurrences of a class from the ``first`` on, in parts."""
        deal, k = divmod(first, self._deals[label])
        images = self._deal(label, deal)[k : k + n]
        while len(images) < n:
            # The next deal takes the place of this one.
            parts.append(images.copy())
            deal, n = deal + 1, n - len(images)
            images = self._deal(label, deal)[:n]
        parts.append(images)

    def _deal(self, label: int, number: int) -> np.ndarray:
        """Images of a class: one pass over its list, or some passes over a short one."""
        dealt = self._dealt[label]
        if self._dealt_number[label] != number:
            rng = np.random.default_rng((self.seed, 1, label, number))
            images = self.classes.images[self._offsets[label] : self._offsets[label + 1]]
            numbers = images.astype(dealt.dtype)
            if self._group is not None:
                numbers |= self._group.take(images).astype(dealt.dtype) << self._n_bit
            if len(dealt) > len(images):
                passes = dealt.reshape(-1, len(images))
                passes[:] = numbers.take(rng.random(passes.shape).argsort(axis=1))
            elif len(images) > _BLOCK:
                # Slower than the next, but it needs no memory.
                dealt[:] = numbers
                rng.shuffle(dealt)
            else:
                dealt[:] = numbers.take(rng.permutation(len(numbers)))
            self._dealt_number[label] = number
        return dealt


class _Block(NamedTuple):
    """Some positions in a row: the class of each, ``label`` int16 :math:`(B,)`, and how often each
    class comes ``before`` each cell, int64."""

    label: np.ndarray
    before: np.ndarray


class _GroupedBlock(NamedTuple):
    """Some positions in a row: what is ``dealt`` class by class, :math:`(B,)`, where in it each
    class ``ends``, an ``order`` sorted by group, and ``runs`` of that."""

    ends: np.ndarray
    dealt: np.ndarray
    order: np.ndarray
    runs: Runs


class ClassAwareSampler(SoftBalanceSampler):
    r"""A class drawn uniformly, then an image of that class: :math:`P_a`, which is
    :class:`SoftBalanceSampler` with :math:`\lambda = 1` (Concurrent softmax, equation 6).

    Args:
        classes, seed, group, chunk: See :class:`SoftBalanceSampler`.
    """

    def __init__(
        self, classes: ClassImages, seed: int, group: np.ndarray | None = None, chunk: int = 1
    ):
        super().__init__(classes, 1.0, seed, group, chunk)

    def __reduce__(self) -> tuple:
        return ClassAwareSampler, (self.classes, self.seed, self._group, self.chunk)
