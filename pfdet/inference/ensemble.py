"""Ensembles of models (PFDet, section 2.4).

"We do not apply duplicate suppression for individual models, but instead apply suppression once on
the concatenation of the outputs of all models." Before that, scores are multiplied by a weight for
each model and class that depends on the validation AP; see
:mod:`pfdet.inference.ensemble_weights`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pfdet.boxes.nms import non_maximum_suppression
from pfdet.boxes.nmw import non_maximum_weighted
from pfdet.evaluation.detections import Detections, blocks_of_images
from pfdet.evaluation.image_order import aligned_blocks, is_among_first
from pfdet.inference.expansion import expand_detections
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy

SUPPRESSIONS = {'nmw': non_maximum_weighted, 'nms': non_maximum_suppression}
# Rows read at a time from all files together. Pairs of overlapping boxes take more memory than the
# rows.
_ROWS_AT_ONCE = 1 << 16
# Smallest number of rows read at a time from a file.
_MIN_ROWS_PER_FILE = 1 << 10


def ensemble(
    paths: Sequence[Path],
    classes: Classes,
    weight: np.ndarray,
    suppression: str = 'nmw',
    iou_thresh: float = 0.5,
    score_thresh: float = 0.0,
    max_per_image: int | None = 300,
    rows_at_once: int = _ROWS_AT_ONCE,
    hierarchy: Hierarchy | None = None,
) -> Iterator[Detections]:
    """Concatenate the detections of several models and suppress duplicates once.

    Memory holds a few images at a time, independent of the number of images and models.

    Args:
        paths (sequence of paths): Parquet files, sorted by image; see
            :func:`~pfdet.evaluation.image_order.sorted_by_image`.
        classes (Classes): The classes of all models.
        weight (array): Weight of the scores of each model and class, :math:`(M, C)`. Detections
            with weight 0 are dropped.
        suppression (str): ``'nmw'`` or ``'nms'``.
        iou_thresh (float): IoU threshold of the suppression.
        score_thresh (float): Smallest score, after weighting.
        max_per_image (int): Largest number of detections per image; :obj:`None` for no limit.
        rows_at_once (int): Number of detections of all models that are read at a time.
        hierarchy (Hierarchy): If given, the results of the suppression are raised to the ancestors
            of their classes by :func:`~pfdet.inference.expansion.expand_detections`, before the
            limit per image.

    Yields:
        Detections: The images that have rows in any of the files, in order of their ids.

    Raises:
        InputError: A file cannot be read, or has a bad row.
    """
    suppress = SUPPRESSIONS[suppression]
    n_row = max(rows_at_once // len(paths), _MIN_ROWS_PER_FILE)
    streams = [blocks_of_images(path, classes, n_row) for path in paths]
    for blocks in aligned_blocks(streams):
        candidates = _concatenate(blocks, weight, score_thresh)
        bbox, score, key = suppress(
            candidates.bbox,
            candidates.score,
            candidates.image.astype(np.int64) * len(classes) + candidates.label,
            iou_thresh,
        )
        # A stable sort keeps the detections of an image by descending score.
        order = np.argsort(key // len(classes), kind='stable')
        image, label = np.divmod(key[order], len(classes))
        found = Detections(
            candidates.image_ids,
            image.astype(np.int32),
            label.astype(np.int32),
            score[order],
            bbox[order],
        )
        if hierarchy is not None:
            found = expand_detections(found, hierarchy, iou_thresh)
        yield found.take(is_among_first(found.image, max_per_image))


def _concatenate(
    blocks: Sequence[Detections | None], weight: np.ndarray, score_thresh: float
) -> Detections:
    # Weights the scores and merges the images of all files by id.
    image_ids = sorted({i for block in blocks if block is not None for i in block.image_ids})
    position = {image_id: k for k, image_id in enumerate(image_ids)}
    columns = []
    for block, class_weight in zip(blocks, weight, strict=True):
        if block is None:
            continue
        to_position = np.array([position[i] for i in block.image_ids], np.int32)
        row_weight = class_weight[block.label]
        score = (block.score * row_weight).astype(np.float32)
        keep = (row_weight > 0) & (score >= score_thresh)
        columns.append(
            (to_position[block.image[keep]], block.label[keep], score[keep], block.bbox[keep])
        )
    image, label, score, bbox = (np.concatenate(c) for c in zip(*columns, strict=True))
    return Detections(image_ids, image, label, score, bbox)
