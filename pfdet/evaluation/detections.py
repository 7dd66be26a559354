"""Detections as columns, and their files."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.evaluation.detections_table import (
    CLASSES_KEY,
    COLUMNS,
    CORNERS,
    IMAGES_KEY,
    NUMBERS,
    is_parquet,
    listed,
    open_parquet,
    read_csv,
    where,
)
from pfdet.evaluation.prediction_strings import is_submission, read_submission
from pfdet.openimages.classes import Classes

_SCHEMA = pa.schema([(name, pa.float32() if name in NUMBERS else pa.string()) for name in COLUMNS])
# Rows of a Parquet file that are written and read at once: some 4 MB.
ROW_GROUP = 1 << 17
# Coordinates this far out of [0, 1] are rounding, and are clipped.
_ROUNDING = 1e-5


@dataclass
class Detections:
    """Detections in a set of images.

    Attributes:
        image_ids (sequence of str): Every image predicted, each once, also those without a
            detection.
        image (int32, :math:`(D,)`): Index into ``image_ids``.
        label (int32, :math:`(D,)`): Class.
        score (float32, :math:`(D,)`): Higher is surer.
        bbox (float32, :math:`(D, 4)`): ``(y_min, x_min, y_max, x_max)`` in [0, 1].
    """

    image_ids: Sequence[str]
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    bbox: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


def write_detections(path: str | os.PathLike, detections: Detections, classes: Classes) -> None:
    """Write detections to a file: :func:`detections_writer` in one go.

    Args:
        path (path): Ends in ``.parquet`` or ``.csv``.
        detections (Detections): What to write.
        classes (Classes): Gives the ``LabelName`` of each label.

    Raises:
        InputError: If the name ends in something else.
        ValueError: If a score is not finite or a box not in the image.
    """
    with detections_writer(path, classes) as write:
        write(detections)


@contextlib.contextmanager
def detections_writer(
    path: str | os.PathLike, classes: Classes
) -> Iterator[Callable[[Detections], None]]:
    """Write detections block by block to a file that pandas, polars and duckdb read.

    The columns are ``ImageID, LabelName, Score, XMin, XMax, YMin, YMax``. Images without
    detections are kept: in the metadata of a Parquet file under ``images_without_detections``;
    in a CSV file as a row with nothing but the ``ImageID``. The metadata of a Parquet file also
    has the MIDs that were asked for, under ``classes``: an ensemble goes by them.

    In memory are a block and a row group. How the detections are cut into blocks makes no
    difference to the file, which appears when the ``with`` statement ends without an exception.

    Args:
        path (path): Ends in ``.parquet`` or ``.csv``.
        classes (Classes): Gives the ``LabelName`` of each label.

    Yields:
        callable: ``write(detections)``, for the detections of whole images, none of which was in
        a block before. It raises :class:`ValueError` if a score is not finite or a box not in the
        image.

    Raises:
        InputError: If the name ends in something else.
    """
    rows_of = _ParquetRows if is_parquet(path) else _CSVRows
    with replace_when_done(path) as unfinished:
        rows = rows_of(unfinished, classes)
        try:
            yield rows.write
            rows.finish()
        finally:
            rows.close()


class _Rows:
    # Gathers blocks to groups of rows, and the images that no row speaks of.

    def __init__(self, path: Path, classes: Classes):
        self.path = path
        self.mids = pa.array(classes.mids, pa.string())
        self.empty_ids: list[str] = []
        self.waiting = _SCHEMA.empty_table()

    def write(self, detections: Detections) -> None:
        for column, wrong in _wrong_rows(
            detections.score, detections.bbox, np.ones(len(detections), bool)
        ):
            raise ValueError(f'detection {wrong[0]}: {column}')
        empty = np.ones(len(detections.image_ids), bool)
        empty[detections.image] = False
        self.empty_ids.extend(detections.image_ids[i] for i in np.flatnonzero(empty))
        ids = pa.array(list(detections.image_ids), pa.string())
        for begin in range(0, len(detections), ROW_GROUP):
            rows = slice(begin, begin + ROW_GROUP)
            bbox = np.clip(detections.bbox[rows], 0, 1).astype(np.float32)
            block = pa.table(
                [
                    ids.take(pa.array(detections.image[rows])),
                    self.mids.take(pa.array(detections.label[rows])),
                    detections.score[rows].astype(np.float32),
                    *(np.ascontiguousarray(bbox[:, k]) for k in (1, 3, 0, 2)),
                ],
                schema=_SCHEMA,
            )
            self.waiting = pa.concat_tables([self.waiting, block])
            if self.waiting.num_rows >= ROW_GROUP:
                self.write_group(self.waiting.slice(0, ROW_GROUP).combine_chunks())
                self.waiting = self.waiting.slice(ROW_GROUP)

    def finish(self) -> None:
        if self.waiting.num_rows:
            self.write_group(self.waiting.combine_chunks())


class _ParquetRows(_Rows):
    def __init__(self, path: Path, classes: Classes):
        super().__init__(path, classes)
        self.metadata = {CLASSES_KEY: json.dumps(list(classes.mids))}
        self.file = self._open(path)

    def _open(self, path: Path) -> pq.ParquetWriter:
        # Strings that repeat are to be read as categories: they take far less memory.
        category = pa.dictionary(pa.int32(), pa.string())
        return pq.ParquetWriter(
            path,
            pa.schema(
                [(f.name, category if f.type == pa.string() else f.type) for f in _SCHEMA],
                self.metadata,
            ),
            compression='zstd',
        )

    def write_group(self, rows: pa.Table) -> None:
        self.file.write_table(
            pa.table(
                [
                    pc.dictionary_encode(column) if column.type == pa.string() else column
                    for column in rows.columns
                ],
                schema=self.file.schema,
            )
        )

    def finish(self) -> None:
        super().finish()
        empty = {IMAGES_KEY: json.dumps(self.empty_ids)}
        if hasattr(self.file, 'add_key_value_metadata'):
            self.file.add_key_value_metadata(empty)
            return
        # Before pyarrow 16 it takes a copy to add metadata to what is written.
        self.file.close()
        self.metadata.update(empty)
        with replace_when_done(self.path) as copy:
            self.file = self._open(copy)
            with open(self.path, 'rb') as f:
                whole = pq.ParquetFile(f)
                for group in range(whole.num_row_groups):
                    self.file.write_table(whole.read_row_group(group).cast(self.file.schema))
            self.file.close()

    def close(self) -> None:
        self.file.close()


class _CSVRows(_Rows):
    def __init__(self, path: Path, classes: Classes):
        super().__init__(path, classes)
        self.file = pa.csv.CSVWriter(path, _SCHEMA)

    def write_group(self, rows: pa.Table) -> None:
        self.file.write_table(rows)

    def finish(self) -> None:
        super().finish()
        if self.empty_ids:
            self.write_group(
                pa.table(
                    [pa.array(self.empty_ids, pa.string())]
                    + [pa.nulls(len(self.empty_ids), f.type) for f in list(_SCHEMA)[1:]],
                    schema=_SCHEMA,
                )
            )

    def close(self) -> None:
        self.file.close()


def read_detections(path: str | os.PathLike, classes: Classes) -> Detections:
    """Read a Parquet or CSV file of detections, whoever wrote it, or a submission to Kaggle.

    Columns are found by name, in any order, among any others. A row that has nothing but an
    ``ImageID`` says that the image was predicted. A CSV file that begins with the header
    ``ImageId,PredictionString`` is read as a submission.

    Args:
        path (path): Ends in ``.parquet`` or ``.csv``, as :func:`write_detections` writes.
        classes (Classes): The classes that may occur.

    Returns:
        Detections: Images sorted by id, detections in the order of the file.

    Raises:
        InputError: If the file cannot be read or is cut off, lacks a column, or has a row
            with an unknown class, a score that is no finite number, or a box outside [0, 1] or
            whose corners are in the wrong order. The message names file and row.
    """
    more_ids = []
    if is_parquet(path):
        with open_parquet(path) as file:
            table = file.read(columns=list(COLUMNS))
            more_ids = listed(path, file, IMAGES_KEY) or []
    elif is_submission(path):
        table = read_submission(path, classes)
    else:
        table = read_csv(path)
    rows = check_rows(path, table, classes)
    # A dictionary may hold values that no row uses.
    used = np.unique(rows.image)
    image_ids = sorted({rows.image_ids[i] for i in used}.union(more_ids))
    place = {image_id: i for i, image_id in enumerate(image_ids)}
    to_place = np.full(len(rows.image_ids), -1, np.int32)
    to_place[used] = [place[rows.image_ids[i]] for i in used]
    detected = np.flatnonzero(rows.label >= 0)
    return Detections(
        image_ids=image_ids,
        image=to_place[rows.image[detected]],
        label=rows.label[detected],
        score=rows.score[detected],
        bbox=rows.bbox[detected],
    )


def check_rows(
    path: str | os.PathLike, table: pa.Table, classes: Classes, first_row: int = 0
) -> Detections:
    """Check rows of a file, and make arrays of them.

    Args:
        path (path): For messages.
        table (pyarrow.Table): With the columns :data:`~pfdet.evaluation.detections_table.COLUMNS`.
        classes (Classes): The classes that may occur.
        first_row (int): The place in the file of the table's first row.

    Returns:
        Detections: One for each row, in order; the label is -1 where the row has nothing but an
        image. ``image_ids`` are in no order, and may be more than the rows have.

    Raises:
        InputError: As :func:`read_detections`.
    """
    image, ids = _codes(table.column('ImageID'))
    label, mids = _codes(table.column('LabelName'))
    numbers = {name: _to_float(table.column(name)) for name in NUMBERS}

    bad = np.flatnonzero((image < 0) | np.array([not i for i in ids] + [False])[image])
    if len(bad):
        raise InputError(
            f'{where(path, first_row + bad[0])}: no ImageID; expected the id of an image'
        )
    says_nothing = label < 0
    for values in numbers.values():
        says_nothing &= np.isnan(values)
    class_of = np.array([classes.ids.get(mid, -1) for mid in mids] + [-1], np.int32)
    bad = np.flatnonzero((class_of[label] < 0) & ~says_nothing)
    if len(bad):
        mid = mids[label[bad[0]]] if label[bad[0]] >= 0 else ''
        raise InputError(
            f'{where(path, first_row + bad[0])}: LabelName {mid!r} is not one of the '
            f'{len(classes)} classes; expected one such as {classes.mids[0]}'
        )
    bbox = np.stack([numbers[name] for name in CORNERS], axis=1)
    for what, wrong in _wrong_rows(numbers['Score'], bbox, ~says_nothing):
        raise InputError(f'{where(path, first_row + wrong[0])}: {what}')
    return Detections(ids, image, class_of[label], numbers['Score'], np.clip(bbox, 0, 1))


def _wrong_rows(
    score: np.ndarray, bbox: np.ndarray, judged: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    # What is wrong, in words for the first row, and all the rows where it is.
    def problem(wrong: np.ndarray, what: str) -> Iterator[tuple[str, np.ndarray]]:
        rows = np.flatnonzero(wrong & judged)
        if len(rows):
            box = ', '.join(f'{name} {x:.6g}' for name, x in zip(CORNERS, bbox[rows[0]]))
            yield what.format(score=score[rows[0]], box=box), rows

    yield from problem(~np.isfinite(score), 'Score is {score}; expected a finite number')
    # Not inside rather than outside, so that NaN is caught.
    inside = ((bbox >= -_ROUNDING) & (bbox <= 1 + _ROUNDING)).all(axis=1)
    yield from problem(~inside, 'box ({box}); expected numbers from 0 to 1')
    ordered = (bbox[:, :2] <= bbox[:, 2:]).all(axis=1)
    yield from problem(~ordered, 'box ({box}); expected YMin <= YMax and XMin <= XMax')


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    # Index of each row's string in a list of strings; -1 for null.
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
