"""A file format for named NumPy columns, which are memory-mapped instead of read.

The layout; all numbers are little-endian::

    8 bytes   magic, b'PFDETCOL'
    uint32    format version
    uint32    length of the header in bytes
    uint32    CRC-32 of the header
    12 bytes  zero
    header    JSON in UTF-8: {"kind", "data_size", "columns": {name: {"dtype", "shape", "offset",
              "crc32"}}, ...}; offsets are relative to the start of the data
    data      starts at the next multiple of 64 bytes, as does each column

All bytes are covered: the header by its checksum, each column by that in the header, and the bytes
between them are zero.
"""

import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.files.checksum import crc32_of_part
from pfdet.files.json_file import parse_json
from pfdet.files.memory import check_memory
from pfdet.files.regular import regular_file
from pfdet.files.verified_files import verify_once

_MAGIC = b'PFDETCOL'
_VERSION = 1
_START = struct.Struct('<8sIII12s')
_ALIGNMENT = 64
# Memory of JSON per byte, at most.
_HEADER_GROWTH = 24
_DTYPES = ('|u1', '<i2', '<i4', '<i8', '<f4')
# The CRC of gigabytes is computed in blocks so that it can be interrupted.
_CRC_BLOCK = 1 << 24


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _crc32(data: memoryview) -> int:
    crc = 0
    for at in range(0, len(data), _CRC_BLOCK):
        crc = zlib.crc32(data[at : at + _CRC_BLOCK], crc)
    return crc


def write_columns(
    path: str | os.PathLike, kind: str, columns: Mapping[str, np.ndarray], header: Mapping[str, Any]
) -> int:
    """Write columns to a file. The file appears when it is complete.

    Args:
        path (path): The file. An existing file is replaced.
        kind (str): The kind of content. :func:`map_columns` accepts only this kind.
        columns (mapping): Arrays by name, of uint8, int16, int32, int64 or float32.
        header (mapping): Further entries of the header, as for :func:`json.dumps`.

    Returns:
        int: The size of the file in bytes.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If a column has another dtype.
    """
    entries, blobs, offset = {}, [], 0
    for name, array in columns.items():
        array = np.ascontiguousarray(array, np.dtype(array.dtype).newbyteorder('<'))
        if array.dtype.str not in _DTYPES:
            raise ValueError(f'column {name}: expected a dtype of {_DTYPES}, got {array.dtype}')
        blob = memoryview(array.reshape(-1).view(np.uint8))
        entries[name] = {
            'dtype': array.dtype.str,
            'shape': array.shape,
            'offset': offset,
            'crc32': _crc32(blob),
        }
        blobs.append((offset, blob))
        offset = _aligned(offset + len(blob))
    size = offset
    text = json.dumps({**header, 'kind': kind, 'data_size': size, 'columns': entries}).encode()
    start = _aligned(_START.size + len(text))
    with replace_when_done(path) as unfinished, open(unfinished, 'wb') as f:
        f.write(_START.pack(_MAGIC, _VERSION, len(text), zlib.crc32(text), b'') + text)
        for offset, blob in blobs:
            f.seek(start + offset)
            f.write(blob)
        f.truncate(start + size)
    return start + size


