"""Fast reading of CSV columns, with error messages that name the malformed line.

A file is split into blocks of whole lines, which pyarrow parses in parallel. If a value is not in
the usual form, the block is parsed again as text. If that fails as well, a slow pass in Python over
the block finds the line.
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
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm

from pfdet.cores import n_core
from pfdet.errors import InputError
from pfdet.files import lines
from pfdet.files.arrow_memory import arrow_copy
from pfdet.openimages.csv_values import (
    KINDS,
    Kind,
    MalformedError,
    check_numbers,
    from_text,
    normalized,
    text_kind,
)
from pfdet.openimages.text_files import (
    Header,
    open_utf8,
    read_first_line,
    split_header,
    text_lines,
)

Paths = str | os.PathLike | Sequence[str | os.PathLike]
Result = TypeVar('Result')

_LINE_ENDS = b'\r\n'
_REWRITTEN = b'rewritten'


def as_paths(paths: Paths) -> list[str | os.PathLike]:
    """Return one path or several paths as a list."""
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


def n_rewritten(batch: pa.RecordBatch) -> int:
    """Return how many values of a batch were not in normal form, such as flags ``1.0``."""
    return int((batch.schema.metadata or {}).get(_REWRITTEN, 0))


def map_batches(
    function: Callable[[pa.RecordBatch], Result],
    paths: Paths,
    required: Mapping[str, str],
    optional: Mapping[str, str],
    block_size: int = 1 << 23,
    n_thread: int | None = None,
) -> Iterator[Result]:
    """Read columns of CSV files and apply a function to each batch of rows, in parallel.

    Fields are separated by commas, semicolons or tabs. Only a whole field may be quoted, and it
    must not contain a line end. Stray quotes are an error, because they would hide all rows up to
    the next quote. See :func:`~pfdet.openimages.text_files.open_utf8` for encodings.

    Args:
        function (callable): Takes a :class:`pyarrow.RecordBatch` with the columns that the file
            has. There are no nulls, and every value is in the range of its kind. Ids, classes and
            texts are dictionary-encoded; the values of a dictionary may be repeated. See also
            :func:`n_rewritten`. The function is called in threads.
        paths (path or sequence of paths): CSV files with a header, plain or gzip. Gzip is detected
            from the content. Empty lines and other columns are ignored.
        required (mapping): From column name to kind: one of
            :data:`~pfdet.openimages.csv_values.KINDS`.
        optional (mapping): The same for columns that may be absent.
        block_size (int): Block size in bytes.
        n_thread (int): Parsing threads. By default, the number of cores, but at most 8.

    Yields:
        object: Return values of ``function``, in the order of the rows.

    Raises:
        InputError: If a file cannot be read, lacks a column or has no rows, or a row is malformed.
            The message names the file, the line (the header is line 1) and the expected value.
    """
    n_thread = n_thread or min(n_core(), 8)
    with ThreadPoolExecutor(n_thread) as pool:
        for path in as_paths(paths):
            header = _read_header(path, required, optional)
            kinds = {
                name: KINDS[kind]
                for name, kind in {**required, **optional}.items()
                if name in header.names
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
    waiting: deque = deque()
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
    header: Header,
    kinds: Mapping[str, Kind],
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
    except (MalformedError, pa.ArrowException, UnicodeDecodeError) as e:
        number = 2 if start == 0 else _line_number(path, start)
        raise _first_malformed_line(path, header, kinds, data, number, str(e)) from e
    return batch.num_rows, function(batch)


def _blocks(path: str | os.PathLike, block_size: int) -> Iterator[tuple[int, bytes]]:
    """Split a file into blocks of whole lines; yield the start and the bytes of each block."""
    start = 0
    with (
        open_utf8(path) as (raw, file),
        tqdm(
            total=os.fstat(raw.fileno()).st_size,
            desc=os.path.basename(path),
            unit='B',
            unit_scale=True,
            disable=None,
        ) as bar,
    ):

        def read() -> bytes:
            chunk = _read(path, file, block_size, start)
            bar.update(raw.tell() - bar.n)
            return chunk

        def too_long() -> InputError:
            return InputError(
                f'{path}, line {_line_number(path, start)}: the line is longer than '
                f'{lines.LONGEST_LINE} bytes; expected a CSV file'
            )

        for block in lines.whole_lines(read, too_long):
            yield start, block
            start += len(block)


def _read(path: str | os.PathLike, file: io.BufferedIOBase, size: int, start: int) -> bytes:
    try:
        return file.read(size)
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as e:
        what = 'text' if isinstance(e, UnicodeDecodeError) else 'gzip file'
        raise InputError(
            f'{path}: damaged {what} after line {_line_number(path, start)}: {e}; expected a '
            'complete file'
        ) from e


def _line_number(path: str | os.PathLike, start: int) -> int:
    """Return the number of the line that begins at byte ``start`` of the text in UTF-8.

    Lines are counted only for an error message: counting takes a tenth of the reading time.
    """
    number, position, after_return = 1, 0, False
    with open_utf8(path) as (_, file):
        while position < start:
            data = file.read(min(1 << 20, start - position))
            position += len(data)
            number += data.count(b'\n') + data.count(b'\r') - data.count(b'\r\n')
            number -= after_return and data.startswith(b'\n')
            after_return = data.endswith(b'\r')
    return number


def _parse(header: Header, kinds: Mapping[str, Kind], data: bytes) -> pa.RecordBatch:
    if data.startswith(codecs.BOM_UTF8):
        # After the header it is part of a value, but pyarrow would remove it from any block.
        data = b'\n' + data
    is_quoted = b'"' in data
    if is_quoted and b'"' in _quoted_field(header.delimiter).sub(b'', data):
        raise MalformedError('it has a stray quote')
    try:
        if _has_hexadecimal(data):
            raise MalformedError('it has hexadecimal numbers')
        columns = _convert(header, kinds, data, is_quoted)
        for column, kind in zip(columns, kinds.values()):
            if kind.is_number:
                check_numbers(column, kind)
        n_changed = 0
    except (MalformedError, pa.ArrowInvalid):
        columns, n_changed = _parse_as_text(header, kinds, data, is_quoted)
    for k, kind in enumerate(kinds.values()):
        if not kind.is_number:
            columns[k], n = normalized(columns[k], kind)
            n_changed += n
    batch = pa.record_batch(columns, list(kinds))
    return batch.replace_schema_metadata({_REWRITTEN: str(n_changed)}) if n_changed else batch


def _has_hexadecimal(data: bytes) -> bool:
    """Whether the text contains 0x, which pyarrow takes for the start of an integer."""
    # bytes.find takes longer, because 0 is frequent. 0x20 turns X into x.
    text = np.frombuffer(data, np.uint8)
    return bool((((text[1:] | 0x20) == ord('x')) & (text[:-1] == ord('0'))).any())


def _parse_as_text(
    header: Header, kinds: Mapping[str, Kind], data: bytes, is_quoted: bool
) -> tuple[list[pa.Array], int]:
    as_text = {name: text_kind(kind) for name, kind in kinds.items()}
    columns, n_changed = _convert(header, as_text, data, is_quoted), 0
    for k, kind in enumerate(kinds.values()):
        if kind.is_number:
            columns[k], n = from_text(columns[k], kind, header.delimiter != ',')
            n_changed += n
    return columns, n_changed


def _convert(
    header: Header, kinds: Mapping[str, Kind], data: bytes, is_quoted: bool
) -> list[pa.Array]:
    # Columns are addressed by position, since the names of ignored columns may be repeated.
    positions = {str(header.names.index(name)): kind for name, kind in kinds.items()}
    # read_csv would start a new thread at each call.
    with pa.csv.open_csv(
        pa.BufferReader(arrow_copy(data)),
        pa.csv.ReadOptions(
            use_threads=False,
            block_size=len(data) + 64,
            column_names=[str(i) for i in range(len(header.names))],
        ),
        pa.csv.ParseOptions(delimiter=header.delimiter, quote_char='"' if is_quoted else False),
        pa.csv.ConvertOptions(
            column_types={position: kind.type for position, kind in positions.items()},
            include_columns=list(positions),
            null_values=[],
            strings_can_be_null=False,
        ),
    ) as reader:
        batches = [batch for batch in reader if batch.num_rows]
    return [pa.concat_arrays([batch.column(k) for batch in batches]) for k in range(len(kinds))]


def _read_header(
    path: str | os.PathLike, required: Mapping[str, str], optional: Mapping[str, str]
) -> Header:
    expected = f'expected a header with the columns {",".join(required)}'
    line = read_first_line(path)
    try:
        header = split_header(line, list(required))
    except csv.Error as e:
        raise InputError(f'{path}, line 1: {e}; {expected}') from e
    missing = [name for name in required if name not in header.names]
    if missing:
        found = f'got {line.rstrip()[:120]!r}' if line.strip() else 'the line is empty'
        raise InputError(f'{path}, line 1: no column {", ".join(missing)}; {expected}; {found}')
    for name in [*required, *optional]:
        if header.names.count(name) > 1:
            raise InputError(f'{path}, line 1: column {name} occurs twice; {expected}, each once')
    return header


@functools.cache
def _quoted_field(delimiter: str) -> re.Pattern[bytes]:
    """Match a field that is quoted as a whole, within one line."""
    other = f'[^{delimiter}\\r\\n]'
    return re.compile(f'(?<!{other})"[^"\\r\\n]*(?:""[^"\\r\\n]*)*"(?!{other})'.encode())


@functools.cache
def _field(delimiter: str) -> re.Pattern[str]:
    return re.compile(
        f'(?:^|(?<={delimiter}))(?:("(?:[^"]|"")*")|([^{delimiter}]*))(?:{delimiter}|$)'
    )


def _first_malformed_line(
    path: str | os.PathLike,
    header: Header,
    kinds: Mapping[str, Kind],
    data: bytes,
    number: int,
    reason: str,
) -> InputError:
    """Return the error for the first malformed row of a block that begins with line ``number``."""
    first = number
    n_column = len(header.names)
    columns = [(header.names.index(name), name, kind) for name, kind in kinds.items()]
    for number, line in enumerate(text_lines(io.BytesIO(data)), first):
        text = line.rstrip('\r\n')
        if not text:
            continue
        where = f'{path}, line {number}'
        encoded = text.encode('utf-8', 'surrogateescape')
        if b'"' in _quoted_field(header.delimiter).sub(b'', encoded):
            return InputError(
                f'{where}: a stray quote; expected {n_column} fields in one '
                'line, each either quoted as a whole or unquoted'
            )
        # The csv module rejects NUL in any column before Python 3.11.
        row = [
            quoted[1:-1].replace('""', '"') if quoted else plain
            for quoted, plain in _field(header.delimiter).findall(text)
        ]
        if len(row) != n_column:
            return InputError(
                f'{where}: expected {n_column} fields as in the header, got {len(row)}'
            )
        for position, name, kind in columns:
            value = row[position]
            if expected := kind.problem(value, header.delimiter != ','):
                return InputError(f'{where}: expected {name} to be {expected}, got {value[:60]!r}')
    return InputError(
        f'{path}, in the block that begins with line {first}: '
        f'expected CSV with {n_column} columns, but '
        f'{" ".join(reason.split())[:200]}'
    )
