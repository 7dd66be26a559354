"""Non-maximum suppression and non-maximum weighted, for all classes at once.

No loop runs over classes or boxes: candidate pairs come from one sort, and which boxes lead
is found in rounds that decide every class together, as many as the longest chain of boxes
of which each suppresses the next (a handful in practice).
"""

import numpy as np

from pfdet.evaluation.runs import blocks, is_first


def non_maximum_suppression(
        bbox: np.ndarray, score: np.ndarray, label: np.ndarray,
        iou_thresh: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
        tuple: ``bbox``, ``score`` and ``label`` of the leaders, by descending score, of the
        dtypes given.
    """
    order, source, target, _ = _overlapping_pairs(bbox, score, label, iou_thresh)
    leader = order[_leaders(len(order), source, target)]
    leader = leader[np.lexsort((leader, -score[leader]))]
    return bbox[leader], score[leader], label[leader]


def non_maximum_weighted(
        bbox: np.ndarray, score: np.ndarray, label: np.ndarray,
        iou_thresh: float = 0.5,
        join: str = 'highest') -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Non-maximum weighted within each class (PFDet, section 2.5; Zhou et al., CAD, 2017).

    Leaders are those of :func:`non_maximum_suppression`. The boxes that a leader suppresses
    join it instead of being dropped, each joins one leader only, and the leader's box becomes
    the average of its own and theirs, weighted by score times IoU with the leader. The score
    stays the leader's.

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
        tuple: ``bbox``, ``score`` and ``label`` of the leaders, by descending score, of the
        dtypes given.
    """
    if join not in ('highest', 'nearest'):
        raise ValueError(f"join is {join!r}, expected 'highest' or 'nearest'")
    order, source, target, iou = _overlapping_pairs(bbox, score, label, iou_thresh)
    n = len(order)
    is_leader = _leaders(n, source, target)

    # Pairs of a leader and a box that may join it; then the one pair of each such box.
    pair = np.flatnonzero(is_leader[source])
    if join == 'nearest':
        nearest = np.zeros(n)
        np.maximum.at(nearest, target[pair], iou[pair])
        pair = pair[iou[pair] == nearest[target[pair]]]
    highest = np.full(n, n)
    np.minimum.at(highest, target[pair], source[pair])
    pair = pair[source[pair] == highest[target[pair]]]
    source, target, iou = source[pair], target[pair], iou[pair]

    sorted_bbox = bbox[order].astype(np.float64)
    sorted_score = score[order].astype(np.float64)
    leader = np.flatnonzero(is_leader)
    weight = sorted_score[target] * iou
    total = sorted_score + np.bincount(source, weight, n)
    # Summing differences from the leader keeps a leader that nobody joined exactly as it was.
    shift = np.stack([
        np.bincount(source, weight * (sorted_bbox[target, k] - sorted_bbox[source, k]), n)
        for k in range(4)], axis=1)[leader]
    total = total[leader]
    shift = shift / np.where(total > 0, total, 1)[:, None]
    merged = (sorted_bbox[leader] + shift).astype(bbox.dtype)

    by_score = np.lexsort((order[leader], -score[order[leader]]))
    chosen = order[leader[by_score]]
    return merged[by_score], score[chosen], label[chosen]


def _overlapping_pairs(
        bbox: np.ndarray, score: np.ndarray, label: np.ndarray,
        iou_thresh: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    # The order by label, then descending score; and, as positions in that order, all pairs
    # source < target of equal label with IoU above iou_thresh, and their IoU in float64.
    order = np.lexsort((-score, label))
    n = len(order)
    y_min, x_min, y_max, x_max = np.ascontiguousarray(bbox[order].astype(np.float64).T)
    sorted_label = label[order]

    # Sweep along x: a box and one that begins further right than a share 1 - iou_thresh of
    # the first's width have an IoU below iou_thresh.
    group = np.cumsum(is_first(sorted_label)) - 1
    low, span = (x_min.min(), max(np.ptp(x_min), 1e-12)) if n else (0., 1.)
    key = 2 * group + (x_min - low) / span
    sweep = np.argsort(key, kind='stable')
    reach = x_max - iou_thresh * (x_max - x_min)
    # The margin covers rounding of the keys.
    limit = 2 * group + np.clip((reach - low) / span, 0, 1) + 1e-6
    end = np.searchsorted(key[sweep], limit[sweep], side='right')
    count = np.maximum(end - np.arange(n) - 1, 0)

    area = (y_max - y_min) * (x_max - x_min)
    found = []
    for block in blocks(count):
        m = count[block]
        begin = np.arange(block.start, block.stop)
        a = np.repeat(begin, m)
        b = np.arange(len(a)) + np.repeat(begin + 1 - (np.cumsum(m) - m), m)
        a, b = sweep[a], sweep[b]
        width = np.minimum(x_max[a], x_max[b]) - np.maximum(x_min[a], x_min[b])
        height = np.minimum(y_max[a], y_max[b]) - np.maximum(y_min[a], y_min[b])
        touch = np.flatnonzero((width > 0) & (height > 0))
        a, b = a[touch], b[touch]
        intersection = width[touch] * height[touch]
        iou = intersection / (area[a] + area[b] - intersection)
        above = np.flatnonzero(iou > iou_thresh)
        a, b = a[above], b[above]
        found.append((np.minimum(a, b), np.maximum(a, b), iou[above]))
    if not found:
        return order, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    source, target, iou = (np.concatenate(column) for column in zip(*found, strict=True))
    return order, source, target, iou


def _leaders(n: int, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    # True for the boxes that greedy suppression keeps. A box leads once none before it that
    # overlaps it can still lead, and is out once one of those does.
    leads = np.ones(n, bool)
    while len(source):
        waits = np.zeros(n, bool)
        waits[target] = True
        leads[target[~waits[source]]] = False
        # Pairs of two undecided boxes remain: both wait, and neither has been ruled out.
        open_pair = waits[source] & leads[source] & leads[target]
        source, target = source[open_pair], target[open_pair]
    return leads
