"""Non-maximum weighted for all classes at once, PFDet's way of merging boxes at test time."""

import numpy as np

from pfdet.boxes.iou import matched_iou
from pfdet.boxes.nms import by_rank, greedy_leaders, overlapping_pairs, score_ranks
from pfdet.boxes.pairs import array_module


def non_maximum_weighted(
    bbox, score, label, iou_thresh: float = 0.5, join: str = 'highest'
) -> tuple:
    """Non-maximum weighted within each class (PFDet, section 2.5; Zhou et al., CAD, 2017).

    Leaders are those of :func:`~pfdet.boxes.nms.non_maximum_suppression`. The boxes that a leader
    suppresses join it instead of being dropped. Each joins one leader only. The leader's box
    becomes the average of its own and theirs, weighted by score times IoU with the leader. The
    score stays the leader's.

    The package ``ensemble-boxes`` differs in what it does with a box that overlaps several
    leaders (``join='nearest'`` is its way), takes the later box first when scores are equal,
    and drops boxes without area.

    To treat many images in one call, give ``image * n_class + label`` as the label.

    Args:
        bbox (array): Shape :math:`(N, 4)`, ``(y_min, x_min, y_max, x_max)``, any unit.
        score (array): Shape :math:`(N,)`, not negative.
        label (array): Shape :math:`(N,)`, int. Boxes of different labels never meet.
        iou_thresh (float): In [0, 1]. Boxes join with an IoU above it.
        join (str): Which leader a box joins of those it overlaps: the ``'highest'`` scored,
            which is what consuming boxes leader by leader comes to, or the ``'nearest'``,
            with the highest IoU.

    Returns:
        tuple of arrays: ``bbox``, ``score`` and ``label`` of the leaders, by descending score, of
        the dtypes given.
    """
    if join not in ('highest', 'nearest'):
        raise ValueError(f"join is {join!r}, expected 'highest' or 'nearest'")
    xp = array_module(bbox)
    rank = score_ranks(score)
    source, target = overlapping_pairs(bbox, rank, label, iou_thresh)
    leads = greedy_leaders(source, target, len(rank))
    leader = by_rank(rank, leads)
    result = bbox.take(leader, axis=0), score.take(leader), label.take(leader)
    if len(source) == 0:
        return result

    pair = xp.flatnonzero(leads.take(source))
    source, target = _chosen_pairs(bbox, rank, source.take(pair), target.take(pair), join)
    source_bbox, target_bbox = (bbox.take(i, axis=0).astype(np.float64) for i in (source, target))
    weight = score.take(target).astype(np.float64) * matched_iou(source_bbox, target_bbox)
    place = xp.empty(len(rank), np.int64)
    place[leader] = xp.arange(len(leader))
    source = place.take(source)
    total = result[1] + xp.bincount(source, weight, len(leader))
    # Summing differences from the leader keeps a leader that nobody joined exactly as it was.
    change = (target_bbox - source_bbox) * weight[:, None]
    shift = xp.stack([xp.bincount(source, change[:, k], len(leader)) for k in range(4)], axis=1)
    shift /= xp.where(total > 0, total, 1)[:, None]
    return (result[0] + shift).astype(bbox.dtype), *result[1:]


def _chosen_pairs(bbox, rank, source, target, join: str) -> tuple:
    # Of the pairs of leaders and the boxes that may join them, the one of each such box, by
    # the box's index: sums come out the same whatever else is in the call.
    xp = array_module(rank)
    source_rank = rank.take(source)
    if join == 'nearest':
        iou = matched_iou(*(bbox.take(i, axis=0).astype(np.float64) for i in (source, target)))
    # Any of its pairs to begin with, and then better ones as long as there are.
    best = xp.full(len(rank), -1, np.int64)
    pair = xp.arange(len(source))
    best[target] = pair
    while len(pair):
        rival = best.take(target.take(pair))
        better = source_rank.take(pair) < source_rank.take(rival)
        if join == 'nearest':
            gain = iou.take(pair) - iou.take(rival)
            better = (gain > 0) | ((gain == 0) & better)
        pair = pair.take(xp.flatnonzero(better))
        best[target.take(pair)] = pair
    target = xp.flatnonzero(best >= 0)
    return source.take(best.take(target)), target
