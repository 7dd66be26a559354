"""Matching of detections with ground truth boxes, for the metric and the error analysis."""

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
    """Find the ground truth box with the largest overlap for each detection.

    Only detections and boxes with the same key are compared. Overlaps are computed in float64, as
    in the official evaluator.

    Args:
        bbox (float array): Detections :math:`(D, 4)` with positive area.
        key (int array): Key of each detection, such as its image and class, :math:`(D,)`,
            ascending.
        gt_bbox (float array): Ground truth boxes :math:`(G, 4)`, in the same unit.
        gt_key (int array): Key of each box, :math:`(G,)`, in any order.
        thresh (float): Smallest overlap, above 0.
        overlap (callable): :func:`~pfdet.boxes.iou.matched_iou` or
            :func:`~pfdet.boxes.iou.matched_ioa`.

    Returns:
        tuple of arrays: For each detection with an overlap of at least ``thresh``: its index, the
        index of the box, and the overlap. Of boxes with equal overlap, the first is returned.

    Raises:
        ValueError: ``overlap`` is another function.
    """
    if overlap not in (matched_iou, matched_ioa):
        raise ValueError(f'overlap is {overlap!r}; expected matched_iou or matched_ioa')
    order = stable_argsort(gt_key)
    gt_bbox = gt_bbox.take(order, axis=0)
    unique, gt_start, n_gt = np.unique(gt_key[order], return_index=True, return_counts=True)
    start = np.searchsorted(key, unique)
    n_detection = np.searchsorted(key, unique, side='right') - start
    detection_index = [np.zeros(0, np.int64)]
    box_index = [np.zeros(0, np.int64)]
    best_overlap = [np.zeros(0)]
    if not n_detection.any():
        return detection_index[0], box_index[0], best_overlap[0]
    # The detections with a ground truth box of the same key, and the range of boxes of each.
    slot, position = rows_of_pairs(n_detection)
    candidate, gt_start, n_gt = start[slot] + position, gt_start[slot], n_gt[slot]
    columns = np.ascontiguousarray(bbox.take(candidate, axis=0).T)
    gt_columns = np.ascontiguousarray(gt_bbox.T)
    for block in blocks(n_gt):
        row, position = rows_of_pairs(n_gt[block])
        row += block.start
        gt = gt_start.take(row) + position
        near = _may_overlap(columns, gt_columns, row, gt, thresh, overlap is matched_iou)
        row, gt = row.take(near), gt.take(near)
        value = overlap(bbox[candidate[row]].astype(np.float64), gt_bbox[gt].astype(np.float64))
        matched = np.flatnonzero(value >= thresh)
        if len(matched) == 0:
            continue
        row, gt, value = row[matched], gt[matched], value[matched]
        first = is_first(row)
        highest = np.maximum.reduceat(value, np.flatnonzero(first))
        at_highest = np.flatnonzero(value == highest[np.cumsum(first) - 1])
        at_highest = at_highest[is_first(row[at_highest])]
        detection_index.append(candidate[row[at_highest]])
        box_index.append(order[gt[at_highest]])
        best_overlap.append(highest)
    return (
        np.concatenate(detection_index),
        np.concatenate(box_index),
        np.concatenate(best_overlap),
    )


def _may_overlap(
    a: np.ndarray, b: np.ndarray, i: np.ndarray, j: np.ndarray, thresh: float, over_union: bool
) -> np.ndarray:
    # Indices of the pairs that may reach thresh: a superset of those that do. Most pairs do not,
    # and are ruled out here without double precision and without a division.
    dtype = np.result_type(a, b, np.float32)
    y_min, x_min, y_max, x_max = (column.take(i) for column in a)
    gt_y_min, gt_x_min, gt_y_max, gt_x_max = (column.take(j) for column in b)
    bound = (y_max - y_min) * (x_max - x_min)
    height = np.minimum(y_max, gt_y_max) - np.maximum(y_min, gt_y_min)
    width = np.minimum(x_max, gt_x_max) - np.maximum(x_min, gt_x_min)
    inter = np.maximum(height, 0) * np.maximum(width, 0)
    if over_union:
        bound = bound + (gt_y_max - gt_y_min) * (gt_x_max - gt_x_min) - inter
    bound *= dtype.type(thresh * (1 - 1e-5))
    return np.flatnonzero(inter >= bound - dtype.type(1e-30))
