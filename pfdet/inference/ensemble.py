"""Ensembles of models (PFDet, section 2.4).

"We do not apply duplicate suppression for individual models, but instead apply suppression once on
the concatenation of the outputs of all models." Scores are multiplied by a weight for each class
and model first, by how well the model did in validation: :mod:`pfdet.inference.ensemble_weights`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pfdet.boxes.nms import non_maximum_suppression
from pfdet.boxes.nmw import non_maximum_weighted
from pfdet.evaluation.detections import Detections, aligned_blocks, blocks_of_images
from pfdet.openimages.classes import Classes

SUPPRESSIONS = {'nmw': non_maximum_weighted, 'nms': non_maximum_suppression}
# Of all files together. The pairs of overlapping boxes take more memory than these.
_ROWS_AT_ONCE = 1 << 16
_ROWS_OF_A_FILE = 1 << 10


def ensemble(
    paths: Sequence[Path],
    classes: Classes,
    weight: np.ndarray,
    suppression: str = 'nmw',
    iou_thresh: float = 0.5,
    score_thresh: float = 0.0,
    max_per_image: int | None = 300,
    rows_at_once: int = _ROWS_AT_ONCE,
) -> Iterator[Detections]:
    """Put the detections of several models together and suppress duplicates once.

    In memory are some images at a time, whatever the number of images and models.

    Args:
        paths (sequence of paths): Parquet files, sorted by image; see
            :func:`~pfdet.evaluation.detections.sorted_by_image`.
        classes (Classes): The classes of all.
        weight (array): Of each model and class, :math:`(M, C)`, for the scores; detections with
            the weight 0 are left out.
        suppression (str): ``'nmw'`` or ``'nms'``.
        iou_thresh (float): IoU above which boxes of a class are taken for one object.
        score_thresh (float): Least score, after weighting.
        max_per_image (int): The best of an image that are kept; :obj:`None` for all.
        rows_at_once (int): Detections of all models that are read at a time.

    Yields:
        Detections: In order of the image ids, of images with rows in any of the files.

    Raises:
        InputError: A file cannot be read, or has a wrong row.
    """
    suppress = SUPPRESSIONS[suppression]
    n_row = max(rows_at_once // len(paths), _ROWS_OF_A_FILE)
    streams = [blocks_of_images(path, classes, n_row) for path in paths]
    for blocks in aligned_blocks(streams):
        both = _concatenated(blocks, weight, score_thresh)
        bbox, score, key = suppress(
            both.bbox,
            both.score,
            both.image.astype(np.int64) * len(classes) + both.label,
            iou_thresh,
        )
        # By descending score already.
        order = np.argsort(key // len(classes), kind='stable')
        image, label = np.divmod(key[order], len(classes))
        if max_per_image is not None:
            place = np.arange(len(image)) - np.searchsorted(image, image)
            keep = place < max_per_image
            order, image, label = order[keep], image[keep], label[keep]
        yield Detections(
            both.image_ids,
            image.astype(np.int32),
            label.astype(np.int32),
            score[order],
            bbox[order],
        )


def _concatenated(
    blocks: Sequence[Detections | None], weight: np.ndarray, score_thresh: float
) -> Detections:
    # The same images in different files become one, with weighted scores.
    image_ids = sorted(set().union(*(block.image_ids for block in blocks if block is not None)))
    place = {image_id: k for k, image_id in enumerate(image_ids)}
    columns = []
    for block, weight_of in zip(blocks, weight, strict=True):
        if block is None:
            continue
        to_place = np.array([place[i] for i in block.image_ids], np.int32)
        weight_of = weight_of[block.label]
        score = (block.score * weight_of).astype(np.float32)
        keep = (weight_of > 0) & (score >= score_thresh)
        columns.append(
            (to_place[block.image[keep]], block.label[keep], score[keep], block.bbox[keep])
        )
    image, label, score, bbox = (np.concatenate(c) for c in zip(*columns, strict=True))
    return Detections(image_ids, image, label, score, bbox)
