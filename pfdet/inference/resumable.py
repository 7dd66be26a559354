"""Resumable prediction of a whole data set on any number of ranks.

The split of images into parts and batches depends on their order and shapes only, so the number of
ranks does not change the detections. With the same processor type and the same number of threads
per rank, the output file is byte-identical. Otherwise it is equal up to rounding
(docs/reproducibility.md).

Each finished part is stored with checksums in a file next to the output. After an interruption,
only missing parts are predicted. At the end the first rank merges the parts in order of image ids,
with one window of images in memory at a time.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pfdet.atomic_write import remove_unfinished, replace_when_done
from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections, detections_writer
from pfdet.evaluation.invalid_rows import bad_rows
from pfdet.files.json_file import read_object
from pfdet.files.locks import output_lock_of_ranks
from pfdet.files.reading import reading
from pfdet.inference.predict import (
    ImageDetections,
    PredictSettings,
    as_detections,
    detect,
    equal_shape_batches,
    padded_shapes,
)
from pfdet.openimages.classes import Classes
from pfdet.openimages.column_file import map_columns, write_columns
from pfdet.openimages.corrupt_images import CorruptImages
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.progress import report as report_progress

_KIND = 'part of a prediction'
_ABOUT = 'the description of an unfinished prediction; give --restart to start over'
# Batches of equal shape are formed within windows of this many images. Merging holds the detections
# of one window in memory.
_WINDOW = 4096


class Part(NamedTuple):
    """A unit of work: some batches of images.

    Attributes:
        window (int): Index of the window that the images belong to.
        batches (tuple of int arrays): Image indices of each batch.
    """

    window: int
    batches: tuple[np.ndarray, ...]

    @property
    def images(self) -> np.ndarray:
        """Image indices of all batches."""
        return np.concatenate(self.batches)


def plan_parts(shapes: np.ndarray, batch_size: int, window: int = _WINDOW) -> list[Part]:
    """Split a data set into parts.

    A large data set yields about 4,000 parts. These are few enough files for a file system, and
    enough parts to balance the load of 512 ranks.

    Args:
        shapes (int array): Padded shapes of all images, see
            :func:`~pfdet.inference.predict.padded_shapes`.
        batch_size (int): Largest number of images per batch.
        window (int): Number of consecutive images in a window. A part lies within one window.

    Returns:
        list of Part: Windows in order, and parts by shape within a window, so that consecutive
        parts take about equally long.
    """
    size = min(max(len(shapes) // 4096, 8), 64)
    parts = []
    for begin in range(0, len(shapes), window):
        batches: list[np.ndarray] = []
        n = 0
        for batch in equal_shape_batches(shapes[begin : begin + window], batch_size):
            batches.append(batch + begin)
            n += len(batch)
            if n >= size:
                parts.append(Part(begin // window, tuple(batches)))
                batches, n = [], 0
        if batches:
            parts.append(Part(begin // window, tuple(batches)))
    return parts


def predict_to_file(
    detector: Any,
    dataset: OpenImagesDataset,
    out: Path,
    classes: Classes,
    settings: PredictSettings,
    about: dict[str, Any],
    comm: Any,
    progress: Callable[[Iterable], Iterable] = iter,
    corrupt: CorruptImages | None = None,
    restart: bool = False,
) -> dict[str, Any] | None:
    """Detect objects in a whole data set and write them to a file. All ranks must call this.

    Until the file is complete, the directory ``out`` + ``.parts`` holds the finished parts.

    Args:
        detector, dataset, settings, progress, corrupt: See :func:`pfdet.inference.predict.predict`.
        out (path): A name ending in ``.parquet`` or ``.csv``, on a file system that all ranks
            share.
        classes (Classes): The classes of the detector.
        about (dict): What else the detections depend on, such as a checksum of the weights;
            serializable as JSON. Parts of a run with another value are not reused.
        comm (ChainerMN communicator): The communicator of all ranks.
        restart (bool): Delete the parts of an earlier run.

    Returns:
        dict: On the first rank: ``'images'`` and ``'detections'``, their numbers; ``'resumed'``,
        the number of images predicted by earlier runs; ``'corrupt'``, a :class:`CorruptImages` over
        all ranks and runs, or :obj:`None`. On other ranks :obj:`None`.

    Raises:
        InputError: An image cannot be read, too many of them cannot, the existing parts belong to
            a different run, or another process writes the same file.
    """
    with output_lock_of_ranks(out, comm):
        report_progress('planning the prediction')
        directory = out.with_name(out.name + '.parts')
        parts = None
        if comm.rank == 0:
            n_image = len(dataset)
            about = {**about, 'images': index_checksum(dataset.index), 'settings': vars(settings)}
            _begin(directory, json.loads(json.dumps(about)), restart)
            remove_unfinished(out.parent, out.name)
            parts = plan_parts(
                padded_shapes(detector, dataset, np.arange(n_image), settings, corrupt is not None),
                settings.batch_size,
            )
        parts = comm.mpi_comm.bcast(parts)
        local = range(comm.rank, len(parts), comm.size)
        done = [
            k
            for k in local
            if _read_part(directory, k, parts[k], len(classes), corrupt is not None)
        ]
        done = sorted(sum(comm.mpi_comm.allgather(done), []))
        todo = sorted(set(range(len(parts))).difference(done))[comm.rank :: comm.size]

        report_progress('prediction')
        batches = [batch for k in todo for batch in parts[k].batches]
        found = detect(detector, dataset, batches, settings, progress, corrupt)
        for k in todo:
            _write_part(
                directory,
                k,
                parts[k],
                {i: arrays for _ in parts[k].batches for i, arrays in next(found).items()},
                corrupt,
            )
        # Exhaust the iterator, so that the progress bar closes.
        for _ in found:
            pass
        report_progress('merging the parts of the prediction')
        comm.mpi_comm.Barrier()
        if comm.rank > 0:
            return None
        count = _merge(directory, parts, dataset.index, out, classes, corrupt)
        shutil.rmtree(directory)
        return {**count, 'resumed': sum(len(parts[k].images) for k in done)}


def index_checksum(index: AnnotationIndex) -> str:
    """Compute a SHA-256 checksum of the ids and sizes of the images of an index.

    Annotations do not matter.

    Args:
        index (AnnotationIndex): The index.

    Returns:
        str: Hexadecimal digest.
    """
    digest = hashlib.sha256()
    for name in 'id_offsets', 'id_bytes', 'image_size', 'image_suffix':
        digest.update(np.ascontiguousarray(index.columns[name]).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def _begin(directory: Path, about: dict[str, Any], restart: bool) -> None:
    path = directory / 'about.json'
    if restart and path.exists():
        shutil.rmtree(directory)
    if not path.exists():
        with replace_when_done(path) as unfinished:
            unfinished.write_text(json.dumps(about, indent=1) + '\n', encoding='utf-8')
        return
    before = read_object(path, _ABOUT)
    with reading(path, _ABOUT):
        differences = _differences(before, about)
    if differences:
        raise InputError(
            f'{directory} has parts of another prediction ({"; ".join(differences[:3])}); give '
            '--restart to delete them, or another --out'
        )


def _differences(a: Any, b: Any, name: str = '') -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            line
            for key in sorted(a.keys() | b.keys())
            for line in _differences(a.get(key), b.get(key), f'{name}.{key}' if name else key)
        ]
    return [] if a == b else [f'{name} was {str(a)[:40]}, now {str(b)[:40]}']


def _part_path(directory: Path, k: int) -> Path:
    return directory / f'{k:06}.part'


def _write_part(
    directory: Path,
    k: int,
    part: Part,
    found: dict[int, ImageDetections],
    corrupt: CorruptImages | None,
) -> None:
    images = part.images
    detections = as_detections([''] * len(images), [found.get(i) for i in images.tolist()])
    unread = sorted(set(images.tolist()).difference(found))
    messages = dict(corrupt.first) if corrupt is not None else {}
    write_columns(
        _part_path(directory, k),
        _KIND,
        {
            'image': images.astype(np.int32),
            'count': np.bincount(detections.image, minlength=len(images)).astype(np.int32),
            'label': detections.label,
            'score': detections.score,
            'bbox': detections.bbox,
        },
        {'corrupt': [[i, messages.get(i, '')] for i in unread]},
    )


def _read_part(
    directory: Path, k: int, part: Part, n_class: int, may_be_corrupt: bool
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    # None if the part must be predicted: it is missing, damaged, of other images, or lacks corrupt
    # images although they are not allowed now.
    path = _part_path(directory, k)
    try:
        columns, header = map_columns(path, _KIND)
        with reading(path, _KIND):
            _check_part(columns, header, part, n_class)
    except InputError:
        return None
    return None if header['corrupt'] and not may_be_corrupt else (columns, header)


def _check_part(
    columns: dict[str, np.ndarray], header: dict[str, Any], part: Part, n_class: int
) -> None:
    image, count, label, score, bbox = (
        columns[name] for name in ('image', 'count', 'label', 'score', 'bbox')
    )
    n = len(label)
    valid = (
        np.array_equal(image, part.images)
        and count.shape == image.shape
        and (count >= 0).all()
        and count.sum() == n
        and label.shape == score.shape == (n,)
        and bbox.shape == (n, 4)
        and ((label >= 0) & (label < n_class)).all()
        and not any(bad_rows(score, bbox, np.ones(n, bool)))
        and all(type(i) is int and isinstance(text, str) for i, text in header['corrupt'])
    )
    if not valid:
        raise ValueError('of other images, or damaged')


def _merge(
    directory: Path,
    parts: list[Part],
    index: AnnotationIndex,
    out: Path,
    classes: Classes,
    corrupt: CorruptImages | None,
) -> dict[str, Any]:
    total = None
    if corrupt is not None:
        total = CorruptImages(corrupt.max_share, corrupt.min_count, corrupt.n_first)
    n_detection = 0
    with detections_writer(out, classes) as write:
        for window in _windows(directory, parts, index, len(classes), total):
            n_detection += len(window)
            write(window)
        if total is not None:
            total.check()
    return {'images': len(index), 'detections': n_detection, 'corrupt': total}


def _windows(
    directory: Path,
    parts: list[Part],
    index: AnnotationIndex,
    n_class: int,
    total: CorruptImages | None,
) -> Iterator[Detections]:
    window_of = np.array([part.window for part in parts], np.int64)
    for window in range(int(window_of.max(initial=-1)) + 1):
        report_progress()
        read = []
        for k in np.flatnonzero(window_of == window).tolist():
            part = _read_part(directory, k, parts[k], n_class, total is not None)
            if part is None:
                raise InputError(
                    f'{_part_path(directory, k)}: missing or damaged; expected --out on a file '
                    'system that all ranks share'
                )
            columns, header = part
            read.append(columns)
            if total is not None:
                total.merge(
                    len(columns['image']),
                    len(header['corrupt']),
                    [(i, message) for i, message in header['corrupt'] if message],
                )
        image, count, label, score, bbox = (
            np.concatenate([columns[name] for columns in read])
            for name in ('image', 'count', 'label', 'score', 'bbox')
        )
        row_image = np.repeat(image, count)
        order = np.argsort(row_image, kind='stable')
        # The images of a window are consecutive in the index, which is sorted by id.
        first = int(image.min())
        yield Detections(
            [index.image_id(i) for i in range(first, first + len(image))],
            (row_image[order] - first).astype(np.int32),
            label[order],
            score[order],
            bbox[order],
        )
