"""CSV columns at speed, with exact words for the row that is wrong.

pyarrow reads; when it refuses a file, or a value is out of range, a slow second pass in Python
finds the line, so that the message can name it.
"""

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pfdet.errors import InputError

Paths = str | os.PathLike | Sequence[str | os.PathLike]

_NUMBER = r'-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?'
_TEXT = r'[^\x00-\x1f\x7f\ud800-\udfff]+'


@dataclass(frozen=True)
class _Kind:
    type: pa.DataType
    pattern: str
    expected: str
    low: float = -np.inf
    high: float = np.inf


_KINDS = {
    'id': _Kind(pa.string(), _TEXT, 'an image id'),
    'class': _Kind(pa.string(), _TEXT, 'a class id such as /m/014j1m'),
    'coordinate': _Kind(pa.float32(), _NUMBER, 'a number',
                        -float(np.finfo(np.float32).max), float(np.finfo(np.float32).max)),
    'flag': _Kind(pa.int8(), r'-?\d+', '0, 1 or -1', -1, 1),
    'confidence': _Kind(pa.float32(), _NUMBER, 'a number from 0 to 1', 0, 1),
}


def as_paths(paths: Paths) -> list[str | os.PathLike]:
    """Return a list of paths from one path or several."""
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


def read_batches(
        paths: Paths, required: Mapping[str, str], optional: Mapping[str, str],
        block_size: int = 1 << 24) -> Iterator[pa.RecordBatch]:
    """Read columns of CSV files, batch by batch.

    Args:
        paths (path or sequence of paths): CSV files with a header, plain or gzip (told by
            content). Empty lines are ignored, as are other columns.
        required (mapping): From column name to its kind: ``'id'``, ``'class'``,
            ``'coordinate'``, ``'flag'`` or ``'confidence'``.
        optional (mapping): The same, for columns that may be absent.
        block_size (int): Bytes read at a time.

    Yields:
        pyarrow.RecordBatch: The columns present; no nulls, every value in its kind's range.

    Raises:
        InputError: If a file cannot be read, lacks a column, or has no rows; or a row is
            malformed: the message names the file, the line (the header is line 1) and what was
            expected there.
    """
    for path in as_paths(paths):
        header = _read_header(path, required, optional)
        kinds = {name: kind for name, kind in {**required, **optional}.items() if name in header}
        n_row = 0
        try:
            for batch in _open(path, kinds, block_size):
                for name, kind in kinds.items():
                    if not _is_sound(batch.column(name), _KINDS[kind]):
                        raise _blame(path, header, kinds, n_row, f'{name} is malformed')
                n_row += batch.num_rows
                if batch.num_rows:
                    yield batch
        except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
            raise _blame(path, header, kinds, n_row, str(e)) from e
        if not n_row:
            raise _no_rows(path)


def _no_rows(path: str | os.PathLike) -> InputError:
    return InputError(f'{path}: no rows after the header; expected at least one')


def _open(path: str | os.PathLike, kinds: Mapping[str, str],
          block_size: int) -> Iterator[pa.RecordBatch]:
    options = dict(
        read_options=pa.csv.ReadOptions(block_size=block_size),
        convert_options=pa.csv.ConvertOptions(
            column_types={name: _KINDS[kind].type for name, kind in kinds.items()},
            include_columns=list(kinds), null_values=[], strings_can_be_null=False))
    with pa.OSFile(os.fspath(path)) as file:
        stream = pa.CompressedInputStream(file, 'gzip') if _is_gzip(path) else file
        with pa.csv.open_csv(stream, **options) as reader:
            yield from reader


def _is_gzip(path: str | os.PathLike) -> bool:
    with open(path, 'rb') as f:
        return f.read(2) == b'\x1f\x8b'


def _open_text(path: str | os.PathLike) -> TextIO:
    # Bytes that are not UTF-8 matter only in the columns that are read.
    file = gzip.open(path) if _is_gzip(path) else open(path, 'rb')
    return io.TextIOWrapper(file, 'utf-8-sig', errors='surrogateescape', newline='')


def _read_header(path: str | os.PathLike, required: Mapping[str, str],
                 optional: Mapping[str, str]) -> list[str]:
    expected = f'expected a header with the columns {",".join(required)}'
    try:
        with _open_text(path) as f:
            line = f.readline(1 << 16)
            header = next(csv.reader([line], strict=True), [])
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise InputError(f'{path}: damaged gzip file ({e}); {expected}') from e
    except OSError as e:
        raise InputError(f'{path}: cannot read the table: {e.strerror or e}; {expected}') from e
    except csv.Error as e:
        raise InputError(f'{path}, line 1: {e}; {expected}') from e
    missing = [name for name in required if name not in header]
    if missing:
        found = f'found {line.rstrip()[:120]!r}' if line.strip() else 'the line is empty'
        raise InputError(f'{path}, line 1: no column {", ".join(missing)}; {expected}, {found}')
    for name in [*required, *optional]:
        if header.count(name) > 1:
            raise InputError(f'{path}, line 1: column {name} occurs twice; {expected}, each once')
    return header


def _is_sound(column: pa.Array, kind: _Kind) -> bool:
    if column.null_count:
        return False
    if pa.types.is_string(column.type):
        # Distinct values are few, and matching costs more than finding them.
        bad = pc.match_substring_regex(pc.unique(column), r'^$|[\x00-\x1f\x7f]')
        return not pc.any(bad).as_py()
    values = column.to_numpy()
    # A comparison with NaN is false, so NaN is not sound.
    return bool(((values >= kind.low) & (values <= kind.high)).all())


def _blame(path: str | os.PathLike, header: list[str], kinds: Mapping[str, str], n_sound: int,
           reason: str) -> InputError:
    """Find the first malformed row after ``n_sound`` good ones and say what is wrong with it."""
    columns = [(header.index(name), name, _KINDS[kind]) for name, kind in kinds.items()]
    patterns = {kind.pattern: re.compile(kind.pattern) for _, _, kind in columns}
    number, n_row = 1, 0
    try:
        with _open_text(path) as f:
            lines = enumerate(f, 1)
            next(lines)
            for number, line in lines:
                text = line.rstrip('\r\n')
                if not text:
                    continue
                n_row += 1
                if n_row <= n_sound:
                    continue
                try:
                    row = (next(csv.reader([text], strict=True)) if '"' in text
                           else text.split(','))
                except csv.Error as e:
                    return InputError(f'{path}, line {number}: expected '
                                      f'{len(header)} fields in one line, but {e}')
                if len(row) != len(header):
                    return InputError(
                        f'{path}, line {number}: expected {len(header)} fields as in the '
                        f'header, got {len(row)}')
                for at, name, kind in columns:
                    value = row[at].strip(' \t') if kind.low > -np.inf else row[at]
                    if (not patterns[kind.pattern].fullmatch(value)
                            or not (kind.low == -np.inf
                                    or kind.low <= float(value) <= kind.high)):
                        return InputError(
                            f'{path}, line {number}: expected {name} to be {kind.expected}, '
                            f'got {value[:60]!r}')
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        return InputError(f'{path}: damaged gzip file after line {number}: {e}')
    except OSError as e:
        return InputError(f'{path}: cannot read the table: {e.strerror or e}')
    if not n_row:
        return _no_rows(path)
    return InputError(f'{path}: expected a CSV file of {len(header)} columns, but '
                      f'{" ".join(reason.split())[:200]}')
