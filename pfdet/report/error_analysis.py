"""What the detections of a class got wrong: false positives with their reasons, and misses.

Pure functions of arrays. What counts, what is ignored and which detection has the right to which
box is as in :func:`pfdet.evaluation.average_precision.average_precision`.
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

#: Why a detection is a false positive, in the order of precedence; see :func:`class_errors`.
REASONS = ('duplicate', 'confused', 'localisation', 'nothing there')
DUPLICATE, CONFUSED, LOCALISATION, NOTHING = range(4)


@dataclass(frozen=True, eq=False)
class ClassErrors:
    """The outcome of one class.

    Attributes:
        label (int): The class.
        n_ground_truth (int): Its boxes, group-of boxes among them.
        true_positive (int64, :math:`(T,)`): Detections that found a normal box, by descending
            score.
        false_positive (int64, :math:`(F,)`): Detections that are wrong, by descending score.
        reason (int8, :math:`(F,)`): Why, an index into :data:`REASONS`.
        overlap (float64, :math:`(F,)`): The overlap that decided on the reason: with the box found
            twice, with the box of the other class, or with the nearest box of the class.
        box (int64, :math:`(F,)`): That box, an index into the ground truth; -1 where there is none.
        missed (int64, :math:`(M,)`): Boxes that no detection found, the largest first. A group-of
            box is found by a detection of a score above 0 within it.
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
    """Sort out the detections and the boxes of one class.

    A detection counts where the image is known and verified for the class, unless it has no area
    or belongs to a group-of box. If it is not a true positive, the reason is the first of

    - ``'duplicate'``: its IoU with a box of the class, which another detection has the right to,
      is at least ``iou_thresh``;
    - ``'confused'``: its IoU with a box of another class is at least ``iou_thresh``, and that class
      is neither an ancestor nor a descendant. Of boxes of equal IoU the one of the most specific
      class is named;
    - ``'localisation'``: its IoU with a box of the class, or the part of it that a group-of box of
      the class covers, is at least ``near``;
    - ``'nothing there'``: anything else.

    Args:
        detections (Detections): Of all classes, or of this one alone.
        ground_truth (GroundTruth): Of all classes, expanded over the hierarchy.
        label (int): The class.
        hierarchy (Hierarchy): Over the classes.
        iou_thresh (float): Least overlap of a match, in [0, 1].
        near (float): Least overlap of a detection that is of an object but badly placed.

    Returns:
        ClassErrors: Indices are into the arrays of ``detections`` and ``ground_truth``.
    """
    used, image = _evaluated_detections(detections, ground_truth, label)
    bbox, score = detections.bbox[used], detections.score[used]
    boxes = np.flatnonzero(ground_truth.label == label)
    normal = boxes[~ground_truth.group_of[boxes]]
    group_of = boxes[ground_truth.group_of[boxes]]

    box, overlap = _best(bbox, image, ground_truth, normal)
    hit = np.flatnonzero((box >= 0) & (overlap >= iou_thresh))
    # The first of each box, by descending score, the later detection first if equal.
    hit = hit[np.lexsort((-hit, -score[hit], box[hit]))]
    true = np.zeros(len(used), bool)
    true[hit[is_first(box[hit])]] = True

    group, cover = _best(bbox, image, ground_truth, group_of, matched_ioa)
    absorbed = ~true & (group >= 0) & (cover >= iou_thresh)
    false = np.flatnonzero(~true & ~absorbed)
    false = false[np.argsort(-score[false], kind='stable')]

    unrelated = ~hierarchy.closure[label] & ~hierarchy.descendants[label]
    others = np.flatnonzero(unrelated[ground_truth.label])
    # The first of equals is named: the most specific class to the front.
    others = others[np.lexsort((others, -hierarchy.depth[ground_truth.label[others]]))]
    other, shared = _best(bbox[false], image[false], ground_truth, others)
    is_duplicate = overlap[false] >= iou_thresh
    is_confused = ~is_duplicate & (shared >= iou_thresh)
    in_group = ~is_duplicate & ~is_confused & (cover[false] > overlap[false])
    at = np.where(is_confused, other, np.where(in_group, group[false], box[false]))
    by = np.where(is_confused, shared, np.where(in_group, cover[false], overlap[false]))
    reason = np.select(
        [is_duplicate, is_confused, by >= near], [DUPLICATE, CONFUSED, LOCALISATION], NOTHING
    )

    found = np.concatenate((box[true], group[absorbed & (score > 0)]))
    missed = np.setdiff1d(boxes, found)
    missed = missed[np.argsort(-area(ground_truth.bbox[missed].astype(np.float64)), kind='stable')]
    right = np.flatnonzero(true)
    right = right[np.argsort(-score[right], kind='stable')]
    return ClassErrors(
        label,
        len(boxes),
        used[right],
        used[false],
        reason.astype(np.int8),
        by,
        np.where(by > 0, at, -1),
        missed,
    )


def _evaluated_detections(
    detections: Detections, ground_truth: GroundTruth, label: int
) -> tuple[np.ndarray, np.ndarray]:
    # Detections of the class that are judged, and their images as the ground truth numbers them.
    place = {image_id: i for i, image_id in enumerate(ground_truth.image_ids)}
    to_place = np.array([place.get(i, -1) for i in detections.image_ids], np.int64)
    verified = ground_truth.verified[:, label].copy()
    verified[ground_truth.image[ground_truth.label == label]] = True
    used = np.flatnonzero(detections.label == label)
    image = to_place[detections.image[used]]
    bbox = detections.bbox[used]
    counts = (image >= 0) & (bbox[:, 0] < bbox[:, 2]) & (bbox[:, 1] < bbox[:, 3])
    counts[counts] = verified[image[counts]]
    return used[counts], image[counts]


def _best(
    bbox: np.ndarray,
    image: np.ndarray,
    ground_truth: GroundTruth,
    chosen: np.ndarray,
    overlap: Callable = matched_iou,
) -> tuple[np.ndarray, np.ndarray]:
    # For each of bbox the one of the chosen boxes in its image with the greatest overlap, the
    # first of equals, and the overlap; -1 and 0 where none overlaps.
    best, greatest = np.full(len(bbox), -1, np.int64), np.zeros(len(bbox))
    by_image = np.argsort(image, kind='stable')
    some, box, value = best_matches(
        bbox[by_image],
        image[by_image],
        ground_truth.bbox[chosen],
        ground_truth.image[chosen],
        np.finfo(np.float64).tiny,
        overlap,
    )
    best[by_image[some]], greatest[by_image[some]] = chosen[box], value
    return best, greatest
