"""Prediction of a whole data set on any number of ranks, which can be killed and go on.

Images are cut into parts and batches by their order and shapes alone, so the number of ranks does
not change what is found: on one kind of processor and with equally many threads a rank, the file is
the same to the byte. With other ones it is equal up to rounding (docs/reproducibility.md).

A finished part is a file beside the output, with checksums; run again, only missing parts are
predicted. At the end the first rank puts them together, image by image in order of their ids, a
window of images in memory at a time.
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
from pfdet.inference.predict import (
    Found,
    PredictSettings,
    as_detections,
    batches_alike,
    detect,
    padded_shapes,
)
from pfdet.openimages.classes import Classes
from pfdet.openimages.column_file import map_columns, verify_columns, write_columns
from pfdet.openimages.corrupt_images import CorruptImages
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex

_KIND = 'part of a prediction'
# Images among which those of like shape are sought for batches, and of which the detections are in
# memory when parts are put together.
_WINDOW = 4096


class Part(NamedTuple):
    """Some batches of images.

    Attributes:
        window (int): The window of images they are from.
        batches (tuple of int arrays): Images of the index.
    """

    window: int
    batches: tuple[np.ndarray, ...]

    @property
    def images(self) -> np.ndarray:
        return np.concatenate(self.batches)


def plan_parts(shapes: np.ndarray, batch_size: int, window: int = _WINDOW) -> list[Part]:
    """Cut a data set into parts.

    A part is long enough for there to be some 4,000 of a large data set, few files for a file
    system and enough to keep 512 ranks equally busy.

    Args:
        shapes (int array): Of :func:`~pfdet.inference.predict.padded_shapes`, of all images.
        batch_size (int): At most so many images that are padded alike in a batch.
        window (int): Parts are from so many images that follow one another.

    Returns:
        list of Part: Windows in order, and in these by shape, so that neighbours take about
        equally long.
    """
    size = min(max(len(shapes) // 4096, 8), 64)
    parts = []
    for begin in range(0, len(shapes), window):
        waiting, n = [], 0
        for batch in batches_alike(shapes[begin : begin + window], batch_size):
            waiting.append(batch + begin)
            n += len(batch)
            if n >= size:
                parts.append(Part(begin // window, tuple(waiting)))
                waiting, n = [], 0
        if waiting:
            parts.append(Part(begin // window, tuple(waiting)))
    return parts


def predict_to_file(
    detector,
    dataset: OpenImagesDataset,
    out: Path,
    classes: Classes,
    settings: PredictSettings,
    about: dict[str, Any],
    comm,
    progress: Callable[[Iterable], Iterable] = iter,
    corrupt: CorruptImages | None = None,
    restart: bool = False,
) -> dict[str, Any] | None:
    """Detect the objects of a data set and write them to a file; every rank calls this.

    Until the file is there, ``out`` with ``.parts`` appended is a directory of what was done.

    Args:
        detector, dataset, settings, progress, corrupt: See :func:`pfdet.inference.predict.predict`.
        out (path): ``.parquet`` or ``.csv``, on a file system that all ranks share.
        classes (Classes): The detector's.
        about (dict): What else the detections depend on, such as a checksum of the weights; can be
            JSON. Parts of a run that differs in it are not touched.
        comm (ChainerMN communicator): The ranks.
        restart (bool): Drop the parts of an earlier run, whatever it was.

    Returns:
        dict: On the first rank: ``'images'``, ``'detections'``, ``'resumed'``, which is the number
        of images that were there, and ``'corrupt'``, a :class:`CorruptImages` over all ranks and
        runs or :obj:`None`. On other ranks :obj:`None`.

    Raises:
        InputError: An image cannot be read, too many cannot, or the parts that are there are of
            another run.
    """
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
    mine = range(comm.rank, len(parts), comm.size)
    done = [k for k in mine if _read_part(directory, k, parts[k], corrupt is not None)]
    done = sorted(sum(comm.mpi_comm.allgather(done), []))
    open_ = sorted(set(range(len(parts))).difference(done))[comm.rank :: comm.size]

    batches = [batch for k in open_ for batch in parts[k].batches]
    found = detect(detector, dataset, batches, settings, progress, corrupt)
    for k in open_:
        _write_part(
            directory,
            k,
            parts[k],
            {i: each for _ in parts[k].batches for i, each in next(found).items()},
            corrupt,
        )
    # To its end, for the progress bar's sake.
    for _ in found:
        pass
    comm.mpi_comm.Barrier()
    if comm.rank > 0:
        return None
    count = _merge(directory, parts, dataset.index, out, classes, corrupt)
    shutil.rmtree(directory)
    return {**count, 'resumed': sum(len(parts[k].images) for k in done)}


def index_checksum(index: AnnotationIndex) -> str:
    """A checksum of which images an index has, and of their sizes; annotations do not matter."""
    digest = hashlib.sha256()
    for name in 'id_offsets', 'id_bytes', 'image_size', 'image_suffix':
        digest.update(np.ascontiguousarray(index.columns[name]).view(np.uint8).reshape(-1))
    return digest.hexdigest()


def file_checksum(path: Path) -> str:
    """A checksum of a file's content."""
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        while block := f.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def _begin(directory: Path, about: dict[str, Any], restart: bool) -> None:
    path = directory / 'about.json'
    if restart and path.exists():
        shutil.rmtree(directory)
    if not path.exists():
        with replace_when_done(path) as unfinished:
            unfinished.write_text(json.dumps(about, indent=1) + '\n', encoding='utf-8')
        return
    try:
        before = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as e:
        raise InputError(f'{path}: {e}; give --restart to begin anew') from e
    differing = _differing(before, about)
    if differing:
        raise InputError(
            f'{directory} has parts of another prediction ({"; ".join(differing[:3])}); give '
            '--restart to drop them, or another --out'
        )


