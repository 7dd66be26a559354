"""Checksums of whole files."""

import hashlib
import os

from pfdet.files.regular import regular_file

_BLOCK = 1 << 20


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
