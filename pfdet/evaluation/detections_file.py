"""The Parquet and CSV formats of detections: opening files, checking and writing rows.

:mod:`pfdet.evaluation.detections` builds on this module.
"""

import abc
import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.evaluation.csv_rows import csv_rows, parse_blocks, read_header
from pfdet.evaluation.invalid_rows import CORNERS, bad_rows
from pfdet.evaluation.parquet_checksum import (
    VERIFY_PAGES,
    WRITE_PAGE_CHECKSUMS,
    append_checksum,
    verify_checksum,
)
from pfdet.evaluation.parquet_size import check_parquet_size
from pfdet.files.json_file import parse_json
from pfdet.files.reading import reading
from pfdet.files.regular import regular_file
from pfdet.openimages.classes import Classes
from pfdet.openimages.identifiers import IMAGE_ID, normal_image_id

#: Columns that every file has.
COLUMNS = ('ImageID', 'LabelName', 'Score', 'XMin', 'XMax', 'YMin', 'YMax')
#: The last column of files of this version: the name of the class, for people. Readers ignore it.
NAME = 'Name'
NUMBERS = ('Score', *CORNERS)
# Keys of a Parquet file's metadata. Each value is a JSON list of strings: the ids of images without
# detections, and the MIDs and the names of the model's classes, in the same order.
IMAGES_KEY = b'images_without_detections'
CLASSES_KEY = b'classes'
NAMES_KEY = b'class_names'
# Rows of a Parquet row group, about 4 MB.
ROW_GROUP = 1 << 17
_SCHEMA = pa.schema(
    [(name, pa.float32() if name in NUMBERS else pa.string()) for name in (*COLUMNS, NAME)]
)
# Columns that are read from text; ids and class names recur.
TEXT_SCHEMA = pa.schema(
    [
        (name, pa.float32() if name in NUMBERS else pa.dictionary(pa.int32(), pa.string()))
        for name in COLUMNS
    ]
)
_BUFFER = 1 << 16
_PARQUET = 'a complete Parquet file of detections'


def is_parquet(path: str | os.PathLike) -> bool:
    """Whether a file name ends in ``.parquet`` rather than ``.csv``.

    Args:
        path (path): The file name.

    Returns:
        bool: True for Parquet, false for CSV.

    Raises:
        InputError: The name has another ending.
    """
    suffix = Path(path).suffix
    if suffix not in ('.parquet', '.csv'):
        raise InputError(f'{path}: expected a file of detections named .parquet or .csv')
    return suffix == '.parquet'


