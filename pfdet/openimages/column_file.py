"""A file of named NumPy columns that is mapped into memory instead of read.

Layout, all numbers little-endian::

    8 bytes   magic, b'PFDETCOL'
    uint32    format version
    uint32    length of the header in bytes
    uint32    CRC-32 of the header
    12 bytes  zero
    header    JSON in UTF-8: {"kind", "data_size", "columns": {name: {"dtype", "shape", "offset",
              "crc32"}}, ...}; offsets count from the data's start
    data      begins at the next multiple of 64 bytes, as does every column
"""

import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError

_MAGIC = b'PFDETCOL'
_VERSION = 1
_START = struct.Struct('<8sIII12s')
_ALIGNMENT = 64
_DTYPES = ('|u1', '<i2', '<i4', '<i8', '<f4')
# CRC in pieces keeps the interpreter responsive to interrupts over gigabytes.
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
    """Write columns to a file that appears only when it is complete.

    Args:
        path (path): The file; an old one is replaced.
        kind (str): What the columns are; :func:`map_columns` refuses another kind.
        columns (mapping): Arrays of uint8, int16, int32, int64 or float32.
        header (mapping): More that can be JSON.

    Returns:
        int: The size of the file in bytes.

    Raises:
        OSError: If the file cannot be written.
    """
    entries, blobs, at = {}, [], 0
    for name, array in columns.items():
        array = np.ascontiguousarray(array, np.dtype(array.dtype).newbyteorder('<'))
        if array.dtype.str not in _DTYPES:
            raise ValueError(f'column {name}: {array.dtype} is none of {_DTYPES}')
        blob = memoryview(array.reshape(-1).view(np.uint8))
        entries[name] = {
            'dtype': array.dtype.str,
            'shape': array.shape,
            'offset': at,
            'crc32': _crc32(blob),
        }
        blobs.append((at, blob))
        at = _aligned(at + len(blob))
    text = json.dumps({**header, 'kind': kind, 'data_size': at, 'columns': entries}).encode()
    start = _aligned(_START.size + len(text))
    with replace_when_done(path) as unfinished, open(unfinished, 'wb') as f:
        f.write(_START.pack(_MAGIC, _VERSION, len(text), zlib.crc32(text), b'') + text)
        for at_column, blob in blobs:
            f.seek(start + at_column)
            f.write(blob)
        f.truncate(start + at)
    return start + at


def map_columns(path: str | os.PathLike, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Map a file of columns, without reading the columns.

    Args:
        path (path): A file that :func:`write_columns` wrote.
        kind (str): The kind it must be.

    Returns:
        tuple: The read-only arrays by name, and the header. The file stays mapped as long as
        an array lives; processes that map the same file share its memory.

    Raises:
        InputError: If the file is missing, truncated, of another kind or made by a newer
            version, or its header is damaged.
    """
    expected = f'expected a complete {kind} of pfdet'
    try:
        with open(path, 'rb') as f:
            size = os.fstat(f.fileno()).st_size
            start = f.read(_START.size)
            if not start.startswith(_MAGIC):
                raise InputError(f'{path}: another kind of file; {expected}')
            if len(start) < _START.size:
                raise InputError(f'{path}: truncated; {expected}')
            _, version, length, crc, reserved = _START.unpack(start)
            if version != _VERSION:
                raise InputError(
                    f'{path}: has format version {version}, and this pfdet reads '
                    f'version {_VERSION}; build the file again'
                )
            text = f.read(min(length, size))
            if len(text) < length:
                raise InputError(f'{path}: truncated; {expected}')
            if zlib.crc32(text) != crc or reserved.strip(b'\0'):
                raise InputError(f'{path}: the header is damaged; {expected}')
            header = json.loads(text)
            if header['kind'] != kind:
                raise InputError(f'{path}: its kind is {header["kind"]!r}; {expected}')
            data = _aligned(_START.size + length)
            if size != data + header['data_size']:
                raise InputError(
                    f'{path}: has {size} bytes instead of {data + header["data_size"]}; {expected}'
                )
            mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        return {
            name: _column(mapped, data, entry) for name, entry in header['columns'].items()
        }, header
    except OSError as e:
        raise InputError(f'{path}: cannot read the {kind}: {e.strerror or e}') from e
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as e:
        # The checksum is right: some other program wrote it.
        raise InputError(
            f'{path}: the header is not as pfdet writes it ({type(e).__name__}: {e}); {expected}'
        ) from e


def _column(mapped: mmap.mmap, data: int, entry: Mapping[str, Any]) -> np.ndarray:
    if entry['dtype'] not in _DTYPES:
        raise ValueError(f'{entry["dtype"]!r} is none of {_DTYPES}')
    dtype, shape = np.dtype(entry['dtype']), tuple(entry['shape'])
    if 0 in shape:
        return _empty(shape, dtype)
    # Plain arrays over the map: slicing them costs a tenth of slicing numpy.memmap.
    return np.frombuffer(mapped, dtype, math.prod(shape), data + entry['offset']).reshape(shape)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    array = np.empty(shape, dtype)
    array.flags.writeable = False
    return array


def verify_columns(
    path: str | os.PathLike, columns: Mapping[str, np.ndarray], header: Mapping[str, Any]
) -> None:
    """Read all columns once and compare their checksums.

    Args:
        path (path): For the message.
        columns (mapping): From :func:`map_columns`.
        header (mapping): From :func:`map_columns`.

    Raises:
        InputError: If a column is damaged; the message names it.
    """
    for name, array in columns.items():
        blob = memoryview(array.reshape(-1).view(np.uint8))
        if _crc32(blob) != header['columns'][name]['crc32']:
            raise InputError(
                f'{path}: column {name} is damaged (its checksum differs); '
                f'build the {header["kind"]} again'
            )


def relative_root(root: str | os.PathLike, path: str | os.PathLike) -> dict[str, str | None]:
    """Describe a directory so that :func:`find_root` finds it again from the file ``path``.

    Args:
        root (path): A directory.
        path (path): The file that will remember it.
    """
    absolute = os.path.abspath(root)
    try:
        relative = Path(os.path.relpath(absolute, os.path.dirname(os.path.abspath(path))))
    except ValueError:  # another drive
        return {'relative': None, 'absolute': absolute}
    return {'relative': relative.as_posix(), 'absolute': absolute}


def find_root(stored: Mapping[str, str | None], path: str | os.PathLike) -> Path:
    """Find the directory of :func:`relative_root`.

    The place relative to the file comes first, so that a folder moved as a whole keeps working;
    then the absolute place, so that the file alone can move.

    Args:
        stored (mapping): From :func:`relative_root`.
        path (path): Where the file is now.
    """
    if stored['relative'] is not None:
        beside = Path(os.path.abspath(path)).parent / stored['relative']
        if beside.is_dir():
            return Path(os.path.normpath(beside))
    return Path(stored['absolute'])
