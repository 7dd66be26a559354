"""A checksum of a whole Parquet file.

Parquet's own checksums cover the data of pages, but neither their headers nor the footer with the
schema, the statistics and the metadata, and versions of pyarrow before 15 cannot write them. So
files of this package have checksums of all their bytes. They are between the row groups and the
footer, where other readers ignore them, since all positions in the footer are counted from the
start of the file::

    row groups
    8 bytes    magic, b'PFDETCRC'
    uint32     CRC-32 of the row groups
    uint32     CRC-32 of all bytes that follow
    footer
    uint32     length of the footer in bytes
    4 bytes    magic of Parquet, b'PAR1'

Numbers are little-endian. Files of other programs, and of earlier versions, have no such checksum
and are read without it.
"""

import inspect
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from pfdet.errors import InputError
from pfdet.files.checksum import crc32_of_part
from pfdet.files.verified_files import verify_once

_MAGIC = b'PFDETCRC'
_RECORD = struct.Struct('<8sII')
_END = struct.Struct('<I4s')
_PARQUET = b'PAR1'


def _if_known(function: Any, option: str) -> dict[str, bool]:
    return {option: True} if option in inspect.signature(function).parameters else {}


#: Arguments of :class:`pyarrow.parquet.ParquetWriter` for checksums of pages, if it has them.
WRITE_PAGE_CHECKSUMS = _if_known(pq.ParquetWriter, 'write_page_checksum')
#: Arguments of :class:`pyarrow.parquet.ParquetFile` that verify them, as other programs write them.
VERIFY_PAGES = _if_known(pq.ParquetFile, 'page_checksum_verification')


def append_checksum(path: Path) -> None:
    """Insert the checksums into a complete Parquet file.

    Args:
        path (path): The file, without checksums.

    Raises:
        OSError: The file cannot be written.
    """
    with open(path, 'r+b') as f:
        start = _footer_start(f)
        if start is None:
            raise ValueError(f'{path}: not a Parquet file')
        f.seek(start)
        footer = f.read()
        record = _RECORD.pack(_MAGIC, crc32_of_part(f, 0, start), zlib.crc32(footer))
        f.seek(start)
        f.write(record + footer)


def verify_checksum(path: str | os.PathLike, f: BinaryIO) -> None:
    """Verify a Parquet file that has checksums; a large file once per node and day.

    Args:
        path (path): The file.
        f (file): The same file, opened for reading bytes.

    Raises:
        InputError: The file is damaged.
    """
    start = _footer_start(f)
    if start is None or start < _RECORD.size:
        return
    f.seek(start - _RECORD.size)
    magic, crc_rows, crc_footer = _RECORD.unpack(f.read(_RECORD.size))
    if magic != _MAGIC:
        return

    def verify() -> None:
        size = os.fstat(f.fileno()).st_size
        if (
            crc32_of_part(f, start, size - start) != crc_footer
            or crc32_of_part(f, 0, start - _RECORD.size) != crc_rows
        ):
            raise InputError(
                f'{path}: damaged (checksum mismatch); expected a complete Parquet file'
            )

    verify_once(path, f.fileno(), verify)


def _footer_start(f: BinaryIO) -> int | None:
    """Where the footer starts; :obj:`None` if this is no Parquet file."""
    size = f.seek(0, os.SEEK_END)
    if size < _END.size:
        return None
    f.seek(size - _END.size)
    length, magic = _END.unpack(f.read(_END.size))
    start = size - _END.size - length
    return start if magic == _PARQUET and start >= 0 else None
