"""Greedy non-maximum suppression (NMS) for all classes at once.

No loop runs over classes or boxes. One sort yields the candidate pairs. The boxes to keep are then
found in rounds that decide all classes together. The number of rounds is the length of the longest
chain of boxes in which each suppresses the next, a handful in practice.

Arrays may be NumPy's or CuPy's, and results are of the same kind. On a GPU the host synchronizes to
get the number of candidate pairs, of overlapping pairs, and of undecided pairs after each round.
"""

import numpy as np

from pfdet.boxes.arrays import Array, array_module
from pfdet.boxes.iou import matched_iou
from pfdet.boxes.pairs import blocks, rows_of_pairs, score_keys

# Left edges are quantized to at most this many bits for sorting.
_EDGE_BITS = 24
# The low bits of a rank hold the index of the box.
_INDEX_MASK = 0xFFFFFFFF


def non_maximum_suppression(
    bbox: Array, score: Array, label: Array, iou_thresh: float = 0.5
) -> tuple[Array, Array, Array]:
    """Greedy non-maximum suppression within each class.

    The highest-scoring box is kept and suppresses the boxes of its class whose IoU with it is above
    ``iou_thresh``. This repeats with the highest-scoring remaining box. Of boxes with equal scores
    the one with the lower index goes first.

    To process several images in one call, pass ``image * n_class + label`` as the label.

    Args:
        bbox (array): Boxes :math:`(N, 4)`, ``(y_min, x_min, y_max, x_max)``, any unit.
        score (array): Scores :math:`(N,)`.
        label (array): Labels :math:`(N,)`, int. Boxes of different labels do not interact.
        iou_thresh (float): In [0, 1].

    Returns:
        tuple of arrays: ``bbox``, ``score`` and ``label`` of the kept boxes, by descending score,
        with the dtypes of the arguments.
    """
    rank = score_ranks(score)
    source, target = overlapping_pairs(bbox, rank, label, iou_thresh)
    kept = indices_by_rank(rank, greedy_keep(source, target, len(rank)))
    return bbox.take(kept, axis=0), score.take(kept), label.take(kept)


def score_ranks(score: Array) -> Array:
    """Rank boxes by descending score, and by index where scores are equal.

    Args:
        score (array): Scores :math:`(N,)`.

    Returns:
        int64 array: Distinct ranks :math:`(N,)`. Their low 32 bits are the index.
    """
    xp = array_module(score)
    return (~score_keys(score) << 32) + xp.arange(len(score))


def indices_by_rank(rank: Array, mask: Array) -> Array:
    """Return the indices that a mask selects, by ascending rank.

    Args:
        rank (int64 array): Ranks of :func:`score_ranks`, :math:`(N,)`.
        mask (bool array): :math:`(N,)`.

    Returns:
        int64 array: Indices, one per true element of the mask.
    """
    xp = array_module(rank)
    return xp.sort(rank.take(xp.flatnonzero(mask))) & _INDEX_MASK


