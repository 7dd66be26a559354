"""From the network's boxes and scores to detections."""

from pfdet.boxes.arrays import array_module
from pfdet.boxes.nmw import non_maximum_weighted


def select(bbox, score, score_thresh: float, nmw_thresh: float, max_per_image: int) -> tuple:
    """Detections of one image from the network's boxes and scores.

    Each class of each box is a detection of its own; those from the threshold up are merged by
    class (:func:`~pfdet.boxes.nmw.non_maximum_weighted`) and the best are kept.

    Args:
        bbox (array): :math:`(K, 1, 4)`, or with a box a class :math:`(K, C, 4)`, in [0, 1].
        score (array): :math:`(K, C)`.
        score_thresh (float): Least score.
        nmw_thresh (float): IoU of non-maximum weighted.
        max_per_image (int): How many are kept.

    Returns:
        tuple of arrays: Boxes :math:`(D, 4)`, scores and labels :math:`(D,)`, by descending score;
        labels are int32. On the device of ``score``.
    """
    xp = array_module(score)
    n_class = score.shape[1]
    # On flat arrays, this is several times as fast as with pairs of indices.
    chosen = xp.flatnonzero(score >= score_thresh)
    place = chosen // n_class
    label = (chosen - place * n_class).astype('int32')
    which_box = place if bbox.shape[1] == 1 else chosen
    detected = non_maximum_weighted(
        bbox.reshape(-1, 4).take(which_box, axis=0),
        score.reshape(-1).take(chosen),
        label,
        nmw_thresh,
    )
    return tuple(a[:max_per_image] for a in detected)
