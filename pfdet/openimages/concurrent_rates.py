"""Concurrent rates: how often an object of one class is labelled as another class, too.

Section 4.1.1 of *Large-Scale Object Detection in the Wild from Imbalanced Multi-Labels* defines
:math:`r_{ij}` as "the probability that an object of class i is labeled as class j", from the
annotations of the training set. Here it is the number of objects labelled both :math:`i` and
:math:`j` over the number labelled :math:`i`.

An object is a group of boxes of one image: two boxes with an IoU of at least 0.9 are in the same
group, and so are two that are joined by a chain of such boxes (connected components, so that the
groups depend neither on an order nor on a choice of leader). The label set of the group is the
union of its boxes' labels. Boxes with equal coordinates are one already in the index.

Group-of boxes are left out unless asked for: one says that there are at least five of a class
within, and a group of people whose box is that of a group of bicycles is not one object with two
labels.
"""

import csv
import os
import zipfile
import zlib
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
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex

# Far above what float64 loses in an area, far below what a threshold could mean.
_SLACK = 1e-9
# What NumPy, zipfile and zlib raise on a file that is not what they expect.
_DAMAGED = (ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class ConcurrentRates:
    """What was counted.

    Attributes:
        count (array): int64 ``(C,)``, objects labelled with each class.
        both (array): int64 ``(C, C)``, objects labelled with both classes; symmetric, its
            diagonal is zero.
        iou_thresh (float): Boxes with at least this IoU were one object.
        group_of (bool): Whether group-of boxes were counted.
        expanded (bool): Whether labels were expanded to all ancestors first.
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
    """Two classes of which the first is often labelled as the second.

    Attributes:
        i (int): The first class.
        j (int): The second class.
        rate (float): :math:`r_{ij}`.
        reverse (float): :math:`r_{ji}`.
        both (int): Objects labelled with both.
        count (int): Objects labelled with the first.
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
    """Count over a whole index which labels objects have together.

    Args:
        index (AnnotationIndex): The annotations.
        iou_thresh (float): Boxes of an image with at least this IoU are one object. 1 joins only
            equal boxes.
        group_of (bool): Count group-of boxes, too.
        expanded (bool): Expand label sets to all ancestors first; by default they are taken as
            annotated.

    Returns:
        ConcurrentRates: The counts, and as ``rates`` what concurrent softmax needs.
    """
    n_class = len(index.classes)
    count = np.zeros(n_class, np.int64)
    both = np.zeros((n_class, n_class), np.int64)
    for sets in label_sets(index, iou_thresh, group_of):
        add_concurrences(expand(sets, index.hierarchy) if expanded else sets, count, both)
    return ConcurrentRates(count, both, iou_thresh, group_of, expanded)


def with_hierarchy(rates: np.ndarray, hierarchy: Hierarchy, rate: float = 1.0) -> np.ndarray:
    """Set the rates between classes of which one is a kind of the other.

    Section 4.1.1 says both that :math:`r_{ij}` is set to 0 for those and that "scores of
    categories in a hierarchy [...] would not suppress each other", which takes 1.

    Args:
        rates (array): ``(C, C)``.
        hierarchy (Hierarchy): Over the same classes.
        rate (float): 1 for the effect the paper intends; 0 for its letter.

    Returns:
        array: A copy of ``rates``, in which every class and its ancestor, near or far, have
        ``rate`` in both directions. The diagonal is as it was.

    Raises:
        ValueError: If the shapes differ, or ``rate`` is not in [0, 1].
    """
    if rates.shape != hierarchy.ancestors.shape:
        raise ValueError(f'rates of shape {rates.shape} for {hierarchy.n_class} classes')
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
    """List the ordered pairs of classes that are confused, as in figure 3a of the paper.

    Args:
        rates (ConcurrentRates): What was counted.
        threshold (float): The least :math:`r_{ij}`.
        among (array): bool ``(C,)``, the classes to look at, such as a hierarchy's leaves; all
            by default.
        min_count (int): The least number of objects labelled ``i``: a rate out of two objects
            says little.

    Returns:
        list of ConfusedPair: The highest rate first. Both directions of a pair may be there.
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
    """Iterate over the label sets of all objects of an index, a block of images at a time.

    Args:
        index (AnnotationIndex): The annotations.
        iou_thresh (float): As in :func:`concurrent_rates`.
        group_of (bool): As in :func:`concurrent_rates`.
        block (int): About how many boxes at a time; 1,000,000 take some 300 MB.

    Yields:
        scipy.sparse.csr_array: int32 ``(objects, C)``: 1 where an object has a label. The order
        of the objects means nothing.

    Raises:
        ValueError: If ``iou_thresh`` is not in (0, 1].
    """
    if not 0 < iou_thresh <= 1:
        raise ValueError(f'IoU threshold {iou_thresh}: expected more than 0 and at most 1')
    columns = index.columns
    first_of = columns['object_offsets']
    n_object = int(first_of[-1])
    # The images at which blocks begin: one more image than fits ends a block.
    cuts = np.searchsorted(first_of, np.arange(block, n_object, block), side='right') - 1
    bounds = np.unique(np.concatenate([[0], cuts, [len(index)]]))
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
            sets.data[:] = 1  # a label that several boxes of a group have was summed
            yield sets
            bar.update(int(last - first))


def expand(sets: sp.csr_array, hierarchy: Hierarchy) -> sp.csr_array:
    """Expand label sets to all ancestors.

    Args:
        sets (scipy.sparse.csr_array): From :func:`label_sets`.
        hierarchy (Hierarchy): Over the same classes.

    Returns:
        scipy.sparse.csr_array: Of the same shape and dtype.
    """
    expanded = (sets @ sp.csr_array(hierarchy.closure.astype(np.int32))).tocsr()
    expanded.data[:] = 1
    return expanded


def add_concurrences(sets: sp.csr_array, count: np.ndarray, both: np.ndarray) -> None:
    """Add the label sets of a block of objects to counts.

    Args:
        sets (scipy.sparse.csr_array): From :func:`label_sets`.
        count (array): int64 ``(C,)``; changed.
        both (array): int64 ``(C, C)``; changed.
    """
    count += np.bincount(sets.indices, minlength=len(count))
    several = sets[np.flatnonzero(np.diff(sets.indptr) > 1)]
    together = (several.T @ several).toarray()
    np.fill_diagonal(together, 0)
    both += together


def group_boxes(bbox: np.ndarray, image: np.ndarray, iou_thresh: float = 0.9) -> np.ndarray:
    """Group boxes that are one object.

    Args:
        bbox (array): ``(R, 4)``, ``(y_min, x_min, y_max, x_max)`` in any unit, with positive
            height and width.
        image (array): Integers ``(R,)``; boxes of different images are never grouped.
        iou_thresh (float): Boxes with at least this IoU are in one group. At 1 every box is
            its own group: the index has joined equal ones.

    Returns:
        array: int64 ``(R,)``, the groups, counted from 0 in the order of their first boxes.
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

    An IoU of t takes areas of a ratio of at least t. So boxes are sorted by image and area, and
    compared with the next, the next but one ..., each until the area or the image is another.
    """
    area = box_area(bbox)
    order = np.lexsort((area, image))
    bbox, image, area = bbox[order], image[order], area[order]
    least = area * (iou_thresh * (1 - _SLACK))
    found = [np.zeros((2, 0), np.int64)]
    here = np.arange(len(order))
    step = 0
    while len(here):
        step += 1
        here = here[: np.searchsorted(here, len(order) - step)]
        there = here + step
        near = (image[here] == image[there]) & (area[here] >= least[there])
        here, there = here[near], there[near]
        same = matched_iou(bbox[here], bbox[there]) >= iou_thresh
        found.append(np.stack([order[here[same]], order[there[same]]]))
    return np.concatenate(found, axis=1)


def write_concurrent_rates(
    path: str | os.PathLike, rates: ConcurrentRates, classes: Classes
) -> None:
    """Write rates to a ``.npz`` file, which needs nothing of pfdet to be read.

    It has ``rates`` float32 ``(C, C)``, ``count`` and ``both`` int64, ``mids`` and ``names``,
    and the options ``iou_thresh``, ``group_of`` and ``expanded``.

    Args:
        path (path): The file; it appears when it is complete.
        rates (ConcurrentRates): What was counted.
        classes (Classes): The classes counted.

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
    """Read rates that :func:`write_concurrent_rates` wrote.

    Args:
        path (path): The ``.npz`` file.
        classes (Classes): The classes to give rates for, in any order; the file may have more.

    Returns:
        ConcurrentRates: In the order of ``classes``.

    Raises:
        InputError: If the file is missing or damaged, holds something else, or lacks a class.
    """
    try:
        with open(path, 'rb') as f:
            data = np.load(f, allow_pickle=False)
            if not isinstance(data, np.lib.npyio.NpzFile):
                raise ValueError('it is a single array')
            at = {mid: i for i, mid in enumerate(data['mids'].tolist())}
            count, both = data['count'], data['both']
            options = (float(data['iou_thresh']), bool(data['group_of']), bool(data['expanded']))
        if both.shape != (len(at),) * 2 or count.shape != (len(at),):
            raise ValueError(f'its counts are {count.shape} and {both.shape} for {len(at)} mids')
        if both.dtype.kind != 'i' or count.dtype.kind != 'i':
            raise ValueError(f'its counts are {count.dtype} and {both.dtype}')
    except OSError as e:
        raise InputError(f'{path}: cannot read concurrent rates: {e.strerror or e}') from e
    except _DAMAGED as e:
        raise InputError(
            f'{path}: expected the concurrent rates that pfdet.openimages.statistics '
            f'writes, but {e}'
        ) from e
    missing = [mid for mid in classes.mids if mid not in at]
    if missing:
        raise InputError(
            f'{path}: has no rates of {len(missing)} of the {len(classes)} classes, '
            f'such as {missing[0]}; expected the rates of the training index'
        )
    chosen = [at[mid] for mid in classes.mids]
    return ConcurrentRates(count[chosen], both[np.ix_(chosen, chosen)], *options)


def write_pairs_csv(path: str | os.PathLike, pairs: list[ConfusedPair], classes: Classes) -> None:
    """Write pairs of classes as CSV, one ordered pair a line.

    Args:
        path (path): The file; it appears when it is complete.
        pairs (list of ConfusedPair): From :func:`confused_pairs`.
        classes (Classes): For their mids and names.

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
