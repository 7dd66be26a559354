"""From the network's boxes and scores to detections."""

import numpy as np

from pfdet.inference.suppression import non_maximum_weighted


def select(bbox: np.ndarray, score: np.ndarray, score_thresh: float, nmw_thresh: float,
           max_per_image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections of one image from the network's boxes and scores.

    Each class of each box is a detection of its own; those above the threshold are merged by
    class and the best are kept.

    Args:
        bbox (array): :math:`(K, 1, 4)`, or with a box a class :math:`(K, C, 4)`, in [0, 1].
        score (array): :math:`(K, C)`.
        score_thresh (float): Least score.
        nmw_thresh (float): IoU of non-maximum weighted.
        max_per_image (int): How many are kept.

    Returns:
        tuple of arrays: Boxes :math:`(D, 4)`, scores and labels :math:`(D,)`, by descending score.
    """
    place, label = np.nonzero(score >= score_thresh)
    bbox, score, label = non_maximum_weighted(
        bbox[place, label if bbox.shape[1] > 1 else 0], score[place, label],
        label.astype(np.int32), nmw_thresh)
    order = np.argsort(-score, kind='stable')[:max_per_image]
    return bbox[order], score[order], label[order]
