"""Detections of a set of images, in memory and in files.

Files are Parquet or CSV, described at :func:`detections_writer`. Submissions to Kaggle can be read,
too. Files larger than memory are written and read block by block.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfdet.atomic_write import replace_when_done
from pfdet.boxes.pairs import is_first
from pfdet.errors import InputError
from pfdet.evaluation.detections_file import (
    CLASSES_KEY,
    COLUMNS,
    IMAGES_KEY,
    NUMBERS,
    CSVWriter,
    ParquetWriter,
    csv_tables,
    is_parquet,
    open_parquet,
    read_metadata_list,
    row_location,
)
from pfdet.evaluation.invalid_rows import CORNERS, bad_rows
from pfdet.evaluation.prediction_strings import is_submission, submission_tables
from pfdet.files.reading import reading
from pfdet.openimages.classes import Classes
from pfdet.openimages.identifiers import IMAGE_ID, normal_image_id

_ROWS_PER_BLOCK = 1 << 17
# Suppression compares all pairs of detections of an image and class.
_MAX_PER_IMAGE = 100_000


@dataclass
class Detections:
    """Detections in a set of images.

    Attributes:
        image_ids (sequence of str): The predicted images, each once, including those without
            detections.
        image (int32, :math:`(D,)`): Index into ``image_ids``.
        label (int32, :math:`(D,)`): Class.
        score (float32, :math:`(D,)`): Confidence.
        bbox (float32, :math:`(D, 4)`): ``(y_min, x_min, y_max, x_max)`` in [0, 1].
    """

    image_ids: Sequence[str]
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    bbox: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: np.ndarray) -> 'Detections':
        """Select detections; the images stay the same.

        Args:
            rows (int or bool array): Indices, or a mask :math:`(D,)`.

        Returns:
            Detections: The selected ones, with the same ``image_ids``.
        """
        return Detections(
            self.image_ids, self.image[rows], self.label[rows], self.score[rows], self.bbox[rows]
        )

    def slice_images(self, begin: int, end: int) -> 'Detections':
        """Select a range of images and their detections.

        Args:
            begin, end (int): The range of indices into ``image_ids``. Detections must be sorted by
                image.

        Returns:
            Detections: The images of the range.
        """
        low, high = np.searchsorted(self.image, [begin, end])
        return Detections(
            self.image_ids[begin:end],
            self.image[low:high] - np.int32(begin),
            self.label[low:high],
            self.score[low:high],
            self.bbox[low:high],
        )


def no_detections(image_ids: Sequence[str]) -> Detections:
    """Return images without detections."""
    none = np.zeros(0, np.int32)
    return Detections(image_ids, none, none, np.zeros(0, np.float32), np.zeros((0, 4), np.float32))


def write_detections(path: str | os.PathLike, detections: Detections, classes: Classes) -> None:
    """Write detections to a file, in the format of :func:`detections_writer`.

    Args:
        path (path): A name ending in ``.parquet`` or ``.csv``.
        detections (Detections): The detections.
        classes (Classes): Gives the ``LabelName`` and the ``Name`` of each label.

    Raises:
        InputError: The name has another ending.
        ValueError: A score is not finite, or a box is not inside the image.
    """
    with detections_writer(path, classes) as write:
        write(detections)


@contextlib.contextmanager
def detections_writer(
    path: str | os.PathLike, classes: Classes
) -> Iterator[Callable[[Detections], None]]:
    """Write detections block by block to a file that pandas, polars and duckdb can read.

    The columns are ``ImageID, LabelName, Score, XMin, XMax, YMin, YMax, Name``. ``Name`` is that of
    the class, for people; readers of this package do not need it. Images without detections are
    recorded: in a Parquet file as a JSON list in the metadata ``images_without_detections``, in a
    CSV file as a row with only the ``ImageID``. The metadata ``classes`` of a Parquet file lists
    the MIDs of the model's classes, which ensembling needs, and ``class_names`` their names.

    Memory holds one block and one row group. The file does not depend on how the detections are
    split into blocks. It appears when the ``with`` statement ends without an exception.

    Args:
        path (path): A name ending in ``.parquet`` or ``.csv``.
        classes (Classes): Gives the ``LabelName`` and the ``Name`` of each label.

    Yields:
        callable: ``write(detections)``, for all detections of images that were not in an earlier
        block. It raises :class:`ValueError` if a score is not finite or a box is not inside the
        image.

    Raises:
        InputError: The name has another ending.
    """
    writer_type = ParquetWriter if is_parquet(path) else CSVWriter
    with replace_when_done(path) as unfinished:
        writer = writer_type(unfinished, classes)
        try:
            yield lambda d: writer.write(d.image_ids, d.image, d.label, d.score, d.bbox)
            writer.finish()
        finally:
            writer.close()


def read_detections(path: str | os.PathLike, classes: Classes) -> Detections:
    """Read a Parquet or CSV file of detections, or a submission to Kaggle.

    Columns are found by name. Their order does not matter, and other columns are ignored. A row
    with only an ``ImageID`` records a predicted image. A CSV file with the header
    ``ImageId,PredictionString`` is read as a submission.

    Args:
        path (path): A name ending in ``.parquet`` or ``.csv``.
        classes (Classes): The classes that may occur.

    Returns:
        Detections: Images sorted by id, detections in the order of the file.

    Raises:
        InputError: The file cannot be read or is truncated, lacks a column, or has a row with an
            unknown class, a score that is not finite, or a box outside [0, 1] or with its corners
            in the wrong order. The message names file and row.
    """
    other_ids = []
    if is_parquet(path):
        with open_parquet(path) as file:
            table = file.read(columns=list(COLUMNS))
            other_ids = read_metadata_list(path, file, IMAGES_KEY) or []
    elif is_submission(path):
        table = pa.concat_tables(submission_tables(path, classes))
    else:
        table = pa.concat_tables(csv_tables(path))
    rows = _check_rows(path, table, classes)
    # A dictionary may hold values that no row uses.
    used = np.unique(rows.image)
    image_ids = sorted({rows.image_ids[i] for i in used.tolist()}.union(other_ids))
    position = {image_id: i for i, image_id in enumerate(image_ids)}
    to_position = np.full(len(rows.image_ids), -1, np.int32)
    to_position[used] = [position[rows.image_ids[i]] for i in used.tolist()]
    detected = rows.take(np.flatnonzero(rows.label >= 0))
    return Detections(
        image_ids, to_position[detected.image], detected.label, detected.score, detected.bbox
    )


def read_model_classes(path: str | os.PathLike) -> list[str] | None:
    """Read which classes the model behind a file can detect.

    Args:
        path (path): A file of detections.

    Returns:
        list of str: MIDs, or :obj:`None` if the file does not list them.

    Raises:
        InputError: The file cannot be read.
    """
    if not is_parquet(path):
        return None
    with open_parquet(path) as file:
        return read_metadata_list(path, file, CLASSES_KEY)


def images_without_detections(path: str | os.PathLike) -> list[str]:
    """Read which images of a Parquet file have no detections.

    Args:
        path (path): A Parquet file of detections.

    Returns:
        list of str: Image ids.

    Raises:
        InputError: The file cannot be read.
    """
    with open_parquet(path) as file:
        return read_metadata_list(path, file, IMAGES_KEY) or []


def row_blocks(
    path: str | os.PathLike, classes: Classes, n_row: int = _ROWS_PER_BLOCK
) -> Iterator[Detections]:
    """Read the rows of a file in their order, block by block.

    Args:
        path (path): A file as for :func:`read_detections`.
        classes (Classes): The classes that may occur.
        n_row (int): Number of rows read at a time from a Parquet file.

    Yields:
        Detections: One element per row. A row with only an ``ImageID`` has the label -1.
        ``image_ids`` are not sorted, may include ids that no row uses, and may recur in other
        blocks.

    Raises:
        InputError: As for :func:`read_detections`.
    """
    first_row = 0
    with contextlib.ExitStack() as stack:
        tables: Iterator[pa.Table]
        if is_parquet(path):
            file = stack.enter_context(open_parquet(path, in_batches=True))
            batches = file.iter_batches(n_row, columns=list(COLUMNS))
            tables = (pa.Table.from_batches([batch]) for batch in batches)
        elif is_submission(path):
            tables = submission_tables(path, classes)
        else:
            tables = csv_tables(path)
        for table in tables:
            yield _check_rows(path, table, classes, first_row)
            first_row += table.num_rows


def blocks_of_images(path: str | os.PathLike, classes: Classes, n_row: int) -> Iterator[Detections]:
    """Read a sorted file block by block, never splitting the detections of an image.

    Args:
        path (path): A Parquet file, sorted by image.
        classes (Classes): The classes that may occur.
        n_row (int): Number of rows read at a time. Memory holds more rows only if an image has
            more.

    Yields:
        Detections: Blocks of at least one image, in order of the image ids.

    Raises:
        InputError: The file cannot be read, or has a bad row.
    """
    rest = None
    for rows in row_blocks(path, classes, n_row):
        # Dictionaries are not sorted and may hold values that no row uses.
        first = is_first(rows.image)
        block = Detections(
            [rows.image_ids[c] for c in rows.image[first].tolist()],
            (np.cumsum(first) - 1).astype(np.int32),
            rows.label,
            rows.score,
            rows.bbox,
        )
        block = block if rest is None else _join_blocks(rest, block)
        _check_number(path, block)
        n_complete = len(block.image_ids) - 1
        if n_complete > 0:
            yield _without_empty_rows(block.slice_images(0, n_complete))
            block = block.slice_images(n_complete, n_complete + 1)
        rest = block if len(block.image_ids) else None
    if rest is not None:
        yield _without_empty_rows(rest)


def _check_number(path: str | os.PathLike, block: Detections) -> None:
    n = np.bincount(block.image, minlength=1)
    if n.max() > _MAX_PER_IMAGE:
        raise InputError(
            f'{path}: more than {_MAX_PER_IMAGE:,} rows of image '
            f'{block.image_ids[int(n.argmax())]!r}; expected detections of a model'
        )


def _join_blocks(a: Detections, b: Detections) -> Detections:
    # The first image of b may be the last image of a.
    shared = bool(b.image_ids) and a.image_ids[-1] == b.image_ids[0]
    shift = len(a.image_ids) - shared
    label, score, bbox = (
        np.concatenate([getattr(a, name), getattr(b, name)]) for name in ('label', 'score', 'bbox')
    )
    return Detections(
        [*a.image_ids, *b.image_ids[shared:]],
        np.concatenate([a.image, b.image + np.int32(shift)]),
        label,
        score,
        bbox,
    )


def _without_empty_rows(rows: Detections) -> Detections:
    # Rows with only an image id are not detections; their images are in image_ids.
    keep = rows.label >= 0
    return rows if keep.all() else rows.take(keep)


def _check_rows(
    path: str | os.PathLike, table: pa.Table, classes: Classes, first_row: int = 0
) -> Detections:
    # One detection per row, in order. The label is -1 where a row has only an image id. The image
    # ids are not sorted and may include ids that no row uses. first_row is the index in the file of
    # the table's first row, for messages.
    with reading(path, 'a complete file of detections', 'cannot read the detections'):
        # Damaged dictionaries and codes crash Arrow or give wrong names where they are used.
        table.validate(full=True)
    image, ids = _dictionary_codes(table.column('ImageID'))
    label, mids = _dictionary_codes(table.column('LabelName'))
    numbers = {name: _to_float(table.column(name)) for name in NUMBERS}

    bad = np.flatnonzero((image < 0) | np.array([not i.strip() for i in ids] + [False])[image])
    if len(bad):
        raise InputError(
            f'{row_location(path, first_row + bad[0])}: no ImageID; expected the id of an image'
        )
    bad = np.flatnonzero(np.array([normal_image_id(i) is None for i in ids] + [False])[image])
    if len(bad):
        raise InputError(
            f'{row_location(path, first_row + bad[0])}: expected ImageID to be {IMAGE_ID}, got '
            f'{ids[image[bad[0]]][:60]!r}'
        )
    has_detection = label >= 0
    for values in numbers.values():
        has_detection |= ~np.isnan(values)
    class_of = np.array([classes.ids.get(mid, -1) for mid in mids] + [-1], np.int32)
    bad = np.flatnonzero((class_of[label] < 0) & has_detection)
    if len(bad):
        mid = mids[label[bad[0]]] if label[bad[0]] >= 0 else ''
        raise InputError(
            f'{row_location(path, first_row + bad[0])}: LabelName {mid!r} is not one of the '
            f'{len(classes)} classes; expected one such as {classes.mids[0]}'
        )
    bbox = np.stack([numbers[name] for name in CORNERS], axis=1)
    for problem, rows in bad_rows(numbers['Score'], bbox, has_detection):
        raise InputError(f'{row_location(path, first_row + rows[0])}: {problem}')
    return Detections(ids, image, class_of[label], numbers['Score'], np.clip(bbox, 0, 1))


def _dictionary_codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    # For each row an index into a list of strings, -1 for null; and the list.
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    if column.num_chunks == 0:
        return np.zeros(0, np.int32), []
    column = column.unify_dictionaries()
    indices = [chunk.indices.cast(pa.int32()).fill_null(-1).to_numpy() for chunk in column.chunks]
    dictionary = column.chunk(0).dictionary
    return np.concatenate(indices), dictionary.fill_null('').to_pylist()


def _to_float(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column.cast(pa.float32(), safe=False), np.nan).to_numpy()
