"""Fast reading of CSV columns, with error messages that name the malformed line.

A file is split into blocks of whole lines, which pyarrow parses in parallel. If parsing fails or a
value is out of range, a slow second pass in Python over that block finds the line.
"""

import codecs
import csv
import functools
import gzip
import io
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm

from pfdet.errors import InputError
from pfdet.openimages.arrow_arrays import numbers, string_buffers

Paths = str | os.PathLike | Sequence[str | os.PathLike]
Result = TypeVar('Result')

# ASCII digits, as in pyarrow; \d would match the digits of all scripts.
_NUMBER = re.compile(r'-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?')
_TEXT = re.compile(r'[^\x00-\x1f\x7f\ud800-\udfff]+')
# For repeated values: the distinct values, and one code per row.
_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
# A field that is quoted as a whole, within one line.
_QUOTED = re.compile(rb'(?<![^,\r\n])"[^"\r\n]*(?:""[^"\r\n]*)*"(?![^,\r\n])')
_FIELD = re.compile(r'(?:^|(?<=,))(?:("(?:[^"]|"")*")|([^,]*))(?:,|$)')
_LINE_ENDS = b'\r\n'
_LONGEST_LINE = 1 << 26


@dataclass(frozen=True)
class _Kind:
    type: pa.DataType
    pattern: re.Pattern
    expected: str
    low: float = -np.inf
    high: float = np.inf


_KINDS = {
    'id': _Kind(_DICTIONARY, _TEXT, 'an image id'),
    'class': _Kind(_DICTIONARY, _TEXT, 'a class id such as /m/014j1m'),
    'coordinate': _Kind(
        pa.float32(),
        _NUMBER,
        'a number',
        -float(np.finfo(np.float32).max),
        float(np.finfo(np.float32).max),
    ),
    'flag': _Kind(pa.int8(), re.compile('-?[0-9]+'), '0, 1 or -1', -1, 1),
    'confidence': _Kind(pa.float32(), _NUMBER, 'a number from 0 to 1', 0, 1),
}


class _MalformedError(Exception):
    """A block is malformed. The second pass finds the line."""


def as_paths(paths: Paths) -> list[str | os.PathLike]:
    """Return one path or several paths as a list."""
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


def map_batches(
    function: Callable[[pa.RecordBatch], Result],
    paths: Paths,
    required: Mapping[str, str],
    optional: Mapping[str, str],
    block_size: int = 1 << 23,
    n_thread: int | None = None,
) -> Iterator[Result]:
    """Read columns of CSV files and apply a function to each batch of rows, in parallel.

    Only a whole field may be quoted, and it must not contain a line end. Stray quotes are an error,
    because they would hide all rows up to the next quote.

    Args:
        function (callable): Takes a :class:`pyarrow.RecordBatch` with the columns that the file
            has. There are no nulls, and every value is in the range of its kind. Ids and classes
            are dictionary-encoded. The function is called in threads.
        paths (path or sequence of paths): CSV files with a header, plain or gzip. Gzip is detected
            from the content. Empty lines and other columns are ignored.
        required (mapping): From column name to kind: ``'id'``, ``'class'``, ``'coordinate'``,
            ``'flag'`` or ``'confidence'``.
        optional (mapping): The same for columns that may be absent.
        block_size (int): Block size in bytes.
        n_thread (int): Parsing threads. By default, the number of cores, but at most 8.

    Yields:
        object: Return values of ``function``, in the order of the rows.

    Raises:
        InputError: If a file cannot be read, lacks a column or has no rows, or a row is malformed.
            The message names the file, the line (the header is line 1) and the expected value.
    """
    n_thread = n_thread or min(len(os.sched_getaffinity(0)), 8)
    with ThreadPoolExecutor(n_thread) as pool:
        for path in as_paths(paths):
            header = _read_header(path, required, optional)
            kinds = {
                name: _KINDS[kind]
                for name, kind in {**required, **optional}.items()
                if name in header
            }
            work = functools.partial(_process_block, function, path, header, kinds)
            n_row = 0
            for n, result in _map_in_order(pool, work, _blocks(path, block_size), n_thread):
                n_row += n
                if n:
                    yield result
            if not n_row:
                raise InputError(f'{path}: no rows after the header; expected at least one')


