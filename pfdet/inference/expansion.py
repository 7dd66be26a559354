"""Expansion of finished detections to the ancestors of their classes.

The challenge's ground truth is expanded: a lobster is also a Shellfish and an Animal, and a
detector finds each of these classes with boxes and scores of its own. If a model is better at
Lobster alone, as an expert is, its detections also help the ancestors.

:mod:`pfdet.functions.expand_scores` does the same before suppression, for the scores of one model.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from pfdet.boxes.iou import matched_iou
from pfdet.boxes.nms import greedy_keep, overlapping_pairs, score_ranks
from pfdet.boxes.pairs import is_first, stable_argsort
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.image_order import is_among_first
from pfdet.openimages.hierarchy import Hierarchy

# Rows expanded at once, before the expansion, and more if an image has more.
_ROWS_AT_ONCE = 1 << 16


def expand_detections(
    detections: Detections,
    hierarchy: Hierarchy,
    iou_thresh: float = 0.5,
    max_per_image: int | None = None,
) -> Detections:
    """Raise finished detections to the ancestors of their classes.

    Every detection becomes a candidate of each ancestor of its class, with its score and box. In
    each class of an image that got candidates, greedy non-maximum suppression runs over its own
    detections and the candidates. So each object has the highest score of the class and its
    descendants, and the box of that detection. Detections of other classes stay as they are.

    Suppression is not NMW, even after an ensemble by NMW. NMW would move the winning box towards
    boxes that lost, most of which were averaged already, and expanding again would move it again.
    Here, expanding again with the same arguments changes nothing.

    Boxes with equal coordinates count as one object even where their IoU is not above the
    threshold, which is so without area and with a threshold of 1. Of equal scores, the class's own
    detection wins.

    Args:
        detections (Detections): Detections after suppression. A label is an index into the classes
            of ``hierarchy``.
        hierarchy (Hierarchy): The hierarchy of the :math:`C` classes.
        iou_thresh (float): IoU above which boxes of a class count as one object, in [0, 1].
        max_per_image (int): Largest number of detections per image, after the expansion;
            :obj:`None` for no limit.

    Returns:
        Detections: The same images. Detections are sorted by image and descending score.
    """
    rows = detections.take(stable_argsort(detections.image))
    n_image = len(rows.image_ids)
    start = np.searchsorted(rows.image, np.arange(n_image + 1))
    begins = np.flatnonzero(is_first(start[:-1] // _ROWS_AT_ONCE)).tolist()
    parts = [
        _expand(rows.take(slice(start[begin], start[end])), hierarchy, iou_thresh, max_per_image)
        for begin, end in zip(begins, [*begins[1:], n_image])
    ]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts or [rows]])
        for name in ('image', 'label', 'score', 'bbox')
    }
    return Detections(rows.image_ids, **columns)


def expand_blocks(
    blocks: Iterable[Detections],
    hierarchy: Hierarchy,
    iou_thresh: float = 0.5,
    max_per_image: int | None = None,
) -> Iterator[Detections]:
    """Expand a stream of detections as :func:`expand_detections` does.

    Args:
        blocks (iterable of Detections): Blocks of different images. Memory holds one block.
        hierarchy, iou_thresh, max_per_image: See :func:`expand_detections`.

    Yields:
        Detections: Each block, expanded.
    """
    for block in blocks:
        yield expand_detections(block, hierarchy, iou_thresh, max_per_image)


def _expand(
    own: Detections, hierarchy: Hierarchy, iou_thresh: float, max_per_image: int | None
) -> Detections:
    # Candidates are rows of ``own``, each with its own class or an ancestor. Own classes come
    # first, so that they win where scores are equal.
    n_ancestor = hierarchy.ancestors.sum(axis=1)
    ancestors = np.nonzero(hierarchy.ancestors)[1].astype(np.int32)
    n_raised = n_ancestor[own.label]
    raised = np.repeat(np.arange(len(own)), n_raised)
    position = np.arange(len(raised)) - np.repeat(np.cumsum(n_raised) - n_raised, n_raised)
    first = np.cumsum(n_ancestor) - n_ancestor
    label = np.concatenate([own.label, ancestors[first[own.label[raised]] + position]])
    all_ = own.take(np.concatenate([np.arange(len(own)), raised]))
    key = all_.image.astype(np.int64) * hierarchy.n_class + label

    keep = np.ones(len(key), bool)
    in_ancestor = np.flatnonzero(np.isin(key, key[len(own) :]))
    keep[in_ancestor] = _suppress(
        all_.bbox[in_ancestor], all_.score[in_ancestor], key[in_ancestor], iou_thresh
    )
    kept = np.flatnonzero(keep)
    kept = kept[np.lexsort((-all_.score[kept], all_.image[kept]))]
    kept = kept[is_among_first(all_.image[kept], max_per_image)]
    return Detections(
        own.image_ids,
        all_.image[kept],
        label[kept].astype(np.int32),
        all_.score[kept],
        all_.bbox[kept],
    )


def _suppress(
    bbox: np.ndarray, score: np.ndarray, key: np.ndarray, iou_thresh: float
) -> np.ndarray:
    # Mask of the boxes that greedy suppression keeps. Equal boxes are found by their coordinates
    # where the IoU of a box with itself is not above the threshold.
    keep = np.ones(len(key), bool)
    unsure = np.flatnonzero(~(matched_iou(bbox, bbox) > iou_thresh))
    if len(unsure):
        unsure = unsure[np.argsort(score_ranks(score[unsure]))]
        # Adding 0 turns -0 into 0.
        values = np.column_stack([key[unsure], bbox[unsure] + np.float32(0)])
        keep[unsure] = False
        keep[unsure[np.unique(values, axis=0, return_index=True)[1]]] = True
    index = np.flatnonzero(keep)
    rank = score_ranks(score[index])
    source, target = overlapping_pairs(bbox[index], rank, key[index], iou_thresh)
    keep[index] = greedy_keep(source, target, len(index))
    return keep
