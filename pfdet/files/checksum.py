"""Checksums of files and of parts of them."""

import hashlib
import os
import zlib
from typing import BinaryIO

from pfdet.files.regular import regular_file

_BLOCK = 1 << 20
# Larger blocks are no faster here.
_CRC_BLOCK = 1 << 16


def file_checksum(path: str | os.PathLike) -> str:
    """Compute the SHA-256 checksum of a file.

    Args:
        path (path): The file.

    Returns:
        str: Hexadecimal digest.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, 'rb', opener=regular_file) as f:
        while block := f.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def crc32_of_part(file: BinaryIO, start: int, n_byte: int) -> int:
    """Compute the CRC-32 of a part of an open file; of less, if the file ends before.

    Args:
        file (binary file): The file. Its position changes.
        start (int): Position of the first byte.
        n_byte (int): Number of bytes.
    """
    file.seek(start)
    crc = 0
    while n_byte > 0 and (block := file.read(min(n_byte, _CRC_BLOCK))):
        crc = zlib.crc32(block, crc)
        n_byte -= len(block)
    return crc
