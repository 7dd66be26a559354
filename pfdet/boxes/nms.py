"""Non-maximum suppression for all classes at once.

No loop runs over classes or boxes: candidate pairs come from one sort, and which boxes lead
is found in rounds that decide every class together, as many as the longest chain of boxes
of which each suppresses the next (a handful in practice).

Arrays may be NumPy's or CuPy's; results are of the same kind. On a GPU the host waits where it
must know how many there are: candidate pairs, pairs that overlap, and those of each round.
"""

import numpy as np

from pfdet.boxes.iou import matched_iou
from pfdet.boxes.pairs import array_module, blocks, rows_of_pairs, score_keys

# Left edges are sorted as integers of at most so many bits.
_EDGE_BITS = 24
# The bits of a rank that are an index.
_INDEX = 0xFFFFFFFF


def non_maximum_suppression(bbox, score, label, iou_thresh: float = 0.5) -> tuple:
    """Greedy non-maximum suppression within each class.

    The highest scored box leads and suppresses those of its class whose IoU with it is above
    ``iou_thresh``; the highest scored of the rest leads next. Of equal scores the earlier
    box comes first.

    To treat many images in one call, give ``image * n_class + label`` as the label.

    Args:
        bbox (array): Shape :math:`(N, 4)`, ``(y_min, x_min, y_max, x_max)``, any unit.
        score (array): Shape :math:`(N,)`.
        label (array): Shape :math:`(N,)`, int. Boxes of different labels never meet.
        iou_thresh (float): In [0, 1].

    Returns:
        tuple of arrays: ``bbox``, ``score`` and ``label`` of the leaders, by descending score, of
        the dtypes given.
    """
    rank = score_ranks(score)
    leads = greedy_leaders(*overlapping_pairs(bbox, rank, label, iou_thresh), len(rank))
    leader = by_rank(rank, leads)
    return bbox.take(leader, axis=0), score.take(leader), label.take(leader)


def score_ranks(score):
    """Different int64 that ascend by descending score, of equal scores by index.

    Their lower 32 bits are the index.
    """
    xp = array_module(score)
    return (~score_keys(score) << 32) + xp.arange(len(score))


def by_rank(rank, chosen):
    """Indices of those that a mask chooses, by ascending rank."""
    xp = array_module(rank)
    return xp.sort(rank.take(xp.flatnonzero(chosen))) & _INDEX


def overlapping_pairs(bbox, rank, label, iou_thresh: float) -> tuple:
    """All pairs of boxes of equal label with an IoU above a threshold.

    Args:
        bbox (array): :math:`(N, 4)`.
        rank (int array): Of :func:`score_ranks`, :math:`(N,)`.
        label (int array): :math:`(N,)`.
        iou_thresh (float): In [0, 1].

    Returns:
        tuple of int arrays: Of each pair the index of the box of lower rank, and of the other.
    """
    xp = array_module(bbox)
    n = len(label)
    if n < 2:
        return xp.zeros(0, np.int64), xp.zeros(0, np.int64)
    order, count = _sweep(bbox[:, 1], bbox[:, 3], label, iou_thresh)
    kind = np.float32 if bbox.dtype.itemsize <= 4 and bbox.dtype.kind == 'f' else np.float64
    # Rounding moves neither side of the inequalities below by a larger share than this, but for
    # numbers so small that they are not exact to a share.
    slack = 1e-5 if kind is np.float32 else 1e-12
    tiny = kind(np.finfo(kind).tiny / slack)
    more, less = kind(1 + slack), kind(1 - slack)
    y_min, x_min, y_max, x_max = xp.ascontiguousarray(
        bbox.take(order, axis=0).astype(kind, copy=False).T
    )
    # IoU is at most the overlap in y by the height of either, so this much overlap is needed.
    least_height = (y_max - y_min) * kind(iou_thresh) * less - tiny
    # IoU > t is the same as intersection * (1 + t) > t * (sum of both areas).
    area_share = (y_max - y_min) * (x_max - x_min) * kind(iou_thresh)
    factor = kind(1 + iou_thresh)
    sweep_rank = rank.take(order)
    sources, targets = [], []
    for block in blocks(count):
        a, b = rows_of_pairs(count[block])
        a += block.start
        b += a
        b += 1
        height = xp.minimum(y_max.take(a), y_max.take(b))
        height -= xp.maximum(y_min.take(a), y_min.take(b))
        near = xp.flatnonzero(height >= xp.maximum(least_height.take(a), least_height.take(b)))
        a, b = a.take(near), b.take(near)
        inter = xp.minimum(x_max.take(a), x_max.take(b))
        inter -= xp.maximum(x_min.take(a), x_min.take(b))
        inter *= factor * height.take(near)
        share = area_share.take(a) + area_share.take(b)
        near = xp.flatnonzero(inter * more + tiny >= share)
        # Those too near to the threshold to tell are computed as the definition says.
        inter, share = inter.take(near), share.take(near)
        a, b = a.take(near), b.take(near)
        unsure = xp.flatnonzero(inter * less - tiny <= share)
        if len(unsure):
            above = xp.ones(len(near), bool)
            above[unsure] = (
                matched_iou(
                    *(
                        bbox.take(order.take(i.take(unsure)), axis=0).astype(np.float64)
                        for i in (a, b)
                    )
                )
                > iou_thresh
            )
            above = xp.flatnonzero(above)
            a, b = a.take(above), b.take(above)
        a, b = sweep_rank.take(a), sweep_rank.take(b)
        sources.append(xp.minimum(a, b) & _INDEX)
        targets.append(xp.maximum(a, b) & _INDEX)
    if not sources:
        return xp.zeros(0, np.int64), xp.zeros(0, np.int64)
    if len(sources) == 1:
        return sources[0], targets[0]
    return xp.concatenate(sources), xp.concatenate(targets)


