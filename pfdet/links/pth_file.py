"""Read the tensors of PyTorch's .pth files, without PyTorch and without executing code.

Since PyTorch 1.6, a file is a zip archive. Its member ``data.pkl`` has the pickled dictionary, and
``data/KEY`` has the bytes of a storage. Before, a file was a sequence of pickles, followed by the
storages: a magic number, the version, facts about the system, the dictionary, and the keys of the
storages. Public weights exist in both formats.
"""

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pfdet.files.memory import check_memory
from pfdet.files.reading import reading
from pfdet.files.regular import regular_file
from pfdet.links.tensor_pickle import STORAGES, LimitedReader, Storage, Tensor, load

_EXPECTED = 'a file of tensors that PyTorch has saved'
_ZIP_START = b'PK\3\4'
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
# The dictionary of a network with 10,000 tensors has about 2 MB.
_MAX_PICKLE = 1 << 24
# Entries of a file that hold the state dict, where it is saved with that of an optimizer.
_STATE_KEYS = ('state_dict', 'model')


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict.

    Args:
        path (path): A file written by ``torch.save``. It has a dictionary of tensors, or one whose
            entry ``state_dict`` or ``model`` is such a dictionary.

    Returns:
        dict: Arrays by name. Floating-point tensors are converted to float32. Entries other than
        tensors are skipped.

    Raises:
        InputError: The file cannot be read or is damaged, has other objects than tensors and basic
            types, or does not fit into memory.
    """
    with reading(path, _EXPECTED), open(path, 'rb', opener=regular_file) as file:
        if file.read(len(_ZIP_START)) == _ZIP_START:
            archive = _ZipFormat(file)
        else:
            file.seek(0)
            archive = _LegacyFormat(file)
        content = archive.content
        for key in _STATE_KEYS:
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        if not isinstance(content, dict):
            raise ValueError('it has no state dict, which maps names to tensors')
        tensors = {
            str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)
        }
        _check_sizes(path, tensors)
        storages = archive.read({tensor.storage.key: tensor.storage for tensor in tensors.values()})
        return {name: _array(tensor, storages) for name, tensor in tensors.items()}


def _check_sizes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    n_byte = 0
    storages: dict[str, Storage] = {}
    for name, (storage, offset, shape, stride) in tensors.items():
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f'storage {storage.key[:80]} is described in two ways')
        n_value = 1
        for n in shape:
            n_value *= n
            # Expanded tensors repeat values; a small file could so describe a huge tensor.
            if n_value > storage.n_value:
                raise ValueError(f'tensor {name[:80]} has more values than its storage')
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride))
        if n_value and last >= storage.n_value:
            raise ValueError(f'tensor {name[:80]} extends beyond its storage')
        n_byte += 8 * n_value
    n_byte += sum(s.n_value * np.dtype(STORAGES[s.kind]).itemsize for s in storages.values())
    check_memory(path, n_byte)


def _array(tensor: Tensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    data = storages[tensor.storage.key][tensor.offset :]
    array = np.lib.stride_tricks.as_strided(
        data, tensor.shape, [step * data.itemsize for step in tensor.stride]
    )
    if tensor.storage.kind == 'BFloat16Storage':
        # bfloat16 is the upper half of a float32.
        return (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind == 'f':
        with np.errstate(over='ignore'):
            return np.array(array, np.float32, order='C')
    return np.array(array, order='C')


def _as_storage(storage: Storage, data: bytes) -> np.ndarray:
    dtype = np.dtype(STORAGES[storage.kind])
    if len(data) != storage.n_value * dtype.itemsize:
        raise ValueError(
            f'storage {storage.key[:80]} has {len(data):,} bytes; expected '
            f'{storage.n_value * dtype.itemsize:,}'
        )
    return np.frombuffer(data, dtype)


class _ZipFormat:
    """A file of PyTorch 1.6 and later."""

    def __init__(self, file: BinaryIO):
        self._size = os.fstat(file.fileno()).st_size
        self._zip = zipfile.ZipFile(file)
        self._members = {member.filename: member for member in self._zip.infolist()}
        if len(self._members) != len(self._zip.infolist()):
            raise ValueError('it has two members of the same name')
        names = [name for name in self._members if name.endswith('/data.pkl')]
        if len(names) != 1 or any(name.endswith('/constants.pkl') for name in self._members):
            raise ValueError('it is a zip archive of another program, or a TorchScript model')
        self._folder = names[0].removesuffix('data.pkl')
        order = self._members.get(f'{self._folder}byteorder')
        if order is not None and self._read(order) != b'little':
            raise ValueError('it is from a big-endian machine')
        pickled = self._members[names[0]]
        if pickled.file_size > _MAX_PICKLE:
            raise ValueError(f'its pickled part has {pickled.file_size:,} bytes')
        self._check(pickled)
        with self._zip.open(pickled) as stream:
            self.content: Any = load(LimitedReader(stream, _MAX_PICKLE))

    def read(self, storages: Mapping[str, Storage]) -> dict[str, np.ndarray]:
        """Read storages by key."""
        return {
            key: _as_storage(storage, self._read(self._members[f'{self._folder}data/{key}']))
            for key, storage in storages.items()
        }

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        self._check(member)
        return self._zip.read(member)

    def _check(self, member: zipfile.ZipInfo) -> None:
        # PyTorch does not compress. So no member can be larger than the file.
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > self._size:
            raise ValueError(f'its member {member.filename[:80]} is compressed or damaged')


class _LegacyFormat:
    """A file of PyTorch before 1.6."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        reader = LimitedReader(file, min(_MAX_PICKLE, self._size))
        if load(reader) != _LEGACY_MAGIC:
            raise ValueError('it begins with another number than files of PyTorch')
        if load(reader) != _LEGACY_VERSION:
            raise ValueError(f'its version is not {_LEGACY_VERSION}')
        system = load(reader)
        if not isinstance(system, dict) or system.get('little_endian') is not True:
            raise ValueError('it is from a big-endian machine')
        self.content: Any = load(reader)
        self._keys = load(reader)
        if not isinstance(self._keys, list) or not all(isinstance(k, str) for k in self._keys):
            raise ValueError('its list of storages is damaged')

    def read(self, storages: Mapping[str, Storage]) -> dict[str, np.ndarray]:
        """Read storages by key. The others are skipped."""
        of_all = {storage.key: storage for storage in _storages(self.content)}
        arrays = {}
        for key in self._keys:
            n_value = int.from_bytes(self._file.read(8), 'little')
            storage = of_all[key]
            if n_value != storage.n_value:
                raise ValueError(
                    f'storage {key[:80]} has {n_value:,} values; expected {storage.n_value:,}'
                )
            n_byte = n_value * np.dtype(STORAGES[storage.kind]).itemsize
            if n_byte > self._size - self._file.tell():
                raise EOFError(f'storage {key[:80]} ends beyond the end of the file')
            if key in storages:
                arrays[key] = _as_storage(storage, self._file.read(n_byte))
            else:
                self._file.seek(n_byte, os.SEEK_CUR)
        return arrays


def _storages(content: Any) -> Iterator[Storage]:
    """All storages of nested dictionaries, lists and tuples."""
    seen: set[int] = set()
    stack = [content]
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            yield value.storage
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            stack.extend(value.values() if isinstance(value, dict) else value)
