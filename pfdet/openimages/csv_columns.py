"""CSV columns at speed, with exact words for the row that is wrong.

A file is cut into blocks of whole lines, which pyarrow parses in parallel. When it refuses a
block, or a value in it is out of range, a slow second pass in Python over that block finds the
line, so that the message can name it.
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
Part = TypeVar('Part')

# ASCII digits as pyarrow takes them; \d would match those of all scripts.
_NUMBER = re.compile(r'-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?')
_TEXT = re.compile(r'[^\x00-\x1f\x7f\ud800-\udfff]+')
# Values that repeat: the distinct ones and a code a row.
_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
# A field in quotes as a whole, within one line.
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
    """Why a block cannot be used; the second pass finds where."""


def as_paths(paths: Paths) -> list[str | os.PathLike]:
    """Return a list of paths from one path or several."""
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


def map_batches(
    function: Callable[[pa.RecordBatch], Part],
    paths: Paths,
    required: Mapping[str, str],
    optional: Mapping[str, str],
    block_size: int = 1 << 23,
    n_thread: int | None = None,
) -> Iterator[Part]:
    """Read columns of CSV files and apply a function to every batch of rows, in parallel.

    A field may stand in quotes, but only as a whole and without a line end in it: a stray quote,
    which would hide the rows up to the next one, is refused.

    Args:
        function (callable): Takes a :class:`pyarrow.RecordBatch` with the columns present, no
            nulls, every value in its kind's range; ids and classes are dictionaries. It is
            called in threads.
        paths (path or sequence of paths): CSV files with a header, plain or gzip (told by
            content). Empty lines are ignored, as are other columns.
        required (mapping): From column name to its kind: ``'id'``, ``'class'``,
            ``'coordinate'``, ``'flag'`` or ``'confidence'``.
        optional (mapping): The same, for columns that may be absent.
        block_size (int): Bytes read at a time.
        n_thread (int): Threads that parse; as many as there are cores, at most 8, by default.

    Yields:
        object: What ``function`` returned, in the order of the rows.

    Raises:
        InputError: If a file cannot be read, lacks a column, or has no rows; or a row is
            malformed: the message names the file, the line (the header is line 1) and what was
            expected there.
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
            work = functools.partial(_work, function, path, header, kinds)
            n_row = 0
            for n_done, part in _map_in_order(pool, work, _blocks(path, block_size), n_thread):
                n_row += n_done
                if n_done:
                    yield part
            if not n_row:
                raise InputError(f'{path}: no rows after the header; expected at least one')


def _map_in_order(
    pool: ThreadPoolExecutor, work: Callable, items: Iterable, n_ahead: int
) -> Iterator:
    # Executor.map would read the whole file at once.
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


def _work(
    function: Callable[[pa.RecordBatch], Part],
    path: str | os.PathLike,
    header: list[str],
    kinds: Mapping[str, _Kind],
    block: tuple[int, bytes],
) -> tuple[int, Part | None]:
    start, data = block
    if start == 0:
        data = data[re.match(rb'[^\r\n]*(\r\n|\r|\n|$)', data).end() :]
    # Looking from the left, so that this costs nothing unless a block begins with empty lines.
    if not data.lstrip(_LINE_ENDS):
        return 0, None
    try:
        batch = _parse(header, kinds, data)
    except (_MalformedError, pa.ArrowException, UnicodeDecodeError) as e:
        number = 2 if start == 0 else _line_number(path, start)
        raise _blame(path, header, kinds, data, number, str(e)) from e
    return batch.num_rows, function(batch)


def _blocks(path: str | os.PathLike, block_size: int) -> Iterator[tuple[int, bytes]]:
    """Cut a file into blocks of whole lines; yield where each begins, and its bytes."""
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
                # A carriage return at the chunk's end may be the first half of a line end.
                cut = 1 + max(chunk.rfind(b'\n'), chunk.rfind(b'\r', 0, -1))
                if not cut:
                    rest += chunk
                    if len(rest) > _LONGEST_LINE:
                        raise InputError(
                            f'{path}, line {_line_number(path, start)}: longer than '
                            f'{_LONGEST_LINE} bytes; expected a CSV file'
                        )
                    continue
                block, rest = rest + chunk[:cut], chunk[cut:]
                yield start, block
                start += len(block)
            if rest:
                yield start, rest
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise InputError(
            f'{path}: damaged gzip file after line '
            f'{_line_number(path, start)}: {e}; expected a whole one'
        ) from e
    except OSError as e:
        raise InputError(f'{path}: cannot read the table: {e.strerror or e}') from e