def overlapping_pairs(
    bbox: Array, rank: Array, label: Array, iou_thresh: float
) -> tuple[Array, Array]:
    """Find all pairs of boxes of the same label with an IoU above a threshold.

    Args:
        bbox (array): Boxes :math:`(N, 4)`.
        rank (int array): Ranks of :func:`score_ranks`, :math:`(N,)`.
        label (int array): Labels :math:`(N,)`.
        iou_thresh (float): In [0, 1].

    Returns:
        tuple of int arrays: For each pair, the index of the box of lower rank (the source) and of
        the other one (the target).
    """
    xp = array_module(bbox)
    n = len(label)
    if n < 2:
        return xp.zeros(0, np.int64), xp.zeros(0, np.int64)
    order, count = _sweep(bbox[:, 1], bbox[:, 3], label, iou_thresh)
    kind = np.float32 if bbox.dtype.itemsize <= 4 and bbox.dtype.kind == 'f' else np.float64
    # Bound on the relative rounding error of both sides of the inequalities below. ``tiny`` covers
    # values close to the smallest normal number, where the relative error is unbounded.
    slack = 1e-5 if kind is np.float32 else 1e-12
    tiny = kind(np.finfo(kind).tiny / slack)
    more, less = kind(1 + slack), kind(1 - slack)
    y_min, x_min, y_max, x_max = xp.ascontiguousarray(
        bbox.take(order, axis=0).astype(kind, copy=False).T
    )
    # IoU is at most the overlap in y divided by the height of either box. This gives the smallest
    # overlap in y that a pair needs.
    min_height = (y_max - y_min) * kind(iou_thresh) * less - tiny
    # IoU > t is equivalent to intersection * (1 + t) > t * (sum of both areas).
    scaled_area = (y_max - y_min) * (x_max - x_min) * kind(iou_thresh)
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
        near = xp.flatnonzero(height >= xp.maximum(min_height.take(a), min_height.take(b)))
        a, b = a.take(near), b.take(near)
        inter = xp.minimum(x_max.take(a), x_max.take(b))
        inter -= xp.maximum(x_min.take(a), x_min.take(b))
        inter *= factor * height.take(near)
        bound = scaled_area.take(a) + scaled_area.take(b)
        near = xp.flatnonzero(inter * more + tiny >= bound)
        inter, bound = inter.take(near), bound.take(near)
        a, b = a.take(near), b.take(near)
        # Pairs within rounding error of the threshold are decided by their IoU in float64.
        unsure = xp.flatnonzero(inter * less - tiny <= bound)
        if len(unsure):
            above = xp.ones(len(near), bool)
            bbox_a, bbox_b = (
                bbox.take(order.take(i.take(unsure)), axis=0).astype(np.float64) for i in (a, b)
            )
            above[unsure] = matched_iou(bbox_a, bbox_b) > iou_thresh
            above = xp.flatnonzero(above)
            a, b = a.take(above), b.take(above)
        a, b = sweep_rank.take(a), sweep_rank.take(b)
        sources.append(xp.minimum(a, b) & _INDEX_MASK)
        targets.append(xp.maximum(a, b) & _INDEX_MASK)
    if not sources:
        return xp.zeros(0, np.int64), xp.zeros(0, np.int64)
    if len(sources) == 1:
        return sources[0], targets[0]
    return xp.concatenate(sources), xp.concatenate(targets)


def _sweep(x_min: Array, x_max: Array, label: Array, iou_thresh: float) -> tuple[Array, Array]:
    # Sorts boxes by label and left edge. Also returns the number of boxes after each one that are
    # candidates for a pair with it: if the left edge of the later box is more than
    # (1 - iou_thresh) * width to the right of the earlier one's, their IoU is below iou_thresh.
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
    # Rounding down preserves the order at any scale.
    scale = (2**edge_bits - 2) / xp.maximum(xp.maximum(x_min.max(), x_max.max()) - left, 1e-30)
    edge = ((x_min - left) * scale).astype(np.int64)
    # Plus one for the rounding error of this expression.
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


def greedy_keep(source: Array, target: Array, n: int) -> Array:
    """Find the boxes that greedy suppression keeps.

    Args:
        source, target (int arrays): Pairs of :func:`overlapping_pairs`.
        n (int): Number of boxes :math:`N`.

    Returns:
        bool array: Mask of the kept boxes, :math:`(N,)`.
    """
    # In each round, boxes that are no target of an undecided pair are kept, and they suppress their
    # targets.
    xp = array_module(source)
    keep = xp.ones(n, bool)
    while len(source):
        is_target = xp.zeros(n, bool)
        is_target[target] = True
        source_pending = is_target.take(source)
        keep[target.take(xp.flatnonzero(~source_pending))] = False
        undecided = xp.flatnonzero(source_pending & keep.take(source) & keep.take(target))
        source, target = source.take(undecided), target.take(undecided)
    return keep