def map_columns(path: str | os.PathLike, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Map the columns of a file into memory, after verifying their checksums.

    A large file is verified once per node and day, see :mod:`pfdet.files.verified_files`; after
    that, only the header is read.

    Args:
        path (path): A file written by :func:`write_columns`.
        kind (str): The expected kind.

    Returns:
        tuple: The read-only arrays by name, and the header. The file stays mapped as long as one
        of the arrays exists. Processes that map the same file share its memory.

    Raises:
        InputError: If the file is missing, truncated, damaged, or of another kind or format
            version.
    """
    expected = f'expected a complete {kind} of pfdet'
    try:
        with open(path, 'rb', opener=regular_file) as f:
            size = os.fstat(f.fileno()).st_size
            start = f.read(_START.size)
            if not start.startswith(_MAGIC):
                raise InputError(f'{path}: not a file of pfdet; {expected}')
            if len(start) < _START.size:
                raise InputError(f'{path}: truncated; {expected}')
            _, version, length, crc, reserved = _START.unpack(start)
            if version != _VERSION:
                raise InputError(
                    f'{path}: has format version {version}; expected version {_VERSION}, '
                    'which this version of pfdet reads; build the file again'
                )
            check_memory(path, _HEADER_GROWTH * min(length, size), 'its header')
            text = f.read(min(length, size))
            if len(text) < length:
                raise InputError(f'{path}: truncated; {expected}')
            if zlib.crc32(text) != crc or reserved.strip(b'\0'):
                raise InputError(f'{path}: the header is damaged; {expected}')
            header = parse_json(path, text, f'a complete {kind} of pfdet', 'the header')
            if header['kind'] != kind:
                raise InputError(f'{path}: its kind is {header["kind"]!r}; {expected}')
            data = _aligned(_START.size + length)
            if size != data + header['data_size']:
                raise InputError(
                    f'{path}: has {size} bytes instead of {data + header["data_size"]}; {expected}'
                )
            verify_once(path, f.fileno(), lambda: _verify(path, f, header, data))
            mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        return {
            name: _column(mapped, data, entry) for name, entry in header['columns'].items()
        }, header
    except OSError as e:
        raise InputError(f'{path}: cannot read the {kind}: {e.strerror or e}') from e
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as e:
        # The checksum is correct, so another program wrote the file.
        raise InputError(
            f'{path}: the header is malformed ({type(e).__name__}: {e}); {expected}'
        ) from e


def _column(mapped: mmap.mmap, data: int, entry: Mapping[str, Any]) -> np.ndarray:
    if entry['dtype'] not in _DTYPES:
        raise ValueError(f'expected a dtype of {_DTYPES}, got {entry["dtype"]!r}')
    dtype, shape = np.dtype(entry['dtype']), tuple(entry['shape'])
    if 0 in shape:
        return _empty(shape, dtype)
    # Slicing plain arrays is ten times faster than slicing numpy.memmap.
    return np.frombuffer(mapped, dtype, math.prod(shape), data + entry['offset']).reshape(shape)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    array = np.empty(shape, dtype)
    array.flags.writeable = False
    return array


def _verify(path: str | os.PathLike, f: BinaryIO, header: Mapping[str, Any], data: int) -> None:
    """Verify all columns of an open file, whose data start at ``data``."""
    # Read rather than mapped: an error of the disk is then an exception instead of a signal.
    end = f.tell()
    entries = sorted(header['columns'].items(), key=lambda item: item[1]['offset'])
    for name, entry in entries:
        start = data + entry['offset']
        _verify_zeros(path, f, end, start)
        n_byte = math.prod(entry['shape']) * np.dtype(entry['dtype']).itemsize
        if crc32_of_part(f, start, n_byte) != entry['crc32']:
            raise _damaged(path, f'column {name}', header['kind'])
        end = start + n_byte
    _verify_zeros(path, f, end, data + header['data_size'])


def _verify_zeros(path: str | os.PathLike, f: BinaryIO, start: int, end: int) -> None:
    # Alignment leaves less than 64 bytes.
    f.seek(start)
    if f.read(max(0, min(end - start, _ALIGNMENT))).strip(b'\0'):
        raise InputError(f'{path}: bytes between the columns are damaged; expected zeros')


def _damaged(path: str | os.PathLike, part: str, kind: str) -> InputError:
    return InputError(f'{path}: {part} is damaged (checksum mismatch); build the {kind} again')


def verify_columns(
    path: str | os.PathLike, columns: Mapping[str, np.ndarray], header: Mapping[str, Any]
) -> None:
    """Read all columns and verify their checksums.

    Args:
        path (path): The file, for the error message.
        columns (mapping): From :func:`map_columns`.
        header (mapping): From :func:`map_columns`.

    Raises:
        InputError: If a column is damaged. The message names it.
    """
    for name, array in columns.items():
        blob = memoryview(array.reshape(-1).view(np.uint8))
        if _crc32(blob) != header['columns'][name]['crc32']:
            raise _damaged(path, f'column {name}', header['kind'])


def relative_root(root: str | os.PathLike, path: str | os.PathLike) -> dict[str, str | None]:
    """Return the relative and the absolute path of a directory, for :func:`find_root`.

    Args:
        root (path): A directory.
        path (path): The file to store the paths in. The relative path starts at its directory.

    Returns:
        dict: ``relative``, :obj:`None` if the two are on different drives, and ``absolute``.
    """
    absolute = os.path.abspath(root)
    try:
        relative = Path(os.path.relpath(absolute, os.path.dirname(os.path.abspath(path))))
    except ValueError:  # another drive
        return {'relative': None, 'absolute': absolute}
    return {'relative': relative.as_posix(), 'absolute': absolute}


def find_root(stored: Mapping[str, str | None], path: str | os.PathLike) -> Path:
    """Return the directory stored by :func:`relative_root`.

    If the relative path exists, it takes precedence, so that the file and the directory can be
    moved together. Otherwise the absolute path is returned, so that the file can be moved alone.

    Args:
        stored (mapping): From :func:`relative_root`.
        path (path): The current path of the file.

    Returns:
        pathlib.Path: The directory. It may not exist.
    """
    if stored['relative'] is not None:
        relative = Path(os.path.abspath(path)).parent / stored['relative']
        if relative.is_dir():
            return Path(os.path.normpath(relative))
    return Path(stored['absolute'])
