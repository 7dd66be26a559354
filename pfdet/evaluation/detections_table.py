"""The files that detections come in, as tables: opened, their columns checked."""

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pfdet.errors import InputError

COLUMNS = ('ImageID', 'LabelName', 'Score', 'XMin', 'XMax', 'YMin', 'YMax')
CORNERS = ('YMin', 'XMin', 'YMax', 'XMax')
NUMBERS = ('Score', *CORNERS)
# Keys of a Parquet file's metadata: a JSON list of the images that no row speaks of, and one of
# the classes that the model can tell.
IMAGES_KEY = b'images_without_detections'
CLASSES_KEY = b'classes'
_BUFFER = 1 << 16


def is_parquet(path: str | os.PathLike) -> bool:
    """Whether the name is that of a Parquet file and not that of a CSV file.

    Raises:
        InputError: If it is of neither.
    """
    suffix = Path(path).suffix
    if suffix not in ('.parquet', '.csv'):
        raise InputError(f'{path}: expected a file of detections named .parquet or .csv')
    return suffix == '.parquet'


@contextlib.contextmanager
def open_parquet(path: str | os.PathLike, piecemeal: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of detections.

    Args:
        path (path): The file.
        piecemeal (bool): For reading with ``iter_batches``: it takes some 8 MB instead of several
            whole row groups.

    Yields:
        pyarrow.parquet.ParquetFile: With all columns, of the right types.

    Raises:
        InputError: The file cannot be read, there or inside the ``with`` statement, or its columns
            are others.
    """
    try:
        # pyarrow would take the name for that of a partitioned data set.
        with open(path, 'rb') as f:
            file = pq.ParquetFile(
                f,
                read_dictionary=['ImageID', 'LabelName'],
                pre_buffer=not piecemeal,
                buffer_size=_BUFFER if piecemeal else 0,
            )
            check_columns(path, file.schema_arrow.names)
            _check_types(path, file.schema_arrow)
            yield file
    except (pa.ArrowException, OSError, ValueError) as e:
        raise InputError(
            f'{path}: cannot read the detections: {reason(e)}; expected a whole Parquet file'
        ) from e


def _check_types(path: str | os.PathLike, schema: pa.Schema) -> None:
    for name in COLUMNS:
        type_ = schema.field(name).type
        if pa.types.is_dictionary(type_):
            type_ = type_.value_type
        if name in NUMBERS:
            sound = pa.types.is_floating(type_) or pa.types.is_integer(type_)
        else:
            sound = pa.types.is_string(type_) or pa.types.is_large_string(type_)
        if not sound and not pa.types.is_null(type_):
            expected = 'numbers' if name in NUMBERS else 'strings'
            raise InputError(f'{path}: column {name} holds {type_}; expected {expected}')


def listed(path: str | os.PathLike, file: pq.ParquetFile, key: bytes) -> list[str] | None:
    """A list of strings of a Parquet file's metadata; :obj:`None` where it has none.

    Raises:
        InputError: It is something else.
    """
    text = (file.metadata.metadata or {}).get(key)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(i, str) and i for i in found):
        raise InputError(f'{path}: expected its metadata {key.decode()} to be a list of strings')
    return found


def read_csv(path: str | os.PathLike) -> pa.Table:
    """Read a CSV file of detections, with the columns of :data:`COLUMNS` and nulls for nothing.

    Raises:
        InputError: It cannot be read, lacks a column, or has a line of other fields or one where
            a number is none.
    """
    types = {name: pa.float32() if name in NUMBERS else pa.string() for name in COLUMNS}
    convert = dict(null_values=[''], strings_can_be_null=True, include_columns=list(COLUMNS))
    try:
        with open(path, encoding='utf-8-sig', newline='') as f:
            check_columns(path, next(csv.reader(f), []))
        return pa.csv.read_csv(
            path, convert_options=pa.csv.ConvertOptions(column_types=types, **convert)
        )
    except pa.ArrowException as e:
        _blame_csv(path)
        raise InputError(f'{path}: cannot read the detections: {reason(e)}') from e
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f'{path}: cannot read the detections: {reason(e)}') from e


def _blame_csv(path: str | os.PathLike) -> None:
    # pyarrow refused the file: find the line, slowly, and say which.
    for number, row, header in _csv_rows(path):
        if len(row) != len(header):
            raise InputError(
                f'{path}, line {number}: {len(row)} fields; expected {len(header)} as in the header'
            )
        for name in NUMBERS:
            value = row[header.index(name)]
            try:
                float(value or 'nan')
            except ValueError as e:
                raise InputError(
                    f'{path}, line {number}: {name} is {value[:60]!r}; expected a number'
                ) from e


def _csv_rows(path: str | os.PathLike) -> Iterator[tuple[int, list[str], list[str]]]:
    with open(path, encoding='utf-8-sig', errors='replace', newline='') as f:
        reader = csv.reader(f)
        header = next(reader)
        for row in reader:
            if row:
                yield reader.line_num, row, header


def where(path: str | os.PathLike, row: int) -> str:
    """The file and the place in it of a row, counted from 0, in words."""
    if not is_parquet(path):
        for i, (number, _, _) in enumerate(_csv_rows(path)):
            if i == row:
                return f'{path}, line {number}'
    return f'{path}, row {row + 1}'


def check_columns(path: str | os.PathLike, names: Sequence[str]) -> None:
    """Refuse a file without one of :data:`COLUMNS`, or with one of them twice.

    Raises:
        InputError: So it is.
    """
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(
            f'{path}: no column {", ".join(missing)}; expected {",".join(COLUMNS)}, found '
            f'{",".join(names)[:120]}'
        )
    twice = [name for name in COLUMNS if list(names).count(name) > 1]
    if twice:
        raise InputError(f'{path}: column {twice[0]} occurs twice; expected every column once')


def reason(error: Exception) -> str:
    """What an exception says, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ' '.join(text.split())[:200]
