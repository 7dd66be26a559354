"""Text tables as they come: with byte order marks, in UTF-16, compressed, with semicolons."""

import codecs
import contextlib
import csv
import errno
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pfdet.errors import InputError
from pfdet.files.regular import regular_file

DELIMITERS = ',;\t'
_LONGEST_HEADER = 1 << 16
# The marks of UTF-32 begin with those of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF32_LE, 'utf-32-le'),
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)


@dataclass(frozen=True)
class Header:
    """The first line of a table.

    Attributes:
        names (list of str): Names of the columns, without spaces around them.
        delimiter (str): The separator of the fields, one of :data:`DELIMITERS`.
    """

    names: list[str]
    delimiter: str


@contextlib.contextmanager
def open_utf8(
    path: str | os.PathLike, what: str = 'table', max_size: int | None = None
) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a text file as a stream of UTF-8 without a byte order mark.

    Gzip is detected from the content. UTF-16 and UTF-32 are detected from their byte order mark,
    UTF-16 also without it, if the file begins with two ASCII characters. UTF-8 is passed on as it
    is, also if it is invalid.

    Args:
        path (path): The file.
        what (str): What the file is, for messages.
        max_size (int): Reading more bytes, after decompression, is an error. A small compressed
            file can otherwise fill the memory. By default there is no limit.

    Yields:
        tuple: The file on the disk, whose position tells how much was read, and the stream.

    Raises:
        InputError: If the file cannot be read, is a damaged gzip file, or is invalid UTF-16 or
            UTF-32.
    """
    stream = None
    try:
        with open(path, 'rb', opener=regular_file) as raw:
            file = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b'\x1f\x8b' else raw
            stream = _utf8_stream(file)
            if max_size is not None:
                stream = io.BufferedReader(_AtMost(stream, max_size), 1 << 20)
            yield raw, stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise InputError(f'{path}: damaged gzip file: {e}; expected a complete {what}') from e
    except UnicodeDecodeError as e:
        raise InputError(f'{path}: damaged text: {e}; expected a {what} in UTF-8 or UTF-16') from e
    except OSError as e:
        raise InputError(f'{path}: cannot read the {what}: {e.strerror or e}') from e
    except MemoryError as e:
        raise InputError(f'{path}: not enough memory to read it; expected a {what}') from e


def _utf8_stream(file: BinaryIO) -> BinaryIO:
    # peek may return more or less than asked, but at least one byte before the end of the file.
    head = file.peek(4)[:4]
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            file.read(len(mark))
            return file if encoding == 'utf-8' else io.BufferedReader(_Recoded(file, encoding))
    if len(head) == 4 and head[1] == head[3] == 0 < min(head[0], head[2]):
        return io.BufferedReader(_Recoded(file, 'utf-16-le'))
    if len(head) == 4 and head[0] == head[2] == 0 < min(head[1], head[3]):
        return io.BufferedReader(_Recoded(file, 'utf-16-be'))
    return file


class _Recoded(io.RawIOBase):
    """A stream of UTF-8 from a file in another encoding."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._rest = b''

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self._rest:
            data = self._file.read(1 << 20)
            self._rest = self._decoder.decode(data, not data).encode()
            if not data:
                break
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n


class _AtMost(io.RawIOBase):
    """A stream that must end within a number of bytes."""

    def __init__(self, file: BinaryIO, n_byte: int) -> None:
        self._file = file
        self._n_byte = n_byte
        self._n_left = n_byte

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        n = self._file.readinto(buffer)
        self._n_left -= n
        if self._n_left < 0:
            raise OSError(errno.EFBIG, f'it has more than {self._n_byte:,} bytes')
        return n


def text_lines(file: BinaryIO) -> io.TextIOWrapper:
    """Decode UTF-8 line by line, with all kinds of line ends; invalid bytes become surrogates."""
    return io.TextIOWrapper(file, 'utf-8', errors='surrogateescape', newline='')


def read_first_line(path: str | os.PathLike, what: str = 'table') -> str:
    """Read the first line of a text file, of at most 65,536 characters.

    Raises:
        InputError: As in :func:`open_utf8`.
    """
    with open_utf8(path, what) as (_, stream):
        lines = text_lines(stream)
        line = lines.readline(_LONGEST_HEADER)
        lines.detach()
    return line


def split_header(line: str, required: Sequence[str]) -> Header:
    """Split the first line of a table with the separator that gives all required columns.

    Args:
        line (str): The first line.
        required (sequence of str): Names of columns.

    Returns:
        Header: With the comma if no separator gives all columns.

    Raises:
        csv.Error: If the line is malformed, such as by a stray quote.
    """
    headers, error = [], None
    for delimiter in DELIMITERS:
        try:
            row = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error as e:
            error = error or e
            continue
        headers.append(Header([name.strip() for name in row], delimiter))
        if set(required) <= set(headers[-1].names):
            return headers[-1]
    if error is not None:
        raise error
    return headers[0]
