"""Average precision (AP) of the Open Images Challenge 2018.

The protocol is that of ``OpenImagesDetectionChallengeEvaluator`` in the TensorFlow Object Detection
API, including the order of ties. The functions work on arrays. Files are read by
:mod:`pfdet.evaluation.detections` and :mod:`pfdet.evaluation.ground_truth`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pfdet.boxes.iou import matched_ioa
from pfdet.boxes.pairs import score_keys, stable_argsort
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import GroundTruth
from pfdet.evaluation.matching import best_matches
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy


def average_precision(
    detections: Detections,
    ground_truth: GroundTruth,
    n_class: int,
    iou_thresh: float = 0.5,
    group_of_weight: float = 1.0,
) -> dict:
    """Compute the AP of each class, and the mean AP.

    For each class and image:

    1. *Unverified classes.* Detections are ignored if the image has neither a box of the class nor
       an image-level label of it, positive or negative. Detections without area and detections in
       images that are not in the ground truth are ignored, too.
    2. *Normal boxes.* A detection is matched with the normal (not group-of) box of highest IoU,
       even if that box is matched already. Of the detections that match a box with an IoU of at
       least ``iou_thresh``, the highest-scoring one is a true positive. The others are false
       positives. They are not matched with another box.
    3. *Group-of boxes.* Each detection that is not a true positive is matched with the group-of box
       of highest IoA (intersection over the area of the detection). If the IoA is at least
       ``iou_thresh``, the detection is ignored. Instead, each group-of box with such detections
       counts as one true positive of weight ``group_of_weight``, with the highest of their scores,
       if that is above 0.

    The precision-recall curve of a class is computed over all images by descending score. The
    denominator of recall is the number of normal boxes plus ``group_of_weight`` times the number of
    group-of boxes. AP is the area under the curve after precision is made non-increasing (all
    points, as in PASCAL VOC since 2010).

    *Ties* are resolved as in the official code, which uses a stable sort:

    - Equal IoU or IoA: the first box in the ground truth is matched.
    - Equal scores in an image, in step 2: the last detection is the true positive.
    - Equal scores over all images: images go by descending id. Within an image, group-of boxes go
      first in reverse order, then detections in order.

    Args:
        detections (Detections): The detections. Their images may be in any order, and some may be
            missing.
        ground_truth (GroundTruth): Annotations, expanded over the hierarchy.
        n_class (int): Number of classes :math:`C`.
        iou_thresh (float): Smallest overlap of a match, in [0, 1].
        group_of_weight (float): 1 in the challenge. With 0, group-of boxes do not count, and
            detections in them are ignored (metric of Open Images V2).

    Returns:
        dict: With the keys

        - ``'map'`` (*float*): Mean of ``'ap'`` over classes with ground truth; NaN if none has.
        - ``'ap'`` (*float64*, :math:`(C,)`): In [0, 1]; NaN where a class has no ground truth.
        - ``'precision'``, ``'recall'``, ``'score'`` (*lists of C arrays*): The curve of each class
          by descending score, before precision is made non-increasing; :obj:`None` where a class
          has no ground truth.
        - ``'n_ground_truth'`` (*float64*, :math:`(C,)`): Number of boxes, with group-of boxes
          weighted.
        - ``'n_detection'`` (*int64*, :math:`(C,)`): Number of points of the curve: detections that
          are not ignored, and detected group-of boxes.
        - ``'n_true_positive'`` (*int64*, :math:`(C,)`): Number of true positives among them.
        - ``'n_ignored'`` (*dict*): Number of ignored detections by reason, ``'unknown image'``,
          ``'empty box'``, ``'unverified class'`` or ``'group of'``.

    Raises:
        ValueError: ``ground_truth.verified`` has the wrong shape.
    """
    rank, n_image = _rank_by_id(ground_truth.image_ids)
    image, used, n_ignored = _select_detections(detections, ground_truth, n_class)
    # Sort by class, then by descending image id, then by index: the order of equal scores.
    key = _keys(detections.label[used], rank[image], n_image)
    order = stable_argsort(key)
    used, key = used[order], key[order]
    score = detections.score[used]
    bbox = detections.bbox.take(used, axis=0)

    gt_key = _keys(ground_truth.label, rank[ground_truth.image], n_image)
    normal = np.flatnonzero(~ground_truth.group_of)
    group_of = np.flatnonzero(ground_truth.group_of)

    hit, box, _ = best_matches(bbox, key, ground_truth.bbox[normal], gt_key[normal], iou_thresh)
    # The highest-scoring detection of each box; of equal scores, the last.
    best = np.full(len(normal), np.iinfo(np.int64).min)
    best_key = (score_keys(score[hit]) << 32) + hit
    np.maximum.at(best, box, best_key)
    true_positive = np.zeros(len(used), bool)
    true_positive[hit[best[box] == best_key]] = True

    absorbed, group, _ = best_matches(
        bbox, key, ground_truth.bbox[group_of], gt_key[group_of], iou_thresh, matched_ioa
    )
    rest = ~true_positive[absorbed]
    absorbed, group = absorbed[rest], group[rest]
    group_score = np.zeros(len(group_of), score.dtype)
    np.maximum.at(group_score, group, score[absorbed])
    detected = np.flatnonzero((group_score > 0) & (group_of_weight > 0))[::-1]

    kept = np.ones(len(used), bool)
    kept[absorbed] = False
    kept = np.flatnonzero(kept)
    n_ignored['group of'] = len(used) - len(kept)

    # Within an image, group-of boxes go first in reverse order, then detections.
    key = np.concatenate((gt_key[group_of[detected]], key[kept]))
    score = np.concatenate((group_score[detected], score[kept]))
    weight = np.concatenate(
        (np.full(len(detected), group_of_weight, float), true_positive[kept].astype(float))
    )
    order = stable_argsort(key)

    n_ground_truth = np.bincount(
        ground_truth.label[normal], minlength=n_class
    ) + group_of_weight * np.bincount(ground_truth.label[group_of], minlength=n_class)
    ends = np.searchsorted(key[order], np.arange(n_class + 1) * n_image)
    result = _curves(ends, score[order], weight[order], n_ground_truth)
    result['n_ignored'] = n_ignored
    return result


def score_dict(
    result: dict, classes: Classes, hierarchy: Hierarchy | None = None
) -> dict[str, Any]:
    """Convert a result of :func:`average_precision` to the content of ``score.json``.

    Args:
        result (dict): Result of :func:`average_precision`.
        classes (Classes): The :math:`C` classes of the result.
        hierarchy (Hierarchy): Class hierarchy, for ``'parents'``.

    Returns:
        dict: Serializable as JSON, with the keys

        - ``'mAP'``: In [0, 1]; :obj:`None` if no class has ground truth.
        - ``'AP'``: From MID to AP in [0, 1]; :obj:`None` where a class has no ground truth.
        - ``'n_class'``: Number of classes with ground truth.
        - ``'name'``: From MID to name, for classes with ground truth.
        - ``'n_ground_truth'``, ``'n_detection'``, ``'n_true_positive'``: From MID to the values of
          :func:`average_precision`, for classes with ground truth.
        - ``'n_ignored'``: From reason to number of ignored detections.
        - ``'precision'``: From MID to precision at 101 recalls from 0 to 1, made non-increasing.
        - ``'parents'``: MIDs of the classes that have children.
    """
    aps = [None if np.isnan(ap) else float(ap) for ap in result['ap']]
    scored = np.flatnonzero(~np.isnan(result['ap']))

    def by_mid(values: Sequence) -> dict[str, Any]:
        return {classes.mids[c]: values[c] for c in scored.tolist()}

    return {
        'mAP': float(result['map']) if len(scored) else None,
        'AP': dict(zip(classes.mids, aps)),
        'n_class': len(scored),
        'name': by_mid(classes.names),
        'n_ground_truth': by_mid(result['n_ground_truth'].tolist()),
        'n_detection': by_mid(result['n_detection'].tolist()),
        'n_true_positive': by_mid(result['n_true_positive'].tolist()),
        'n_ignored': result['n_ignored'],
        'precision': {
            classes.mids[c]: _sampled_precision(result['precision'][c], result['recall'][c])
            for c in scored
        },
        'parents': []
        if hierarchy is None
        else [classes.mids[c] for c in np.flatnonzero(~hierarchy.is_leaf)],
    }


def _sampled_precision(precision: np.ndarray, recall: np.ndarray) -> list[float]:
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    # The tolerance keeps rounding from moving a recall of 1 past the last point.
    point = np.searchsorted(recall, np.linspace(0, 1, 101) - 1e-9)
    return np.round(envelope[point], 4).tolist()


def _rank_by_id(image_ids: Sequence[str]) -> tuple[np.ndarray, int]:
    # The official evaluator processes images by ascending id, which decides ties.
    rank = np.empty(len(image_ids), np.int64)
    rank[np.argsort(np.asarray(image_ids, dtype=str), kind='stable')] = np.arange(len(image_ids))
    return rank, len(image_ids)


def _select_detections(
    detections: Detections, ground_truth: GroundTruth, n_class: int
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    # For each detection to evaluate, the image (an index into ground_truth) and its own index.
    index = {image_id: i for i, image_id in enumerate(ground_truth.image_ids)}
    to_ground_truth = np.array(
        [index.get(image_id, -1) for image_id in detections.image_ids], np.int64
    )
    evaluable = ground_truth.verified.copy()
    if evaluable.shape != (len(index), n_class):
        raise ValueError(
            f'ground_truth.verified has shape {evaluable.shape}, expected '
            f'{(len(index), n_class)}, the numbers of unique images and of classes'
        )
    evaluable[ground_truth.image, ground_truth.label] = True

    n_ignored = {}
    image = to_ground_truth[detections.image]
    used = np.flatnonzero(image >= 0)
    n_ignored['unknown image'] = len(image) - len(used)
    bbox = detections.bbox
    has_area = ((bbox[:, 0] < bbox[:, 2]) & (bbox[:, 1] < bbox[:, 3]))[used]
    n_ignored['empty box'] = len(used) - int(has_area.sum())
    used = used[has_area]
    is_evaluable = evaluable[image[used], detections.label[used]]
    n_ignored['unverified class'] = len(used) - int(is_evaluable.sum())
    used = used[is_evaluable]
    return image[used], used, n_ignored


def _keys(label: np.ndarray, image_rank: np.ndarray, n_image: int) -> np.ndarray:
    # One integer per class and image, ascending by class, then by descending image id.
    return label.astype(np.int64) * n_image + (n_image - 1 - image_rank)


def _curves(
    ends: np.ndarray, score: np.ndarray, weight: np.ndarray, n_ground_truth: np.ndarray
) -> dict:
    # Curves and AP of all classes. Entries are sorted by class, and within a class in the order of
    # equal scores.
    n_class = len(n_ground_truth)
    ap = np.full(n_class, np.nan)
    precisions: list[np.ndarray | None] = [None] * n_class
    recalls, scores = precisions.copy(), precisions.copy()
    for c in np.flatnonzero(n_ground_truth > 0).tolist():
        entries = slice(ends[c], ends[c + 1])
        # A key and an index packed into one integer: a stable sort by descending score.
        by_score = (~score_keys(score[entries]) << 32) + np.arange(ends[c + 1] - ends[c])
        by_score.sort()
        by_score &= 0xFFFFFFFF
        class_weight, scores[c] = weight[entries].take(by_score), score[entries].take(by_score)
        true_positives = np.cumsum(class_weight)
        false_positives = np.cumsum(class_weight <= 0)
        precision = true_positives / (true_positives + false_positives)
        recall = true_positives / n_ground_truth[c]
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        ap[c] = np.sum(np.diff(recall, prepend=0) * envelope)
        precisions[c], recalls[c] = precision, recall
    n_detection = np.diff(ends)
    n_true_positive = np.diff(np.append(0, np.cumsum(weight > 0))[ends])
    has_ap = ~np.isnan(ap)
    return {
        'map': float(ap[has_ap].mean()) if has_ap.any() else float('nan'),
        'ap': ap,
        'precision': precisions,
        'recall': recalls,
        'score': scores,
        'n_ground_truth': n_ground_truth,
        'n_detection': n_detection,
        'n_true_positive': n_true_positive,
    }
