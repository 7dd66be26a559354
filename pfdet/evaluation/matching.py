"""Which ground truth box each detection overlaps most; for the metric and for error analysis."""

from collections.abc import Callable

import numpy as np

from pfdet.boxes.iou import matched_ioa, matched_iou
from pfdet.boxes.pairs import blocks, is_first, rows_of_pairs, stable_argsort


def best_matches(
    bbox: np.ndarray,
    key: np.ndarray,
    gt_bbox: np.ndarray,
    gt_key: np.ndarray,
    thresh: float,
    overlap: Callable = matched_iou,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ground truth box of the greatest overlap with each detection, of the same key.

    Args:
        bbox (float array): Detections, :math:`(D, 4)`, each with an area.
        key (int array): Of the image and class of each detection, :math:`(D,)`, ascending.
        gt_bbox (float array): Ground truth, :math:`(G, 4)`, in the same unit.
        gt_key (int array): :math:`(G,)`, in any order.
        thresh (float): Least overlap, more than 0.
        overlap (callable): :func:`~pfdet.boxes.iou.matched_iou`, or
            :func:`~pfdet.boxes.iou.matched_ioa` for the covered part of the detection. Computed in
            float64, as the official evaluator does.

    Returns:
        tuple of arrays: Of the detections that overlap any box by the threshold: their indices, the
        index of the box, of equal overlaps the first box, and the overlap.
    """
    if overlap not in (matched_iou, matched_ioa):
        raise ValueError(f'overlap is {overlap!r}, expected matched_iou or matched_ioa')
    order = stable_argsort(gt_key)
    gt_bbox = gt_bbox.take(order, axis=0)
    unique, gt_start, n_gt = np.unique(gt_key[order], return_index=True, return_counts=True)
    start = np.searchsorted(key, unique)
    n_detection = np.searchsorted(key, unique, side='right') - start
    none = np.zeros(0, np.int64)
    if not n_detection.any():
        return none, none, np.zeros(0)
    # The detections that have a ground truth of their key, and the boxes of each.
    slot, which = rows_of_pairs(n_detection)
    some, gt_start, n_gt = start[slot] + which, gt_start[slot], n_gt[slot]
    columns = np.ascontiguousarray(bbox.take(some, axis=0).T)
    gt_columns = np.ascontiguousarray(gt_bbox.T)
    found = [(none, none, np.zeros(0))]
    for block in blocks(n_gt):
        row, which = rows_of_pairs(n_gt[block])
        row += block.start
        other = gt_start.take(row) + which
        near = _may_overlap(columns, gt_columns, row, other, thresh, overlap is matched_iou)
        row, other = row.take(near), other.take(near)
        value = overlap(bbox[some[row]].astype(np.float64), gt_bbox[other].astype(np.float64))
        enough = np.flatnonzero(value >= thresh)
        if len(enough) == 0:
            continue
        row, other, value = row[enough], other[enough], value[enough]
        first = is_first(row)
        highest = np.maximum.reduceat(value, np.flatnonzero(first))
        at_highest = np.flatnonzero(value == highest[np.cumsum(first) - 1])
        at_highest = at_highest[is_first(row[at_highest])]
        found.append((some[row[at_highest]], order[other[at_highest]], highest))
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))


def _may_overlap(
    a: np.ndarray, b: np.ndarray, i: np.ndarray, j: np.ndarray, thresh: float, over_union: bool
) -> np.ndarray:
    # Which of the pairs may overlap by thresh, some too many but none too few. Most do not, and
    # to say so takes neither double precision nor a division.
    kind = np.result_type(a, b, np.float32)
    y_min, x_min, y_max, x_max = (column.take(i) for column in a)
    gt_y_min, gt_x_min, gt_y_max, gt_x_max = (column.take(j) for column in b)
    share = (y_max - y_min) * (x_max - x_min)
    height = np.minimum(y_max, gt_y_max) - np.maximum(y_min, gt_y_min)
    width = np.minimum(x_max, gt_x_max) - np.maximum(x_min, gt_x_min)
    inter = np.maximum(height, 0) * np.maximum(width, 0)
    if over_union:
        share = share + (gt_y_max - gt_y_min) * (gt_x_max - gt_x_min) - inter
    share *= kind.type(thresh * (1 - 1e-5))
    return np.flatnonzero(inter >= share - kind.type(1e-30))
