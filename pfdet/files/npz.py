"""Read arrays of numbers and text from NumPy's .npz and .npy files.

:func:`numpy.load` can execute code from a file of pickled objects, and believes the sizes that a
file declares. This reader accepts only numbers and text. It compares every declared size with the
size of the file and with the available memory before it allocates anything.
"""

import contextlib
import math
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

from pfdet.files.memory import check_memory
from pfdet.files.reading import reading
from pfdet.files.regular import regular_file

_NPZ = 'a .npz file of numbers and text'
_NPY = 'a .npy file of numbers or text'
_MAGIC = b'\x93NUMPY'
# By major version of the format: the struct of the header's length, and its encoding.
_VERSIONS = {1: ('<H', 'latin-1'), 2: ('<I', 'latin-1'), 3: ('<I', 'utf-8')}
# Headers of plain arrays are shorter, however many dimensions they have.
_MAX_HEADER = 10_000
# The header is a Python dictionary. With plain dtypes, it needs no parser of Python.
_ENTRY = re.compile(
    r""" \s* (['"]) (?P<key>\w+) \1 \s*:\s* (?P<value> '[^']*' | "[^"]*" | \w+ | \( [\d\s,L]* \) )
         \s* (?: , | (?=\}) ) """,
    re.VERBOSE,
)
_DTYPE = re.compile(r'[<>|=]?(b1|[iu][1248]|f[248]|U[1-9][0-9]{0,8})')
_OBJECT = re.compile(r'[<>|=]?O\d*')
# Deflate compresses at most about 1 : 1032.
_MAX_RATIO = 1032
_BLOCK = 1 << 20
_SURROGATES = 0xD800, 0xDFFF
_MAX_CHARACTER = 0x10FFFF


class ArrayHeader(NamedTuple):
    """The header of an array.

    Attributes:
        dtype (numpy.dtype): A number or text.
        shape (tuple of int): The shape.
        fortran_order (bool): Whether the first axis varies fastest.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def n_byte(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class ArrayArchive(Mapping[str, np.ndarray]):
    """The arrays of a .npz file by name. An array is read at each access.

    Use :func:`open_npz`. An access raises :class:`~pfdet.errors.InputError` if the array is
    damaged, has pickled objects, or does not fit into memory.

    Args:
        path (path): The file, for messages.
        file (file object): The file, opened for reading bytes.

    Raises:
        InputError: The file is not a .npz file, or has two arrays of the same name.
    """

    def __init__(self, path: str | os.PathLike, file: BinaryIO):
        self.path = path
        with reading(path, _NPZ):
            self._zip = zipfile.ZipFile(file)
            self._members: dict[str, zipfile.ZipInfo] = {}
            for member in self._zip.infolist():
                name = member.filename.removesuffix('.npy')
                if name == member.filename:
                    raise ValueError(f'has a member {_short(name)}, which is not named .npy')
                if name in self._members:
                    raise ValueError(f'has two arrays of the name {_short(name)}')
                self._members[name] = member
            n_byte = sum(member.compress_size for member in self._members.values())
            if n_byte > os.fstat(file.fileno()).st_size:
                raise ValueError('has arrays that overlap')

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __getitem__(self, name: str) -> np.ndarray:
        with self._open(name) as (stream, header):
            check_memory(self.path, header.n_byte, f'array {_short(name)}')
            return _read_data(stream, header)

    def header(self, name: str) -> ArrayHeader:
        """Read dtype and shape of an array.

        Args:
            name (str): Name of the array.

        Raises:
            KeyError: There is no such array.
            InputError: The array is damaged or has pickled objects.
        """
        with self._open(name) as (_, header):
            return header

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[tuple[BinaryIO, ArrayHeader]]:
        member = self._members[name]
        with reading(self.path, _NPZ, f'array {_short(name)}'):
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f'is compressed by method {member.compress_type}, not by deflate')
            growth = _MAX_RATIO if member.compress_type == zipfile.ZIP_DEFLATED else 1
            if member.file_size > growth * member.compress_size:
                raise ValueError(
                    f'declares {member.file_size:,} bytes, more than its '
                    f'{member.compress_size:,} bytes can hold'
                )
            with self._zip.open(member) as stream:
                header, n_header = _read_header(stream)
                if n_header + header.n_byte != member.file_size:
                    raise ValueError(
                        f'declares shape {_short(header.shape)} and dtype {header.dtype}, but has '
                        f'{member.file_size - n_header:,} bytes'
                    )
                yield stream, header


@contextlib.contextmanager
def open_npz(path: str | os.PathLike) -> Iterator[ArrayArchive]:
    """Open a .npz file, to read some of its arrays.

    Args:
        path (path): The file.

    Yields:
        ArrayArchive: The arrays by name.

    Raises:
        InputError: The file cannot be read, or is not a .npz file.
    """
    with reading(path, _NPZ):
        file = open(path, 'rb', opener=regular_file)
    with file:
        yield ArrayArchive(path, file)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read all arrays of a .npz file.

    Args:
        path (path): The file.

    Returns:
        dict: Arrays by name.

    Raises:
        InputError: The file cannot be read, is damaged, has pickled objects, or does not fit into
            memory.
    """
    with open_npz(path) as archive:
        check_memory(path, sum(archive.header(name).n_byte for name in archive))
        return dict(archive)


