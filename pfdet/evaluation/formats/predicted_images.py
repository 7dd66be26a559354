"""Detections image by image, with what the formats of other programs say about an image."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pfdet.errors import InputError
from pfdet.evaluation.image_order import blocks_of_all_images, sorted_by_image
from pfdet.openimages.identifiers import normal_image_id
from pfdet.openimages.index import AnnotationIndex

_ROWS_AT_ONCE = 1 << 16


class PredictedImage(NamedTuple):
    """An image and its D detections.

    Attributes:
        position (int): Its position in the index.
        image_id (str): Its id.
        label (array): int32 ``(D,)``, class ids.
        score (array): float32 ``(D,)``.
        bbox (array): float32 ``(D, 4)``, ``(y_min, x_min, y_max, x_max)`` in [0, 1].
    """

    position: int
    image_id: str
    label: np.ndarray
    score: np.ndarray
    bbox: np.ndarray


def predicted_images(
    path: Path, index: AnnotationIndex, directory: Path, score_thresh: float = 0.0
) -> Iterator[PredictedImage]:
    """Read a file of detections of any size image by image.

    Args:
        path (path): The detections, Parquet or CSV or a submission.
        index (AnnotationIndex): The index of the images.
        directory (path): Where a sorted copy goes if the file is not sorted, see
            :func:`~pfdet.evaluation.image_order.sorted_by_image`.
        score_thresh (float): Lowest score of a detection.

    Yields:
        PredictedImage: The images of the file by id, including those without detections.
        Detections are in the order of the file.

    Raises:
        InputError: The file cannot be read, has a bad row, or an image that the index lacks.
    """
    copy = sorted_by_image(path, index.classes, directory)
    for block in blocks_of_all_images(copy, index.classes, _ROWS_AT_ONCE):
        block = block.take(block.score >= score_thresh)
        bounds = np.searchsorted(block.image, np.arange(len(block.image_ids) + 1))
        for image_id, begin, end in zip(block.image_ids, bounds, bounds[1:]):
            try:
                position = index.find(image_id)
            except KeyError:
                raise InputError(
                    f'{path}: image {image_id!r} is not one of the {len(index):,} images of '
                    f'{index.path}; expected the index of the predicted images'
                ) from None
            yield PredictedImage(
                position,
                image_id,
                block.label[begin:end],
                block.score[begin:end],
                block.bbox[begin:end],
            )


def file_name(index: AnnotationIndex, i: int) -> tuple[str, str]:
    """The file of an image, relative to the directory of the images, with ``/`` between folders.

    Args:
        index (AnnotationIndex): The index.
        i (int): Position of the image.

    Returns:
        tuple: The name such as ``'street/0001.jpg'``, and its suffix ``'.jpg'``.

    Raises:
        InputError: The file is outside of that directory.
    """
    name = os.path.relpath(index.image_path(i), index.images).replace(os.sep, '/')
    if normal_image_id(name) is None:
        raise InputError(
            f'{index.path}: image {index.image_id(i)!r} has the file {name!r}; expected one in the '
            'directory of the images'
        )
    return name, index.suffixes[index.columns['image_suffix'][i]]


def size_in_pixels(index: AnnotationIndex, i: int) -> tuple[int, int]:
    """Height and width of an image.

    Raises:
        InputError: The index has no size, because the image had no file when it was compiled.
    """
    height, width = index.image_size(i)
    if height <= 0 or width <= 0:
        raise InputError(
            f'{index.path}: no size of image {index.image_id(i)!r}, which had no file when the '
            'index was made; expected all images to be there, since the format has boxes in pixels'
        )
    return height, width