def _map_in_order(
    pool: ThreadPoolExecutor, work: Callable, items: Iterable, n_ahead: int
) -> Iterator:
    # Executor.map would read the whole file ahead.
    waiting = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > n_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _process_block(
    function: Callable[[pa.RecordBatch], Result],
    path: str | os.PathLike,
    header: list[str],
    kinds: Mapping[str, _Kind],
    block: tuple[int, bytes],
) -> tuple[int, Result | None]:
    start, data = block
    if start == 0:
        data = data[re.match(rb'[^\r\n]*(\r\n|\r|\n|$)', data).end() :]
    # lstrip stops at the first character of a row, so this is fast.
    if not data.lstrip(_LINE_ENDS):
        return 0, None
    try:
        batch = _parse(header, kinds, data)
    except (_MalformedError, pa.ArrowException, UnicodeDecodeError) as e:
        number = 2 if start == 0 else _line_number(path, start)
        raise _first_malformed_line(path, header, kinds, data, number, str(e)) from e
    return batch.num_rows, function(batch)


def _blocks(path: str | os.PathLike, block_size: int) -> Iterator[tuple[int, bytes]]:
    """Split a file into blocks of whole lines; yield the start and the bytes of each block."""
    start = 0
    try:
        with (
            open(path, 'rb') as raw,
            _open_bytes(path, raw) as file,
            tqdm(
                total=os.fstat(raw.fileno()).st_size,
                desc=os.path.basename(path),
                unit='B',
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            rest = b''
            while chunk := file.read(block_size):
                bar.update(raw.tell() - bar.n)
                # A carriage return at the end of the chunk may be the first half of a line end.
                end = 1 + max(chunk.rfind(b'\n'), chunk.rfind(b'\r', 0, -1))
                if not end:
                    rest += chunk
                    if len(rest) > _LONGEST_LINE:
                        raise InputError(
                            f'{path}, line {_line_number(path, start)}: the line is longer than '
                            f'{_LONGEST_LINE} bytes; expected a CSV file'
                        )
                    continue
                block, rest = rest + chunk[:end], chunk[end:]
                yield start, block
                start += len(block)
            if rest:
                yield start, rest
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise InputError(
            f'{path}: damaged gzip file after line '
            f'{_line_number(path, start)}: {e}; expected a complete file'
        ) from e
    except OSError as e:
        raise InputError(f'{path}: cannot read the table: {e.strerror or e}') from e


def _line_number(path: str | os.PathLike, start: int) -> int:
    """Return the number of the line that begins at byte ``start`` of the decompressed file.

    Lines are counted only for an error message: counting takes a tenth of the reading time.
    """
    number, position, after_return = 1, 0, False
    with open(path, 'rb') as raw, _open_bytes(path, raw) as file:
        while position < start:
            data = file.read(min(1 << 20, start - position))
            position += len(data)
            number += data.count(b'\n') + data.count(b'\r') - data.count(b'\r\n')
            number -= after_return and data.startswith(b'\n')
            after_return = data.endswith(b'\r')
    return number


def _parse(header: list[str], kinds: Mapping[str, _Kind], data: bytes) -> pa.RecordBatch:
    if data.startswith(codecs.BOM_UTF8):
        # After the header it is part of a value, but pyarrow would remove it from any block.
        data = b'\n' + data
    quoted = b'"' in data
    if quoted and b'"' in _QUOTED.sub(b'', data):
        raise _MalformedError('it has a stray quote')
    # Columns are addressed by position, since the names of ignored columns may be repeated.
    positions = {str(header.index(name)): kind for name, kind in kinds.items()}
    # read_csv would start a new thread at each call.
    with pa.csv.open_csv(
        pa.BufferReader(data),
        pa.csv.ReadOptions(
            use_threads=False,
            block_size=len(data) + 64,
            column_names=[str(i) for i in range(len(header))],
        ),
        pa.csv.ParseOptions(quote_char='"' if quoted else False),
        pa.csv.ConvertOptions(
            column_types={position: kind.type for position, kind in positions.items()},
            include_columns=list(positions),
            null_values=[],
            strings_can_be_null=False,
        ),
    ) as reader:
        batches = [batch for batch in reader if batch.num_rows]
    columns = [pa.concat_arrays([batch.column(k) for batch in batches]) for k in range(len(kinds))]
    for column, (name, kind) in zip(columns, kinds.items()):
        if not _is_valid(column, kind):
            raise _MalformedError(f'{name} is malformed')
    return pa.record_batch(columns, list(kinds))


def _is_valid(column: pa.Array, kind: _Kind) -> bool:
    if column.null_count:
        return False
    if pa.types.is_dictionary(column.type):
        offsets, text = string_buffers(column.dictionary)
        control = (text < 0x20) | (text == 0x7F)
        return not control.any() and bool((offsets[1:] > offsets[:-1]).all())
    values = numbers(column)
    # Comparisons with NaN are false, so NaN is not valid.
    return bool(((values >= kind.low) & (values <= kind.high)).all())


def _is_gzip(path: str | os.PathLike) -> bool:
    with open(path, 'rb') as f:
        return f.read(2) == b'\x1f\x8b'


def _open_bytes(path: str | os.PathLike, raw: BinaryIO) -> BinaryIO:
    return gzip.GzipFile(fileobj=raw) if _is_gzip(path) else raw


def _text_lines(file: BinaryIO, encoding: str = 'utf-8') -> io.TextIOWrapper:
    # Invalid UTF-8 in ignored columns is accepted.
    return io.TextIOWrapper(file, encoding, errors='surrogateescape', newline='')


def _read_header(
    path: str | os.PathLike, required: Mapping[str, str], optional: Mapping[str, str]
) -> list[str]:
    expected = f'expected a header with the columns {",".join(required)}'
    try:
        with open(path, 'rb') as raw, _text_lines(_open_bytes(path, raw), 'utf-8-sig') as f:
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
        found = f'got {line.rstrip()[:120]!r}' if line.strip() else 'the line is empty'
        raise InputError(f'{path}, line 1: no column {", ".join(missing)}; {expected}; {found}')
    for name in [*required, *optional]:
        if header.count(name) > 1:
            raise InputError(f'{path}, line 1: column {name} occurs twice; {expected}, each once')
    return header


def _first_malformed_line(
    path: str | os.PathLike,
    header: list[str],
    kinds: Mapping[str, _Kind],
    data: bytes,
    number: int,
    reason: str,
) -> InputError:
    """Return the error for the first malformed row of a block that begins with line ``number``."""
    first = number
    columns = [(header.index(name), name, kind) for name, kind in kinds.items()]
    for number, line in enumerate(_text_lines(io.BytesIO(data)), first):
        text = line.rstrip('\r\n')
        if not text:
            continue
        where = f'{path}, line {number}'
        if b'"' in _QUOTED.sub(b'', text.encode('utf-8', 'surrogateescape')):
            return InputError(
                f'{where}: a stray quote; expected {len(header)} fields in one '
                'line, each either quoted as a whole or unquoted'
            )
        # The csv module rejects NUL in any column before Python 3.11.
        row = [
            quoted[1:-1].replace('""', '"') if quoted else plain
            for quoted, plain in _FIELD.findall(text)
        ]
        if len(row) != len(header):
            return InputError(
                f'{where}: expected {len(header)} fields as in the header, got {len(row)}'
            )
        for position, name, kind in columns:
            value = row[position].strip(' \t') if kind.low > -np.inf else row[position]
            if not kind.pattern.fullmatch(value) or not (
                kind.low == -np.inf or kind.low <= float(value) <= kind.high
            ):
                return InputError(
                    f'{where}: expected {name} to be {kind.expected}, got {value[:60]!r}'
                )
    return InputError(
        f'{path}, in the block that begins with line {first}: '
        f'expected CSV with {len(header)} columns, but '
        f'{" ".join(reason.split())[:200]}'
    )