@contextlib.contextmanager
def open_parquet(path: str | os.PathLike, in_batches: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of detections and check its columns.

    Args:
        path (path): The file.
        in_batches (bool): Optimize for ``iter_batches``: buffers take about 8 MB instead of several
            row groups.

    Yields:
        pyarrow.parquet.ParquetFile: The file, with all columns in the right types.

    Raises:
        InputError: The file cannot be read, on opening or inside the ``with`` statement, or its
            columns are wrong.
    """
    # Given a name, pyarrow would look for a partitioned data set.
    with (
        reading(path, _PARQUET, 'cannot read the detections'),
        open(path, 'rb', opener=regular_file) as f,
    ):
        verify_checksum(path, f)
        file = pq.ParquetFile(
            f,
            read_dictionary=['ImageID', 'LabelName'],
            pre_buffer=not in_batches,
            buffer_size=_BUFFER if in_batches else 0,
            **VERIFY_PAGES,
        )
        _check_columns(path, file.schema_arrow.names)
        _check_types(path, file.schema_arrow)
        check_parquet_size(path, file.metadata, os.fstat(f.fileno()).st_size, in_batches)
        yield file


def _check_types(path: str | os.PathLike, schema: pa.Schema) -> None:
    for name in COLUMNS:
        type_ = schema.field(name).type
        if pa.types.is_dictionary(type_):
            type_ = type_.value_type
        if name in NUMBERS:
            valid = pa.types.is_floating(type_) or pa.types.is_integer(type_)
        else:
            valid = pa.types.is_string(type_) or pa.types.is_large_string(type_)
        if not valid and not pa.types.is_null(type_):
            expected = 'numbers' if name in NUMBERS else 'strings'
            raise InputError(f'{path}: column {name} holds {type_}; expected {expected}')


def _check_columns(path: str | os.PathLike, names: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(
            f'{path}: no column {", ".join(missing)}; expected {",".join(COLUMNS)}, found '
            f'{",".join(names)[:120]}'
        )
    repeated = [name for name in COLUMNS if list(names).count(name) > 1]
    if repeated:
        raise InputError(f'{path}: column {repeated[0]} occurs twice; expected every column once')


def read_metadata_list(
    path: str | os.PathLike, file: pq.ParquetFile, key: bytes
) -> list[str] | None:
    """Read a list of strings from the metadata of a Parquet file.

    Args:
        path (path): The name of the file, for messages.
        file (pyarrow.parquet.ParquetFile): The open file.
        key (bytes): :data:`IMAGES_KEY`, :data:`CLASSES_KEY` or :data:`NAMES_KEY`.

    Returns:
        list of str: The list, or :obj:`None` if the metadata lacks the key.

    Raises:
        InputError: The value is not a list of strings.
    """
    text = (file.metadata.metadata or {}).get(key)
    if text is None:
        return None
    try:
        values = parse_json(path, text, 'a list of strings')
    except InputError:
        values = None
    if not isinstance(values, list) or not all(isinstance(i, str) and i for i in values):
        raise InputError(f'{path}: expected its metadata {key.decode()} to be a list of strings')
    if key == IMAGES_KEY:
        for image_id in values:
            if normal_image_id(image_id) is None:
                found = f'{key.decode()} has {image_id[:60]!r}'
                raise InputError(f'{path}: its metadata {found}; expected {IMAGE_ID}')
    return values


def csv_tables(path: str | os.PathLike) -> Iterator[pa.Table]:
    """Read a CSV file of detections block by block.

    Args:
        path (path): The file, see :mod:`pfdet.evaluation.csv_rows`.

    Yields:
        pyarrow.Table: The columns :data:`COLUMNS`, with null for empty fields. The first table is
        empty.

    Raises:
        InputError: The file cannot be read, lacks a column, or has a line with a wrong number of
            fields or an invalid number.
    """
    try:
        header = read_header(path)
        _check_columns(path, header)
        yield TEXT_SCHEMA.empty_table()
        yield from parse_blocks(path, header, dict(zip(TEXT_SCHEMA.names, TEXT_SCHEMA.types)))
    except OSError as e:
        raise InputError(f'{path}: cannot read the detections: {_one_line(e)}') from e


def row_location(path: str | os.PathLike, row: int) -> str:
    """Describe the location of a row for messages: file and line, or file and row.

    Args:
        path (path): The file.
        row (int): Index of the row, counted from 0.

    Returns:
        str: Such as ``'detections.csv, line 3'``.
    """
    if not is_parquet(path):
        # The header is row -1.
        for i, (number, _) in enumerate(csv_rows(path), -1):
            if i == row:
                return f'{path}, line {number}'
    return f'{path}, row {row + 1}'


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ' '.join(text.split())[:200]


class RowWriter(abc.ABC):
    """Writes detections to a file in row groups of :data:`ROW_GROUP` rows.

    Images without detections are recorded as :func:`~pfdet.evaluation.detections.detections_writer`
    describes.

    Args:
        path (path): The file.
        classes (Classes): Gives the ``LabelName`` and the ``Name`` of each label.
    """

    file: Any

    def __init__(self, path: Path, classes: Classes):
        self.path = path
        self.mids = pa.array(classes.mids, pa.string())
        self.names = pa.array(classes.names, pa.string())
        self.empty_ids: list[str] = []
        self.buffered = _SCHEMA.empty_table()

    def write(
        self,
        image_ids: Sequence[str],
        image: np.ndarray,
        label: np.ndarray,
        score: np.ndarray,
        bbox: np.ndarray,
    ) -> None:
        """Write the detections of images that were not written before.

        Args:
            image_ids, image, label, score, bbox: All detections of some images, see
                :class:`~pfdet.evaluation.detections.Detections`.

        Raises:
            ValueError: A score is not finite, or a box is not inside the image.
        """
        for problem, rows in bad_rows(score, bbox, np.ones(len(score), bool)):
            raise ValueError(f'detection {rows[0]}: {problem}')
        empty = np.ones(len(image_ids), bool)
        empty[image] = False
        self.empty_ids.extend(image_ids[i] for i in np.flatnonzero(empty).tolist())
        ids = pa.array(list(image_ids), pa.string())
        for begin in range(0, len(score), ROW_GROUP):
            block = slice(begin, begin + ROW_GROUP)
            clipped = np.clip(bbox[block], 0, 1).astype(np.float32)
            labels = pa.array(label[block])
            table = pa.table(
                [
                    ids.take(pa.array(image[block])),
                    self.mids.take(labels),
                    score[block].astype(np.float32),
                    *(np.ascontiguousarray(clipped[:, k]) for k in (1, 3, 0, 2)),
                    self.names.take(labels),
                ],
                schema=_SCHEMA,
            )
            self.buffered = pa.concat_tables([self.buffered, table])
            if self.buffered.num_rows >= ROW_GROUP:
                self.write_group(self.buffered.slice(0, ROW_GROUP).combine_chunks())
                self.buffered = self.buffered.slice(ROW_GROUP)

    def finish(self) -> None:
        """Write the buffered rows and the ids of the images without detections."""
        if self.buffered.num_rows:
            self.write_group(self.buffered.combine_chunks())

    @abc.abstractmethod
    def write_group(self, rows: pa.Table) -> None:
        """Write a row group.

        Args:
            rows (pyarrow.Table): The rows, with the columns :data:`COLUMNS` and :data:`NAME`.
        """

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class ParquetWriter(RowWriter):
    """:class:`RowWriter` of Parquet files; image ids and class names are dictionary-encoded."""

    def __init__(self, path: Path, classes: Classes):
        super().__init__(path, classes)
        self.metadata: dict[bytes, str] = {
            CLASSES_KEY: json.dumps(classes.mids),
            NAMES_KEY: json.dumps(classes.names),
        }
        self.file = self._open(path)

    def _open(self, path: Path) -> pq.ParquetWriter:
        # Dictionary types make readers use categories, which take far less memory than strings.
        category = pa.dictionary(pa.int32(), pa.string())
        return pq.ParquetWriter(
            path,
            pa.schema(
                [(f.name, category if f.type == pa.string() else f.type) for f in _SCHEMA],
                self.metadata,
            ),
            compression='zstd',
            **WRITE_PAGE_CHECKSUMS,
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
            self.file.close()
            append_checksum(self.path)
            return
        # Before pyarrow 16, adding metadata requires a copy of the file.
        self.file.close()
        self.metadata.update(empty)
        with replace_when_done(self.path) as copy:
            self.file = self._open(copy)
            with open(self.path, 'rb') as f:
                written = pq.ParquetFile(f)
                for group in range(written.num_row_groups):
                    self.file.write_table(written.read_row_group(group).cast(self.file.schema))
            self.file.close()
            append_checksum(copy)


class CSVWriter(RowWriter):
    """:class:`RowWriter` of CSV files."""

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
