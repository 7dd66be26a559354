"""The CSV dialect of detections, submissions and lists of image ids.

All commands read these files with this module, so they agree on what is a CSV file:

- The text is UTF-8, with or without a byte order mark.
- Lines end with LF, CRLF or CR. Empty lines are ignored, except the first.
- The first line is the header. Every other line has as many fields as the header.
- Fields are separated by commas. Spaces are part of a field, but are ignored around a number.
- A field may be quoted as a whole, within one line. A quote inside it is doubled. Any other quote
  is an error, because it would hide all rows up to the next quote.

pyarrow parses blocks of whole lines. If it rejects a block, a slow second pass finds the line.
"""

import codecs
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv

from pfdet.cores import n_core
from pfdet.errors import InputError
from pfdet.files import lines
from pfdet.files.arrow_memory import arrow_copy
from pfdet.files.regular import regular_file

_BLOCK_SIZE = 1 << 22
_MAX_THREADS = 8
_LINE_END = re.compile(b'\r\n|\r|\n')
_FIELD = re.compile(r'(?:^|(?<=,))(?:"((?:[^"]|"")*)"|([^",]*))(?=,|$)')
_MAY_BE_BESIDE_QUOTES = np.isin(np.arange(256), list(b',"\r\n'))


class _StrayQuoteError(Exception):
    """A quote does not belong to a field that is quoted as a whole."""


@dataclass(frozen=True)
class CSVBlock:
    """Consecutive lines of a CSV file.

    Attributes:
        path (path): The file.
        line (int): Number of the first line. The header is line 1.
        data (bytes): The lines.
    """

    path: str | os.PathLike
    line: int
    data: bytes

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Split the lines into fields, in Python.

        Bytes that are not UTF-8 are decoded to surrogates.

        Yields:
            tuple: Number and fields of each line that is not empty.

        Raises:
            InputError: A quote is misplaced. The message names the line.
        """
        for number, line in enumerate(_LINE_END.split(self.data), self.line):
            if not line:
                continue
            try:
                _check_quotes(line)
            except _StrayQuoteError as e:
                raise InputError(
                    f'{self.path}, line {number}: {e}; expected fields that are quoted as a whole, '
                    'within one line, or not at all'
                ) from e
            yield number, _split(line.decode(errors='surrogateescape'))

    def lines(self, n_row: int) -> Sequence[int]:
        """Return the line number of each row.

        Args:
            n_row (int): Number of rows of the block.

        Returns:
            sequence of int: Numbers :math:`(n_{row},)`.
        """
        n_line = count_line_ends(self.data) + (self.data[-1:] not in (b'\r', b'\n'))
        if n_line == n_row:
            return range(self.line, self.line + n_row)
        return [number for number, _ in self.rows()]

    def parse(self, header: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
        """Parse columns of the block.

        Args:
            header (sequence of str): Names of all columns.
            types (mapping): Types of the columns to parse, float or string or a dictionary of
                strings.

        Returns:
            pyarrow.Table: These columns, with null for empty fields.

        Raises:
            InputError: A line has a wrong number of fields, a misplaced quote, an invalid number,
                or text that is not UTF-8. The message names the line.
        """
        # Columns are addressed by position, since the names of other columns may be repeated.
        columns = {str(header.index(name)): type_ for name, type_ in types.items()}
        schema = pa.schema(list(types.items()))
        # Stops at the first character of a row.
        if not self.data.lstrip(b'\r\n'):
            return schema.empty_table()
        # pyarrow would remove a byte order mark from any block. After the header it is text.
        data = b'\n' + self.data if self.data.startswith(codecs.BOM_UTF8) else self.data
        try:
            quoted = _check_quotes(data)
            # read_csv would start a new thread at each call.
            with pa.csv.open_csv(
                pa.BufferReader(arrow_copy(data)),
                pa.csv.ReadOptions(
                    use_threads=False,
                    block_size=len(data) + 64,
                    column_names=[str(i) for i in range(len(header))],
                ),
                pa.csv.ParseOptions(quote_char='"' if quoted else False),
                pa.csv.ConvertOptions(
                    column_types=columns,
                    include_columns=list(columns),
                    null_values=[''],
                    strings_can_be_null=True,
                ),
            ) as reader:
                return pa.Table.from_batches(reader, reader.schema).rename_columns(list(types))
        except (pa.ArrowException, _StrayQuoteError) as e:
            self._raise_for_first_bad_line(header, types)
            raise InputError(
                f'{self.path}, in the block that begins with line {self.line}: expected CSV with '
                f'{len(header)} columns, but {" ".join(str(e).split())[:200]}'
            ) from e

    def _raise_for_first_bad_line(
        self, header: Sequence[str], types: Mapping[str, pa.DataType]
    ) -> None:
        for number, row in self.rows():
            where = f'{self.path}, line {number}'
            if len(row) != len(header):
                raise InputError(
                    f'{where}: {len(row)} fields; expected {len(header)} as in the header, found '
                    f'{",".join(row)[:40]!r}'
                )
            for name, type_ in types.items():
                value = row[header.index(name)]
                if pa.types.is_floating(type_):
                    if value and not is_number(value.strip(' \t')):
                        raise InputError(f'{where}: {name} is {value[:60]!r}; expected a number')
                elif not is_unicode(value):
                    found = value[:60].encode(errors='surrogateescape')
                    raise InputError(f'{where}: {name} is {found!r}; expected UTF-8 text')


def is_number(text: str) -> bool:
    """Whether pyarrow parses a text as a number, which may be NaN or infinite.

    Args:
        text (str): The text, without spaces around it.

    Returns:
        bool: False for what only Python parses, such as ``'1_0'``.
    """
    try:
        pa.scalar(text).cast(pa.float64())
    except (pa.ArrowException, UnicodeEncodeError):
        return False
    return True


def is_unicode(text: str) -> bool:
    """Whether a text was decoded from UTF-8 only.

    Args:
        text (str): A field of :meth:`CSVBlock.rows`.

    Returns:
        bool: False if bytes were decoded to surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_header(path: str | os.PathLike) -> list[str]:
    """Read the first line of a CSV file.

    Args:
        path (path): The file.

    Returns:
        list of str: The fields; empty if the line is.

    Raises:
        InputError: The line is not UTF-8, or a quote is misplaced.
        OSError: The file cannot be read.
    """
    with open(path, 'rb', opener=regular_file) as f:
        line = f.readline(lines.LONGEST_LINE).removeprefix(codecs.BOM_UTF8)
    line = _LINE_END.split(line, 1)[0]
    try:
        line.decode()
    except UnicodeDecodeError as e:
        raise InputError(f'{path}, line 1: expected UTF-8 text, but {e}') from e
    return next((fields for _, fields in CSVBlock(path, 1, line).rows()), [])