def read_npy(path: str | os.PathLike) -> np.ndarray:
    """Read the array of a .npy file.

    Args:
        path (path): The file.

    Returns:
        array: The array.

    Raises:
        InputError: The file cannot be read, is damaged, has pickled objects, or does not fit into
            memory.
    """
    with reading(path, _NPY), open(path, 'rb', opener=regular_file) as file:
        header, n_header = _read_header(file)
        size = os.fstat(file.fileno()).st_size
        if n_header + header.n_byte != size:
            raise ValueError(
                f'declares shape {_short(header.shape)} and dtype {header.dtype}, but has '
                f'{size - n_header:,} bytes'
            )
        check_memory(path, header.n_byte)
        return _read_data(file, header)


def _read_header(stream: BinaryIO) -> tuple[ArrayHeader, int]:
    """Read the header of an array, and its length in bytes."""
    start = stream.read(len(_MAGIC) + 2)
    if not start.startswith(_MAGIC) or len(start) < len(_MAGIC) + 2:
        raise ValueError('is not an array of NumPy')
    if start[-2] not in _VERSIONS:
        raise ValueError(f'has version {start[-2]} of the format')
    form, encoding = _VERSIONS[start[-2]]
    (length,) = struct.unpack(form, stream.read(struct.calcsize(form)))
    if length > _MAX_HEADER:
        raise ValueError(f'has a header of {length:,} bytes')
    text = stream.read(length).decode(encoding)
    return _parse_header(text), len(start) + struct.calcsize(form) + length


def _parse_header(text: str) -> ArrayHeader:
    text = text.strip()
    entries = {match['key']: match['value'] for match in _ENTRY.finditer(text)}
    if _ENTRY.sub('', text).replace(' ', '') != '{}' or entries.keys() != {
        'descr',
        'fortran_order',
        'shape',
    }:
        raise ValueError(f'has the header {_short(text)}, which is not that of a plain array')
    dtype, order, shape = (entries[key] for key in ('descr', 'fortran_order', 'shape'))
    if _OBJECT.fullmatch(dtype[1:-1]):
        raise ValueError('has pickled Python objects, which could execute code')
    if not _DTYPE.fullmatch(dtype[1:-1]):
        raise ValueError(f'has dtype {_short(dtype)}')
    if order not in ('True', 'False') or not shape.startswith('('):
        raise ValueError(f'has the header {_short(text)}')
    # Python 2 wrote long integers with an L.
    lengths = tuple(int(n) for n in shape.strip('()').replace('L', '').split(',') if n.strip())
    return ArrayHeader(np.dtype(dtype[1:-1]), lengths, order == 'True')


def _read_data(stream: BinaryIO, header: ArrayHeader) -> np.ndarray:
    """Read the data of an array up to the end of the stream, whose checksum is then verified."""
    flat = np.empty(math.prod(header.shape), header.dtype)
    view = memoryview(flat.view(np.uint8)) if flat.nbytes else memoryview(b'')
    at = 0
    while block := stream.read(_BLOCK):
        if at + len(block) > len(view):
            raise ValueError('has more data than its shape')
        view[at : at + len(block)] = block
        at += len(block)
    if at < len(view):
        raise ValueError(f'ends after {at:,} of {len(view):,} bytes')
    if header.dtype.kind == 'U':
        _check_text(flat)
    if header.fortran_order:
        return flat.reshape(header.shape[::-1]).transpose()
    return flat.reshape(header.shape)


def _check_text(flat: np.ndarray) -> None:
    # Such values of a text array raise errors only where they are used, or printed.
    if flat.nbytes:
        code = flat.view(np.dtype(np.uint32).newbyteorder(flat.dtype.byteorder))
        low, high = _SURROGATES
        if (code > _MAX_CHARACTER).any() or ((code >= low) & (code <= high)).any():
            raise ValueError('has characters that do not exist')


def _short(value: object) -> str:
    text = ascii(value) if not isinstance(value, str) else value
    text = text.encode('ascii', 'backslashreplace').decode()
    return text if len(text) <= 80 else text[:77] + '...'
