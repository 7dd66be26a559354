"""Post-processing: detections from the boxes and scores of the network."""

from pfdet.boxes.arrays import Array, array_module
from pfdet.boxes.nmw import non_maximum_weighted


def select(
    bbox: Array,
    score: Array,
    score_thresh: float,
    suppression_iou: float,
    max_per_image: int | None,
) -> tuple[Array, Array, Array]:
    """Select the detections of one image.

    Each class of each box whose score reaches the threshold is a candidate. Candidates are merged
    within each class by :func:`~pfdet.boxes.nmw.non_maximum_weighted`, and the highest-scoring ones
    are kept.

    Args:
        bbox (array): Boxes in [0, 1], class-agnostic :math:`(K, 1, 4)` or class-specific
            :math:`(K, C, 4)`.
        score (array): Scores :math:`(K, C)`.
        score_thresh (float): Smallest score.
        suppression_iou (float): IoU threshold of non-maximum weighted.
        max_per_image (int): Largest number of detections; :obj:`None` for no limit.

    Returns:
        tuple of arrays: Boxes :math:`(D, 4)`, scores :math:`(D,)` and int32 labels :math:`(D,)`, by
        descending score, on the device of ``score``.
    """
    xp = array_module(score)
    n_class = score.shape[1]
    # Indexing flat arrays is several times faster than using pairs of indices.
    chosen = xp.flatnonzero(score >= score_thresh)
    row = chosen // n_class
    label = (chosen - row * n_class).astype('int32')
    box = row if bbox.shape[1] == 1 else chosen
    merged_bbox, merged_score, merged_label = non_maximum_weighted(
        bbox.reshape(-1, 4).take(box, axis=0),
        score.reshape(-1).take(chosen),
        label,
        suppression_iou,
    )
    kept = slice(max_per_image)
    return merged_bbox[kept], merged_score[kept], merged_label[kept]