def _differing(a: Any, b: Any, name: str = '') -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            line
            for key in sorted(a.keys() | b.keys())
            for line in _differing(a.get(key), b.get(key), f'{name}.{key}' if name else key)
        ]
    return [] if a == b else [f'{name} was {str(a)[:40]}, now {str(b)[:40]}']


def _part_path(directory: Path, k: int) -> Path:
    return directory / f'{k:06}.part'


def _write_part(
    directory: Path, k: int, part: Part, found: dict[int, Found], corrupt: CorruptImages | None
) -> None:
    images = part.images
    each = as_detections([''] * len(images), [found.get(i) for i in images.tolist()])
    unread = sorted(set(images.tolist()).difference(found))
    messages = dict(corrupt.first) if corrupt is not None else {}
    write_columns(
        _part_path(directory, k),
        _KIND,
        {
            'image': images.astype(np.int32),
            'count': np.bincount(each.image, minlength=len(images)).astype(np.int32),
            'label': each.label,
            'score': each.score,
            'bbox': each.bbox,
        },
        {'corrupt': [[i, messages.get(i, '')] for i in unread]},
    )


def _read_part(
    directory: Path, k: int, part: Part, may_be_corrupt: bool
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    # None where it must be predicted: it is missing, damaged, of other images, or without images
    # that could not be read when that was allowed.
    path = _part_path(directory, k)
    try:
        columns, header = map_columns(path, _KIND)
        verify_columns(path, columns, header)
    except InputError:
        return None
    if not np.array_equal(columns['image'], part.images) or (
        header['corrupt'] and not may_be_corrupt
    ):
        return None
    return columns, header


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
        total = CorruptImages(corrupt.max_share, corrupt.least, corrupt.n_first)
    n_detection = 0
    with detections_writer(out, classes) as write:
        for window in _windows(directory, parts, index, total):
            n_detection += len(window)
            write(window)
        if total is not None:
            total.check()
    return {'images': len(index), 'detections': n_detection, 'corrupt': total}


def _windows(
    directory: Path, parts: list[Part], index: AnnotationIndex, total: CorruptImages | None
) -> Iterator[Detections]:
    window_of = np.array([part.window for part in parts], np.int64)
    for window in range(int(window_of.max(initial=-1)) + 1):
        read = []
        for k in np.flatnonzero(window_of == window).tolist():
            part = _read_part(directory, k, parts[k], total is not None)
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
        # A window's images follow one another in the index, which is sorted by id.
        first = int(image.min())
        yield Detections(
            [index.image_id(i) for i in range(first, first + len(image))],
            (row_image[order] - first).astype(np.int32),
            label[order],
            score[order],
            bbox[order],
        )