def csv_blocks(path: str | os.PathLike, block_size: int | None = None) -> Iterator[CSVBlock]:
    """Read the lines after the header.

    Args:
        path (path): A CSV file.
        block_size (int): Size of a block in bytes, by default 4 MiB. A block is longer if a line
            is.

    Yields:
        CSVBlock: The lines.

    Raises:
        InputError: A line is longer than 64 MiB.
        OSError: The file cannot be read.
    """
    for block in _blocks(path, block_size or _BLOCK_SIZE):
        if block.line > 1:
            yield block
        elif end := _LINE_END.search(block.data):
            yield CSVBlock(path, 2, block.data[end.end() :])


def parse_blocks(
    path: str | os.PathLike, header: Sequence[str], types: Mapping[str, pa.DataType]
) -> Iterator[pa.Table]:
    """Parse the lines after the header in several threads.

    Args:
        path (path): A CSV file.
        header, types: See :meth:`CSVBlock.parse`.

    Yields:
        pyarrow.Table: The rows of each block, in order.

    Raises:
        InputError: See :meth:`CSVBlock.parse`. The message names the first such line.
        OSError: The file cannot be read.
    """
    n_thread = min(n_core(), _MAX_THREADS)
    waiting: deque[Future[pa.Table]] = deque()
    with ThreadPoolExecutor(n_thread) as pool:
        for block in csv_blocks(path):
            waiting.append(pool.submit(block.parse, header, types))
            # Memory holds as many blocks as there are threads.
            if len(waiting) == n_thread:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def csv_rows(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """Read all lines, including the first, in Python.

    Args:
        path (path): A CSV file.

    Yields:
        tuple: Number and fields of each line that is not empty.

    Raises:
        InputError: A quote is misplaced, or a line is longer than 64 MiB.
        OSError: The file cannot be read.
    """
    for block in _blocks(path, _BLOCK_SIZE):
        yield from block.rows()


def _blocks(path: str | os.PathLike, block_size: int) -> Iterator[CSVBlock]:
    line = 1
    with open(path, 'rb', opener=regular_file) as f:
        if f.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            f.seek(0)

        def too_long() -> InputError:
            return InputError(
                f'{path}, line {line}: the line is longer than {lines.LONGEST_LINE} bytes; '
                'expected a CSV file'
            )

        for data in lines.whole_lines(lambda: f.read(block_size), too_long):
            yield CSVBlock(path, line, data)
            line += count_line_ends(data)


def count_line_ends(data: bytes) -> int:
    """Count the line ends of a text: LF, CRLF and CR.

    Args:
        data (bytes): The text.

    Returns:
        int: The number of line ends.
    """
    n = data.count(b'\n')
    return n + data.count(b'\r') - data.count(b'\r\n') if b'\r' in data else n


def _check_quotes(data: bytes) -> bool:
    # Returns whether there are quotes. They are paired in order of occurrence. A doubled quote ends
    # one pair and begins the next.
    if b'"' not in data:
        return False
    text = np.frombuffer(b'\n' + data + b'\n', np.uint8)
    found = (text == ord('"')) | (text == ord('\n'))
    if b'\r' in data:
        found |= text == ord('\r')
    at = np.flatnonzero(found)
    is_quote = text[at] == ord('"')
    inside = np.cumsum(is_quote) % 2 == 1
    if inside[-1]:
        raise _StrayQuoteError('a quote without its counterpart')
    if (inside & ~is_quote).any():
        raise _StrayQuoteError('a line end inside quotes')
    begin, end = at[is_quote & inside], at[is_quote & ~inside]
    if not (_MAY_BE_BESIDE_QUOTES[text[begin - 1]] & _MAY_BE_BESIDE_QUOTES[text[end + 1]]).all():
        raise _StrayQuoteError('a quote inside a field')
    return True


def _split(line: str) -> list[str]:
    if '"' not in line:
        return line.split(',')
    return [quoted.replace('""', '"') or plain for quoted, plain in _FIELD.findall(line)]
