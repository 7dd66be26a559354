"""Non-maximum weighted (NMW) for all classes at once: PFDet merges boxes with it at test time."""

import numpy as np

from pfdet.boxes.arrays import Array, array_module
from pfdet.boxes.iou import matched_iou
from pfdet.boxes.nms import greedy_keep, indices_by_rank, overlapping_pairs, score_ranks


def non_maximum_weighted(
    bbox: Array, score: Array, label: Array, iou_thresh: float = 0.5, join: str = 'highest'
) -> tuple[Array, Array, Array]:
    """Non-maximum weighted within each class (PFDet, section 2.5; Zhou et al., CAD, 2017).

    The same boxes are kept as by :func:`~pfdet.boxes.nms.non_maximum_suppression`. They are called
    leaders. A suppressed box is merged into one leader instead of being dropped. The leader's box
    becomes the average of its own and the merged boxes, weighted by score times IoU with the
    leader. The leader's score does not change.

    The package ``ensemble-boxes`` differs in three ways: it merges a box that overlaps several
    leaders as ``join='nearest'`` does, it takes the later box first when scores are equal, and it
    drops boxes without area.

    To process several images in one call, pass ``image * n_class + label`` as the label.

    Args:
        bbox (array): Boxes :math:`(N, 4)`, ``(y_min, x_min, y_max, x_max)``, any unit.
        score (array): Scores :math:`(N,)`, not negative.
        label (array): Labels :math:`(N,)`, int. Boxes of different labels do not interact.
        iou_thresh (float): IoU above which a box is merged, in [0, 1].
        join (str): The leader that a box is merged into if it overlaps several: ``'highest'`` for
            the one with the highest score, as in the greedy algorithm, or ``'nearest'`` for the one
            with the highest IoU.

    Returns:
        tuple of arrays: ``bbox``, ``score`` and ``label`` of the leaders, by descending score, with
        the dtypes of the arguments.

    Raises:
        ValueError: ``join`` is unknown.
    """
    if join not in ('highest', 'nearest'):
        raise ValueError(f"join is {join!r}, expected 'highest' or 'nearest'")
    xp = array_module(bbox)
    rank = score_ranks(score)
    source, target = overlapping_pairs(bbox, rank, label, iou_thresh)
    leads = greedy_keep(source, target, len(rank))
    leader = indices_by_rank(rank, leads)
    result = bbox.take(leader, axis=0), score.take(leader), label.take(leader)
    if len(source) == 0:
        return result

    pair = xp.flatnonzero(leads.take(source))
    source, target = _assign_leaders(bbox, rank, source.take(pair), target.take(pair), join)
    source_bbox, target_bbox = (bbox.take(i, axis=0).astype(np.float64) for i in (source, target))
    weight = score.take(target).astype(np.float64) * matched_iou(source_bbox, target_bbox)
    position = xp.empty(len(rank), np.int64)
    position[leader] = xp.arange(len(leader))
    source = position.take(source)
    total = result[1] + xp.bincount(source, weight, len(leader))
    # Differences from the leader are averaged, so a leader without merged boxes stays bit-exact.
    change = (target_bbox - source_bbox) * weight[:, None]
    shift = xp.stack([xp.bincount(source, change[:, k], len(leader)) for k in range(4)], axis=1)
    shift /= xp.where(total > 0, total, 1)[:, None]
    return (result[0] + shift).astype(bbox.dtype), *result[1:]


def _assign_leaders(
    bbox: Array, rank: Array, source: Array, target: Array, join: str
) -> tuple[Array, Array]:
    # Selects one pair of leader and suppressed box for each suppressed box. Pairs are returned in
    # order of the suppressed box, so that sums do not depend on the other images of the call.
    xp = array_module(rank)
    source_rank = rank.take(source)
    if join == 'nearest':
        iou = matched_iou(*(bbox.take(i, axis=0).astype(np.float64) for i in (source, target)))
    # Start from an arbitrary pair of each box and replace it by better ones until none is left.
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
