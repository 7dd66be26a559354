"""Error analysis by class: false positives by kind of error, and missed boxes.

Detections are evaluated, ignored and matched with boxes as in
:func:`pfdet.evaluation.average_precision.average_precision`. The functions work on arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pfdet.boxes.iou import area, matched_ioa, matched_iou
from pfdet.boxes.pairs import is_first
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import GroundTruth
from pfdet.evaluation.matching import best_matches
from pfdet.openimages.hierarchy import Hierarchy

#: Kinds of false positives in order of precedence; see :func:`class_errors`.
REASONS = ('duplicate', 'confusion', 'localisation', 'background')
DUPLICATE, CONFUSION, LOCALISATION, BACKGROUND = range(4)


@dataclass(frozen=True, eq=False)
class ClassErrors:
    """True positives, false positives and missed boxes of one class.

    Attributes:
        label (int): The class.
        n_ground_truth (int): Number of its boxes, including group-of boxes.
        true_positive (int64, :math:`(T,)`): Detections matched with a normal box, by descending
            score.
        false_positive (int64, :math:`(F,)`): False positives, by descending score.
        reason (int8, :math:`(F,)`): Kind of each false positive, an index into :data:`REASONS`.
        overlap (float64, :math:`(F,)`): The overlap that decided on the reason: with the box
            detected twice, the box of the other class, or the closest box of the class.
        box (int64, :math:`(F,)`): Index of that box in the ground truth, -1 if there is none.
        missed (int64, :math:`(M,)`): Boxes without a matched detection, largest first. A group-of
            box is missed if no detection inside it has a score above 0.
    """

    label: int
    n_ground_truth: int
    true_positive: np.ndarray
    false_positive: np.ndarray
    reason: np.ndarray
    overlap: np.ndarray
    box: np.ndarray
    missed: np.ndarray


def class_errors(
    detections: Detections,
    ground_truth: GroundTruth,
    label: int,
    hierarchy: Hierarchy,
    iou_thresh: float = 0.5,
    near: float = 0.1,
) -> ClassErrors:
    """Classify the detections of one class and find its missed boxes.

    Detections are ignored as in the metric: in images that are unknown or not verified for the
    class, without area, or inside a group-of box. The reason of a false positive is the first that
    applies:

    - ``'duplicate'``: its IoU with a box of the class is at least ``iou_thresh``, but another
      detection is matched with that box.
    - ``'confusion'``: its IoU with a box of another class is at least ``iou_thresh``, and that
      class is neither an ancestor nor a descendant. Of boxes with equal IoU, the one of the most
      specific class is reported.
    - ``'localisation'``: its IoU with a box of the class, or its IoA with a group-of box of the
      class, is at least ``near``.
    - ``'background'``: none of the above.

    Args:
        detections (Detections): Detections of all classes, or of this class only.
        ground_truth (GroundTruth): Ground truth of all classes, expanded over the hierarchy.
        label (int): The class.
        hierarchy (Hierarchy): Class hierarchy.
        iou_thresh (float): Smallest overlap of a match, in [0, 1].
        near (float): Smallest overlap of a localisation error, in [0, 1].

    Returns:
        ClassErrors: Indices refer to the arrays of ``detections`` and ``ground_truth``.
    """
    used, image = _evaluated_detections(detections, ground_truth, label)
    bbox, score = detections.bbox[used], detections.score[used]
    boxes = np.flatnonzero(ground_truth.label == label)
    normal = boxes[~ground_truth.group_of[boxes]]
    group_of = boxes[ground_truth.group_of[boxes]]

    box, overlap = _best(bbox, image, ground_truth, normal)
    hit = np.flatnonzero((box >= 0) & (overlap >= iou_thresh))
    # The highest-scoring detection of each box is the match; of equal scores, the last.
    hit = hit[np.lexsort((-hit, -score[hit], box[hit]))]
    true = np.zeros(len(used), bool)
    true[hit[is_first(box[hit])]] = True

    group, cover = _best(bbox, image, ground_truth, group_of, matched_ioa)
    absorbed = ~true & (group >= 0) & (cover >= iou_thresh)
    false = np.flatnonzero(~true & ~absorbed)
    false = false[np.argsort(-score[false], kind='stable')]

    unrelated = ~hierarchy.closure[label] & ~hierarchy.descendants[label]
    others = np.flatnonzero(unrelated[ground_truth.label])
    # Of equal overlaps the first is reported, so the most specific classes go first.
    others = others[np.lexsort((others, -hierarchy.depth[ground_truth.label[others]]))]
    other, other_overlap = _best(bbox[false], image[false], ground_truth, others)
    is_duplicate = overlap[false] >= iou_thresh
    is_confusion = ~is_duplicate & (other_overlap >= iou_thresh)
    in_group = ~is_duplicate & ~is_confusion & (cover[false] > overlap[false])
    reason_box = np.where(is_confusion, other, np.where(in_group, group[false], box[false]))
    reason_overlap = np.where(
        is_confusion, other_overlap, np.where(in_group, cover[false], overlap[false])
    )
    reason = np.select(
        [is_duplicate, is_confusion, reason_overlap >= near],
        [DUPLICATE, CONFUSION, LOCALISATION],
        BACKGROUND,
    )

    found = np.concatenate((box[true], group[absorbed & (score > 0)]))
    missed = np.setdiff1d(boxes, found)
    missed = missed[np.argsort(-area(ground_truth.bbox[missed].astype(np.float64)), kind='stable')]
    true_positive = np.flatnonzero(true)
    true_positive = true_positive[np.argsort(-score[true_positive], kind='stable')]
    return ClassErrors(
        label,
        len(boxes),
        used[true_positive],
        used[false],
        reason.astype(np.int8),
        reason_overlap,
        np.where(reason_overlap > 0, reason_box, -1),
        missed,
    )


def _evaluated_detections(
    detections: Detections, ground_truth: GroundTruth, label: int
) -> tuple[np.ndarray, np.ndarray]:
    # Indices of the detections of the class that are evaluated, and of their images in the ground
    # truth.
    position = {image_id: i for i, image_id in enumerate(ground_truth.image_ids)}
    to_position = np.array([position.get(i, -1) for i in detections.image_ids], np.int64)
    verified = ground_truth.verified[:, label].copy()
    verified[ground_truth.image[ground_truth.label == label]] = True
    used = np.flatnonzero(detections.label == label)
    image = to_position[detections.image[used]]
    bbox = detections.bbox[used]
    evaluated = (image >= 0) & (bbox[:, 0] < bbox[:, 2]) & (bbox[:, 1] < bbox[:, 3])
    evaluated[evaluated] = verified[image[evaluated]]
    return used[evaluated], image[evaluated]


def _best(
    bbox: np.ndarray,
    image: np.ndarray,
    ground_truth: GroundTruth,
    chosen: np.ndarray,
    overlap: Callable = matched_iou,
) -> tuple[np.ndarray, np.ndarray]:
    # For each of bbox, the index of the chosen box in its image with the largest overlap (the first
    # if equal), and that overlap; -1 and 0 if none overlaps.
    best, best_overlap = np.full(len(bbox), -1, np.int64), np.zeros(len(bbox))
    by_image = np.argsort(image, kind='stable')
    matched, box, value = best_matches(
        bbox[by_image],
        image[by_image],
        ground_truth.bbox[chosen],
        ground_truth.image[chosen],
        float(np.finfo(np.float64).tiny),
        overlap,
    )
    best[by_image[matched]], best_overlap[by_image[matched]] = chosen[box], value
    return best, best_overlap