def _sweep(x_min, x_max, label, iou_thresh: float) -> tuple:
    # An order by label and then left edge, and for each box of it, how many that follow come
    # into question: a box and one that begins further right than a share 1 - iou_thresh of the
    # first's width have an IoU below iou_thresh.
    xp = array_module(label)
    n = len(label)
    index_bits = (n - 1).bit_length()
    group = label.astype(np.int64)
    lowest = group.min().item()
    group_bits = (group.max().item() - lowest).bit_length()
    if group_bits + index_bits + _EDGE_BITS > 63:
        group = xp.unique(group, return_inverse=True)[1].reshape(-1)
        lowest, group_bits = 0, index_bits
    edge_bits = min(63 - group_bits - index_bits, _EDGE_BITS)

    x_min, x_max = x_min.astype(np.float64), x_max.astype(np.float64)
    left = x_min.min()
    # Rounding down keeps the order of what differs, whatever the scale.
    scale = (2**edge_bits - 2) / xp.maximum(xp.maximum(x_min.max(), x_max.max()) - left, 1e-30)
    edge = ((x_min - left) * scale).astype(np.int64)
    # One more for the rounding of what is computed here.
    reach = ((x_max - iou_thresh * (x_max - x_min) - left) * scale).astype(np.int64) + 1
    key = ((group - lowest) << edge_bits) + edge
    limit = key + xp.maximum(reach - edge, 0)
    key <<= index_bits
    key += xp.arange(n)
    key.sort()
    order = key & ((1 << index_bits) - 1)
    key >>= index_bits
    end = xp.searchsorted(key, limit.take(order), side='right')
    return order, end - xp.arange(1, n + 1)


def greedy_leaders(source, target, n: int):
    """The boxes that greedy suppression keeps.

    Args:
        source, target (int arrays): Of :func:`overlapping_pairs`.
        n (int): Number of boxes.

    Returns:
        bool array: :math:`(N,)`.
    """
    # A box leads once none before it that overlaps it can still lead, and is out once one of
    # those does.
    xp = array_module(source)
    leads = xp.ones(n, bool)
    while len(source):
        waits = xp.zeros(n, bool)
        waits[target] = True
        source_waits = waits.take(source)
        leads[target.take(xp.flatnonzero(~source_waits))] = False
        # Pairs of two undecided boxes remain: both wait, and neither has been ruled out.
        undecided = xp.flatnonzero(source_waits & leads.take(source) & leads.take(target))
        source, target = source.take(undecided), target.take(undecided)
    return leads
