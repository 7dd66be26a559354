"""Class weights for images that they were not computed on, from one validation set.

PFDet's class weights are computed from validation scores (section 2.4), and their gain is measured
on the leaderboards, on other images. With a single validation set, its images are split into two
halves with about the same number of images of each class. The weights of each half are computed on
the other half, so that all validation images are scored, and none with weights that its own
annotations decided.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from pfdet.errors import InputError
from pfdet.evaluation.detections import (
    Detections,
    blocks_of_images,
    detections_writer,
    images_without_detections,
    no_detections,
)
from pfdet.openimages.classes import Classes
from pfdet.openimages.index import AnnotationIndex
from pfdet.subprocesses import run_python

# Rows read at a time.
_ROWS_AT_ONCE = 1 << 16


def split_in_halves(index: Path, out: Path, seed: int) -> tuple[Path, Path]:
    """Split the images of an index into two halves, unless done.

    Args:
        index (path): An annotation index.
        out (path): Directory of the halves.
        seed (int): Seed of the choice of images.

    Returns:
        pair of paths: The indexes of the halves.

    Raises:
        InputError: The index cannot be read or has a single image.
    """
    halves = out / 'train.index', out / 'validation.index'
    if not all(half.exists() for half in halves):
        n_image = len(AnnotationIndex.open(index))
        if n_image < 2:
            raise InputError(f'{index}: {n_image} images; expected 2 or more, to split in halves')
        n_first = n_image // 2
        run_python(
            *('-m', 'pfdet', 'split', '--index', index, '--train', n_first),
            *('--val', n_image - n_first, '--seed', seed, '--out', out),
            log=out / 'output.txt',
        )
    return halves


def image_ids(index: Path) -> set[str]:
    """The ids of an index's images."""
    opened = AnnotationIndex.open(index)
    return {opened.image_id(i) for i in range(len(opened))}


def join_images(parts: Sequence[tuple[Path, Collection[str]]], classes: Classes, out: Path) -> int:
    """Write one file of detections with some images of each of several files.

    Memory holds a few images at a time.

    Args:
        parts (sequence of pairs): Files of detections in Parquet, sorted by image, and the ids of
            the images to take from each. No image is taken from two files.
        classes (Classes): The classes of the detections.
        out (path): The file to write.

    Returns:
        int: Number of images written, with those without detections.

    Raises:
        InputError: A file cannot be read, or has a bad row.
    """
    n_image = 0
    with detections_writer(out, classes) as write:
        for path, ids in parts:
            for block in blocks_of_images(path, classes, _ROWS_AT_ONCE):
                taken = _take_images(block, ids)
                write(taken)
                n_image += len(taken.image_ids)
            empty = sorted(set(images_without_detections(path)).intersection(ids))
            write(_take_images(no_detections(empty), ids))
            n_image += len(empty)
    return n_image


def _take_images(detections: Detections, ids: Collection[str]) -> Detections:
    wanted = np.array([image_id in ids for image_id in detections.image_ids], bool)
    position = np.cumsum(wanted) - 1
    rows = np.flatnonzero(wanted[detections.image])
    return Detections(
        [i for i, take in zip(detections.image_ids, wanted, strict=True) if take],
        position[detections.image[rows]].astype(np.int32),
        detections.label[rows],
        detections.score[rows],
        detections.bbox[rows],
    )