def _line_number(path: str | os.PathLike, start: int) -> int:
    """Return the number of the line that begins at a byte of a file (of the unzipped one).

    Counting is left until someone asks: it would cost a tenth of the reading.
    """
    number, at, after_return = 1, 0, False
    with open(path, 'rb') as raw, _open_bytes(path, raw) as file:
        while at < start:
            data = file.read(min(1 << 20, start - at))
            at += len(data)
            number += data.count(b'\n') + data.count(b'\r') - data.count(b'\r\n')
            number -= after_return and data.startswith(b'\n')
            after_return = data.endswith(b'\r')
    return number


def _parse(header: list[str], kinds: Mapping[str, _Kind], data: bytes) -> pa.RecordBatch:
    if data.startswith(codecs.BOM_UTF8):
        # It is part of a value here, and pyarrow would take it off the begin of any block.
        data = b'\n' + data
    quoted = b'"' in data
    if quoted and b'"' in _QUOTED.sub(b'', data):
        raise _MalformedError('it has a stray quote')
    # By place, since columns that are not read may have any name, and the same.
    places = {str(header.index(name)): kind for name, kind in kinds.items()}
    # Not read_csv, which starts a thread of its own every time.
    with pa.csv.open_csv(
        pa.BufferReader(data),
        pa.csv.ReadOptions(
            use_threads=False,
            block_size=len(data) + 64,
            column_names=[str(i) for i in range(len(header))],
        ),
        pa.csv.ParseOptions(quote_char='"' if quoted else False),
        pa.csv.ConvertOptions(
            column_types={place: kind.type for place, kind in places.items()},
            include_columns=list(places),
            null_values=[],
            strings_can_be_null=False,
        ),
    ) as reader:
        batches = [batch for batch in reader if batch.num_rows]
    columns = [pa.concat_arrays([batch.column(k) for batch in batches]) for k in range(len(kinds))]
    for column, (name, kind) in zip(columns, kinds.items()):
        if not _is_sound(column, kind):
            raise _MalformedError(f'{name} is malformed')
    return pa.record_batch(columns, list(kinds))


def _is_sound(column: pa.Array, kind: _Kind) -> bool:
    if column.null_count:
        return False
    if pa.types.is_dictionary(column.type):
        offsets, text = string_buffers(column.dictionary)
        control = (text < 0x20) | (text == 0x7F)
        return not control.any() and bool((offsets[1:] > offsets[:-1]).all())
    values = numbers(column)
    # A comparison with NaN is false, so NaN is not sound.
    return bool(((values >= kind.low) & (values <= kind.high)).all())


def _is_gzip(path: str | os.PathLike) -> bool:
    with open(path, 'rb') as f:
        return f.read(2) == b'\x1f\x8b'


def _open_bytes(path: str | os.PathLike, raw: BinaryIO) -> BinaryIO:
    return gzip.GzipFile(fileobj=raw) if _is_gzip(path) else raw


def _as_lines(file: BinaryIO, encoding: str = 'utf-8') -> io.TextIOWrapper:
    # Bytes that are not UTF-8 matter only in the columns that are read.
    return io.TextIOWrapper(file, encoding, errors='surrogateescape', newline='')


def _read_header(
    path: str | os.PathLike, required: Mapping[str, str], optional: Mapping[str, str]
) -> list[str]:
    expected = f'expected a header with the columns {",".join(required)}'
    try:
        with open(path, 'rb') as raw, _as_lines(_open_bytes(path, raw), 'utf-8-sig') as f:
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


def _blame(
    path: str | os.PathLike,
    header: list[str],
    kinds: Mapping[str, _Kind],
    data: bytes,
    number: int,
    reason: str,
) -> InputError:
    """Find the first malformed row of a block that begins with line ``number``."""
    first = number
    columns = [(header.index(name), name, kind) for name, kind in kinds.items()]
    for number, line in enumerate(_as_lines(io.BytesIO(data)), first):
        text = line.rstrip('\r\n')
        if not text:
            continue
        where = f'{path}, line {number}'
        if b'"' in _QUOTED.sub(b'', text.encode('utf-8', 'surrogateescape')):
            return InputError(
                f'{where}: a stray quote; expected {len(header)} fields in one '
                'line, each in quotes as a whole or not at all'
            )
        # Not by the csv module, which refuses a NUL before Python 3.11, read or not.
        row = [
            quoted[1:-1].replace('""', '"') if quoted else plain
            for quoted, plain in _FIELD.findall(text)
        ]
        if len(row) != len(header):
            return InputError(
                f'{where}: expected {len(header)} fields as in the header, got {len(row)}'
            )
        for at, name, kind in columns:
            value = row[at].strip(' \t') if kind.low > -np.inf else row[at]
            if not kind.pattern.fullmatch(value) or not (
                kind.low == -np.inf or kind.low <= float(value) <= kind.high
            ):
                return InputError(
                    f'{where}: expected {name} to be {kind.expected}, got {value[:60]!r}'
                )
    return InputError(
        f'{path}, in the block of lines that begins with line {first}: '
        f'expected {len(header)} columns of CSV, but '
        f'{" ".join(reason.split())[:200]}'
    )
