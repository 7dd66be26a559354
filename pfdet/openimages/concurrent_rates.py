"""Concurrent rates: how often an object of one class is also labelled as another class.

Section 4.1.1 of Peng et al. (2020) defines :math:`r_{ij}` as "the probability that an object of
class i is labeled as class j", from the annotations of the training set. Here it is the number of
objects labelled both :math:`i` and :math:`j`, divided by the number labelled :math:`i`.

An object is a group of boxes of one image. Groups are the connected components of the graph whose
edges join boxes with an IoU of at least 0.9, so they do not depend on the order of the boxes. The
label set of a group is the union of the labels of its boxes. Boxes with equal coordinates are
already one object in the index.

Group-of boxes are skipped by default. Each contains at least five instances of a class. If a group
of people and a group of bicycles have the same box, they are not one object with two labels.
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from pfdet.atomic_write import replace_when_done
from pfdet.boxes.iou import area as box_area
from pfdet.boxes.iou import matched_iou
from pfdet.errors import InputError
from pfdet.files.npz import read_npz
from pfdet.files.reading import reading
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex

# Relative tolerance for areas: far above float64 rounding, far below differences of thresholds.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class ConcurrentRates:
    """The counts from which concurrent rates are computed.

    Attributes:
        count (array): int64 ``(C,)``, number of objects labelled with each class.
        both (array): int64 ``(C, C)``, number of objects labelled with both classes. Symmetric,
            with a zero diagonal.
        iou_thresh (float): IoU threshold at which boxes were grouped to one object.
        group_of (bool): Whether group-of boxes were counted.
        expanded (bool): Whether labels were expanded to all ancestors before counting.
    """

    count: np.ndarray
    both: np.ndarray
    iou_thresh: float
    group_of: bool
    expanded: bool

    @cached_property
    def rates(self) -> np.ndarray:
        """float32 ``(C, C)``: :math:`r_{ij}` in row i, column j.

        The diagonal is 0, and so is the row of a class without objects.
        """
        return (self.both / np.maximum(self.count, 1)[:, None]).astype(np.float32)


class ConfusedPair(NamedTuple):
    """Two classes, with many objects of the first also labelled as the second.

    Attributes:
        i (int): The first class.
        j (int): The second class.
        rate (float): :math:`r_{ij}`.
        reverse (float): :math:`r_{ji}`.
        both (int): Number of objects labelled with both.
        count (int): Number of objects labelled with the first.
    """

    i: int
    j: int
    rate: float
    reverse: float
    both: int
    count: int


def concurrent_rates(
    index: AnnotationIndex, iou_thresh: float = 0.9, group_of: bool = False, expanded: bool = False
) -> ConcurrentRates:
    """Count over an index which pairs of labels occur on the same object.

    Args:
        index (AnnotationIndex): The annotations.
        iou_thresh (float): Boxes of an image with at least this IoU are one object. 1 groups only
            equal boxes.
        group_of (bool): Also count group-of boxes.
        expanded (bool): Expand label sets to all ancestors before counting. By default, label sets
            are as annotated.

    Returns:
        ConcurrentRates: The counts. ``rates`` is the input of concurrent softmax.

    Raises:
        ValueError: If ``iou_thresh`` is not in (0, 1].
    """
    n_class = len(index.classes)
    count = np.zeros(n_class, np.int64)
    both = np.zeros((n_class, n_class), np.int64)
    for sets in label_sets(index, iou_thresh, group_of):
        add_concurrences(expand(sets, index.hierarchy) if expanded else sets, count, both)
    return ConcurrentRates(count, both, iou_thresh, group_of, expanded)


def with_hierarchy(rates: np.ndarray, hierarchy: Hierarchy, rate: float = 1.0) -> np.ndarray:
    """Set the rates between classes and their ancestors.

    Section 4.1.1 of Peng et al. (2020) sets :math:`r_{ij}` to 0 for these. It also states that
    "scores of categories in a hierarchy [...] would not suppress each other", which requires 1.

    Args:
        rates (array): ``(C, C)``.
        hierarchy (Hierarchy): Hierarchy of the same classes.
        rate (float): 1 for the stated effect, 0 for the value in the paper.

    Returns:
        array: A copy of ``rates`` in which each class and each of its ancestors have ``rate`` in
        both directions. The diagonal is unchanged.

    Raises:
        ValueError: If the shapes differ, or ``rate`` is not in [0, 1].
    """
    if rates.shape != hierarchy.ancestors.shape:
        n_class = hierarchy.n_class
        raise ValueError(
            f'rates of shape {rates.shape}: expected {(n_class, n_class)} for {n_class} classes'
        )
    if not 0 <= rate <= 1:
        raise ValueError(f'hierarchy rate {rate}: expected a number from 0 to 1')
    rates = rates.copy()
    rates[hierarchy.ancestors | hierarchy.descendants] = rate
    return rates


def confused_pairs(
    rates: ConcurrentRates,
    threshold: float = 0.1,
    among: np.ndarray | None = None,
    min_count: int = 1,
) -> list[ConfusedPair]:
    """List the ordered pairs of confused classes, as in Figure 3a of Peng et al. (2020).

    Args:
        rates (ConcurrentRates): The counts.
        threshold (float): The minimum of :math:`r_{ij}`.
        among (array): bool ``(C,)``, the classes to consider, such as the leaves. All by default.
        min_count (int): The minimum number of objects labelled ``i``. Rates of few objects are not
            significant.

    Returns:
        list of ConfusedPair: By descending rate. Both directions of a pair may be included.
    """
    chosen = (rates.rates >= threshold) & (rates.both > 0) & (rates.count >= min_count)[:, None]
    if among is not None:
        chosen &= among[:, None] & among[None, :]
    i, j = np.nonzero(chosen)
    order = np.lexsort((j, i, -rates.both[i, j], -rates.rates[i, j]))
    return [
        ConfusedPair(
            a,
            b,
            float(rates.rates[a, b]),
            float(rates.rates[b, a]),
            int(rates.both[a, b]),
            int(rates.count[a]),
        )
        for a, b in zip(i[order].tolist(), j[order].tolist())
    ]


def label_sets(
    index: AnnotationIndex, iou_thresh: float = 0.9, group_of: bool = False, block: int = 1_000_000
) -> Iterator[sp.csr_array]:
    """Iterate over the label sets of all objects of an index, in blocks of images.

    Args:
        index (AnnotationIndex): The annotations.
        iou_thresh (float): As in :func:`concurrent_rates`.
        group_of (bool): As in :func:`concurrent_rates`.
        block (int): Approximate number of boxes per block. 1,000,000 boxes need about 300 MB.

    Yields:
        scipy.sparse.csr_array: int32 ``(objects, C)``, 1 where an object has a label. The objects
        are in no particular order.

    Raises:
        ValueError: If ``iou_thresh`` is not in (0, 1].
    """
    if not 0 < iou_thresh <= 1:
        raise ValueError(f'IoU threshold {iou_thresh}: expected more than 0 and at most 1')
    columns = index.columns
    first_of = columns['object_offsets']
    n_object = int(first_of[-1])
    # The first image of each block.
    starts = np.searchsorted(first_of, np.arange(block, n_object, block), side='right') - 1
    bounds = np.unique(np.concatenate([[0], starts, [len(index)]]))
    with tqdm(total=n_object, desc='objects', unit=' boxes', unit_scale=True, disable=None) as bar:
        for low, high in zip(bounds[:-1], bounds[1:]):
            offsets = first_of[low : high + 1].astype(np.int64)
            first, last = offsets[0], offsets[-1]
            image = np.repeat(np.arange(high - low), np.diff(offsets))
            bbox = columns['bbox'][first:last]
            of_label = columns['label_offsets'][first : last + 1]
            label = columns['label'][of_label[0] : of_label[-1]]
            row = np.repeat(np.arange(last - first), np.diff(of_label))
            if not group_of:
                single = (columns['flags'][first:last] & GROUP_OF) == 0
                label, row = label[single[row]], (np.cumsum(single) - 1)[row[single[row]]]
                image, bbox = image[single], bbox[single]
            group = group_boxes(bbox, image, iou_thresh)
            n_group = int(group.max(initial=-1)) + 1
            sets = sp.coo_array(
                (np.ones(len(label), np.int32), (group[row], label)), (n_group, len(index.classes))
            ).tocsr()
            sets.data[:] = 1  # labels of several boxes of a group were summed
            yield sets
            bar.update(int(last - first))


def expand(sets: sp.csr_array, hierarchy: Hierarchy) -> sp.csr_array:
    """Expand label sets to all ancestors.

    Args:
        sets (scipy.sparse.csr_array): From :func:`label_sets`.
        hierarchy (Hierarchy): Hierarchy of the same classes.

    Returns:
        scipy.sparse.csr_array: Of the same shape and dtype.
    """
    expanded = (sets @ sp.csr_array(hierarchy.closure.astype(np.int32))).tocsr()
    expanded.data[:] = 1
    return expanded


def add_concurrences(sets: sp.csr_array, count: np.ndarray, both: np.ndarray) -> None:
    """Add the label sets of a block of objects to the counts, in place.

    Args:
        sets (scipy.sparse.csr_array): From :func:`label_sets`.
        count (array): int64 ``(C,)``, see :class:`ConcurrentRates`. Modified.
        both (array): int64 ``(C, C)``, see :class:`ConcurrentRates`. Modified.
    """
    count += np.bincount(sets.indices, minlength=len(count))
    several = sets[np.flatnonzero(np.diff(sets.indptr) > 1)]
    together = (several.T @ several).toarray()
    np.fill_diagonal(together, 0)
    both += together


def group_boxes(bbox: np.ndarray, image: np.ndarray, iou_thresh: float = 0.9) -> np.ndarray:
    """Group boxes of the same object.

    Args:
        bbox (array): ``(R, 4)``, ``(y_min, x_min, y_max, x_max)`` in any unit, with positive
            height and width.
        image (array): Integers ``(R,)``. Boxes of different images are never grouped.
        iou_thresh (float): Boxes with at least this IoU are in one group. At 1 each box is a group
            of its own, since an index has no equal boxes.

    Returns:
        array: int64 ``(R,)``, group numbers from 0, in the order of the first boxes of the groups.
    """
    n_box = len(bbox)
    if iou_thresh >= 1:
        return np.arange(n_box)
    pairs = _overlapping_pairs(np.asarray(bbox, np.float64), image, iou_thresh)
    leader = np.arange(n_box)
    nodes, ends = np.unique(pairs, return_inverse=True)
    if len(nodes):
        one, other = ends.reshape(pairs.shape)
        graph = sp.coo_array((np.ones(len(one), np.int8), (one, other)), (len(nodes),) * 2)
        _, component = connected_components(graph, directed=False)
        _, first = np.unique(component, return_index=True)
        leader[nodes] = nodes[first[component]]
    return (np.cumsum(leader == np.arange(n_box)) - 1)[leader]


def _overlapping_pairs(bbox: np.ndarray, image: np.ndarray, iou_thresh: float) -> np.ndarray:
    """Return int64 ``(2, P)``, the pairs with an IoU of at least the threshold, each once.

    Two boxes with an IoU of t have an area ratio of at least t. So boxes are sorted by image and
    area. Each is compared with its successors until the area ratio is too small or the image ends.
    """
    area = box_area(bbox)
    order = np.lexsort((area, image))
    bbox, image, area = bbox[order], image[order], area[order]
    min_area = area * (iou_thresh * (1 - _TOLERANCE))
    pairs = [np.zeros((2, 0), np.int64)]
    first = np.arange(len(order))
    step = 0
    while len(first):
        step += 1
        first = first[: np.searchsorted(first, len(order) - step)]
        second = first + step
        candidate = (image[first] == image[second]) & (area[first] >= min_area[second])
        first, second = first[candidate], second[candidate]
        same = matched_iou(bbox[first], bbox[second]) >= iou_thresh
        pairs.append(np.stack([order[first[same]], order[second[same]]]))
    return np.concatenate(pairs, axis=1)


def write_concurrent_rates(
    path: str | os.PathLike, rates: ConcurrentRates, classes: Classes
) -> None:
    """Write rates to a ``.npz`` file, which NumPy alone can read.

    It contains ``rates``, float32 ``(C, C)``; ``count``, int64 ``(C,)``; ``both``, int64
    ``(C, C)``; ``mids`` and ``names``, str ``(C,)``; and the options ``iou_thresh``, ``group_of``
    and ``expanded``.

    Args:
        path (path): The file. It appears when it is complete.
        rates (ConcurrentRates): The counts.
        classes (Classes): The classes of ``rates``.

    Raises:
        OSError: If the file cannot be written.
    """
    with replace_when_done(path) as unfinished, open(unfinished, 'wb') as f:
        np.savez_compressed(
            f,
            rates=rates.rates,
            count=rates.count,
            both=rates.both,
            mids=np.array(classes.mids),
            names=np.array(classes.names),
            iou_thresh=rates.iou_thresh,
            group_of=rates.group_of,
            expanded=rates.expanded,
        )


def read_concurrent_rates(path: str | os.PathLike, classes: Classes) -> ConcurrentRates:
    """Read rates written by :func:`write_concurrent_rates`.

    Args:
        path (path): The ``.npz`` file.
        classes (Classes): The classes to return, in any order. The file may have more classes.

    Returns:
        ConcurrentRates: Counts in the order of ``classes``.

    Raises:
        InputError: If the file is missing, damaged, of another format, or lacks a class.
    """
    data = read_npz(path)
    with reading(path, 'concurrent rates written by pfdet.openimages.statistics'):
        positions = {mid: i for i, mid in enumerate(data['mids'].tolist())}
        count, both = data['count'], data['both']
        options = (float(data['iou_thresh']), bool(data['group_of']), bool(data['expanded']))
        n_mid = len(positions)
        if both.shape != (n_mid, n_mid) or count.shape != (n_mid,):
            raise ValueError(f'got counts of shapes {count.shape} and {both.shape}, {n_mid} mids')
        if both.dtype.kind != 'i' or count.dtype.kind != 'i':
            raise ValueError(f'got counts of dtypes {count.dtype} and {both.dtype}')
        if not ((both >= 0) & (both <= count[:, None])).all():
            raise ValueError('got more objects with two labels than with one of them')
    missing = [mid for mid in classes.mids if mid not in positions]
    if missing:
        raise InputError(
            f'{path}: lacks the rates of {len(missing)} of the {len(classes)} classes, '
            f'such as {missing[0]}; expected the rates of the training index'
        )
    chosen = [positions[mid] for mid in classes.mids]
    return ConcurrentRates(count[chosen], both[np.ix_(chosen, chosen)], *options)


def write_pairs_csv(path: str | os.PathLike, pairs: list[ConfusedPair], classes: Classes) -> None:
    """Write pairs of classes as CSV, one ordered pair per line.

    Args:
        path (path): The file. It appears when it is complete.
        pairs (list of ConfusedPair): From :func:`confused_pairs`.
        classes (Classes): The classes, for their mids and names.

    Raises:
        OSError: If the file cannot be written.
    """
    with (
        replace_when_done(path) as unfinished,
        open(unfinished, 'w', newline='', encoding='utf-8') as f,
    ):
        writer = csv.writer(f, lineterminator='\n')
        writer.writerow(
            [
                'LabelName',
                'DisplayName',
                'AsLabelName',
                'AsDisplayName',
                'Rate',
                'ReverseRate',
                'ObjectsWithBoth',
                'Objects',
            ]
        )
        for p in pairs:
            writer.writerow(
                [
                    classes.mids[p.i],
                    classes.names[p.i],
                    classes.mids[p.j],
                    classes.names[p.j],
                    f'{p.rate:.6f}',
                    f'{p.reverse:.6f}',
                    p.both,
                    p.count,
                ]
            )
