"""Box tables that are expanded over the hierarchy already.

The script of the challenge of 2018 repeats each box for every ancestor of its class. Its output has
the same columns as the tables that it reads. Expanded a second time, a box of an apple would be two
boxes of a fruit, one of which nothing can detect.
"""

import numpy as np
import scipy.sparse as sp

from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.box_groups import sort_boxes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.tables import BoxTable

#: A table is expanded if at least this share of the boxes of classes with ancestors has a box of
#: each ancestor. Where annotators drew the boxes, few pairs of boxes are equal.
SHARE = 0.95
#: From this share on, a table may be expanded over another hierarchy.
SHARE_IN_PART = 0.2
# Most tables are not expanded, which some ten thousand boxes show.
_N_SAMPLE = 20_000


def without_expansion(boxes: BoxTable, hierarchy: Hierarchy) -> tuple[BoxTable, dict[str, int]]:
    """Remove the boxes that expanding a table over the hierarchy has added.

    A box is a copy if the box of a descendant has the same image, coordinates and group-of flag.
    If an object is annotated as Apple and in another row as Fruit, its expanded rows are one Apple
    and two Fruits. So not all boxes of ancestors are copies: their number is the solution of
    :math:`n = m A`, where :math:`n` are the numbers of rows per class of an object,
    :math:`A` is the closure of the hierarchy and :math:`m` the numbers before the expansion.

    Args:
        boxes (BoxTable): The rows.
        hierarchy (Hierarchy): The hierarchy of the same classes.

    Returns:
        tuple: The table without the copies, and their number (``expanded``). If the table is not
        expanded, the same table and 0, and in ``expanded_in_part`` the percentage of the boxes
        with boxes of all ancestors, if it is at least :data:`SHARE_IN_PART`.
    """
    counts = {'expanded': 0, 'expanded_in_part': 0}
    has_ancestor = hierarchy.ancestors.any(axis=1)
    child = has_ancestor[boxes.label]
    if not child.any() or _share_with_ancestors(_sample(boxes, child), hierarchy) < SHARE_IN_PART:
        return boxes, counts
    share = _share_with_ancestors(boxes, hierarchy)
    if share < SHARE:
        if share >= SHARE_IN_PART:
            counts['expanded_in_part'] = round(100 * share)
        return boxes, counts
    order, object_of, first_of_label = _objects(boxes)
    n_row = _label_counts(boxes, order, object_of, hierarchy.n_class)
    before = (n_row @ _inverse(hierarchy)).tocsr()
    # A table without repeated rows has fewer than the expansion of each of its rows would give.
    before.data = np.maximum(before.data, 0)
    label = boxes.label[order]
    # The position of a row among those of the same object and class.
    start = np.flatnonzero(first_of_label)
    position = np.arange(len(order)) - np.repeat(start, np.diff(np.append(start, len(order))))
    n_kept = _entries(before, object_of, label)
    rows = np.sort(order[position < n_kept])
    counts['expanded'] = len(boxes.label) - len(rows)
    return _take(boxes, rows), counts


def _sample(boxes: BoxTable, child: np.ndarray) -> BoxTable:
    """Return the rows of the first images, with at least ``_N_SAMPLE`` boxes of children."""
    if child.sum() <= _N_SAMPLE:
        return boxes
    n_child = np.cumsum(np.bincount(boxes.image[child], minlength=len(boxes.ids)))
    return _take(boxes, np.flatnonzero(boxes.image <= np.searchsorted(n_child, _N_SAMPLE)))


def _take(boxes: BoxTable, rows: np.ndarray) -> BoxTable:
    return BoxTable(
        boxes.ids,
        boxes.image[rows],
        boxes.label[rows],
        boxes.bbox[rows],
        boxes.flags[rows],
        boxes.counts,
        boxes.unknown,
    )


def _objects(boxes: BoxTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows sorted by object and class, the object of each, and the first of each class."""
    group_of = (boxes.flags & GROUP_OF) > 0
    order, (_, new_object, new_label) = sort_boxes(boxes, (group_of, boxes.label))
    return order, np.cumsum(new_object) - 1, new_label


def _label_counts(
    boxes: BoxTable, order: np.ndarray, object_of: np.ndarray, n_class: int
) -> sp.csr_array:
    """Return the number of rows per object and class, int32 ``(objects, C)``."""
    shape = (int(object_of[-1]) + 1, n_class)
    ones = np.ones(len(order), np.int32)
    return sp.coo_array((ones, (object_of, boxes.label[order])), shape).tocsr()


def _share_with_ancestors(boxes: BoxTable, hierarchy: Hierarchy) -> float:
    """Return the share of boxes of children that have a box of each ancestor."""
    order, object_of, _ = _objects(boxes)
    counts = _label_counts(boxes, order, object_of, hierarchy.n_class)
    present = counts.copy()
    present.data[:] = 1
    # Per object and class: the number of its ancestors that the object has, too.
    found = (present @ sp.csr_array(hierarchy.descendants.astype(np.int32))).tocsr()
    label = boxes.label[order]
    n_ancestor = hierarchy.ancestors.sum(axis=1)[label]
    child = n_ancestor > 0
    n_found = _entries(found, object_of[child], label[child])
    return float((n_found == n_ancestor[child]).mean())


def _entries(matrix: sp.csr_array, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return entries of a sparse matrix; indexing it would return another sparse array."""
    matrix.sort_indices()
    n_column = matrix.shape[1]
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    keys = np.append(rows * n_column + matrix.indices, np.iinfo(np.int64).max)
    wanted = row.astype(np.int64) * n_column + column
    position = np.searchsorted(keys, wanted)
    return np.where(keys[position] == wanted, np.append(matrix.data, 0)[position], 0)


def _inverse(hierarchy: Hierarchy) -> sp.csr_array:
    """Return the inverse of the closure, whose entries are integers."""
    # Sorted by the number of ancestors the closure is triangular, with a diagonal of ones.
    return sp.csr_array(np.rint(np.linalg.inv(hierarchy.closure.astype(float))).astype(np.int32))
