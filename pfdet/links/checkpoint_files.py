"""Readers of public checkpoints: PyTorch's .pth, .safetensors, and Chainer's .npz."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from pfdet.errors import InputError
from pfdet.files.json_file import parse_json
from pfdet.files.npz import read_npz
from pfdet.files.reading import reading
from pfdet.files.regular import regular_file
from pfdet.links.pth_file import read_pth

_SAFETENSORS_DTYPES = {
    'F64': '<f8',
    'F32': '<f4',
    'F16': '<f2',
    'BF16': '<u2',
    'I64': '<i8',
    'I32': '<i4',
    'I16': '<i2',
    'I8': '|i1',
    'U8': '|u1',
    'BOOL': '|b1',
}
# The header of a network with 10,000 tensors has about 1 MB.
_MAX_HEADER = 1 << 24
# That of NumPy.
_MAX_DIMENSION = 64
_SAFETENSORS = 'a .safetensors file'
# What training programs put before the names of a network: PyTorch's DataParallel and compile,
# Lightning, and the backbone of a larger network.
PREFIXES = 'module.', '_orig_mod.', 'model.', 'backbone.', 'encoder.'


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint.

    Args:
        path (path): ``.pth``, ``.pth.tar``, ``.pt`` or ``.bin`` of PyTorch, ``.safetensors`` or
            ``.npz``.

    Returns:
        dict: Arrays by name. bfloat16 is converted to float32. :data:`PREFIXES` that all names have
        are removed.

    Raises:
        InputError: The file cannot be read.
    """
    path = Path(path)
    readers = {
        '.pth': read_pth,
        '.pt': read_pth,
        '.bin': read_pth,
        '.tar': read_pth,
        '.safetensors': read_safetensors,
        '.npz': read_npz,
    }
    if path.suffix not in readers or (path.suffix == '.tar' and '.pth' not in path.suffixes):
        raise InputError(f'{path}: expected a file named .pth, .safetensors or .npz')
    return without_prefixes(readers[path.suffix](path))


def without_prefixes(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove the :data:`PREFIXES` that all names have, such as both of ``module.backbone.``."""
    while arrays:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in arrays)), None)
        if prefix is None:
            break
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read a ``.safetensors`` file by memory mapping.

    The file consists of the length of a JSON header (8 bytes, little-endian), the header, and the
    data of the tensors. The header has the offsets of each tensor in the data.

    Args:
        path (path): The file.

    Returns:
        dict: Arrays by name.

    Raises:
        InputError: The file is damaged or has a dtype that NumPy does not support.
    """
    with reading(path, _SAFETENSORS), open(path, 'rb', opener=regular_file) as file:
        content = np.memmap(file, np.uint8, 'r')
    size = int.from_bytes(content[:8].tobytes(), 'little')
    if len(content) < 8 or size > len(content) - 8:
        raise InputError(f'{path}: header does not fit into the file; expected {_SAFETENSORS}')
    if size > _MAX_HEADER:
        raise InputError(
            f'{path}: header of {size:,} bytes; expected at most {_MAX_HEADER:,} bytes'
        )
    header = parse_json(path, content[8 : 8 + size].tobytes(), _SAFETENSORS, 'header')
    if not isinstance(header, dict):
        raise InputError(f'{path}: header is not a JSON object; expected {_SAFETENSORS}')
    header.pop('__metadata__', None)
    data = content[8 + size :]
    return {name: _tensor(path, name, entry, data) for name, entry in header.items()}


def _tensor(path: Path, name: str, entry: Any, data: np.ndarray) -> np.ndarray:
    with reading(path, _SAFETENSORS, f'tensor {name[:80]}'):
        try:
            dtype, shape, (begin, end) = entry['dtype'], entry['shape'], entry['data_offsets']
            valid = len(shape) <= _MAX_DIMENSION and isinstance(dtype, str)
            valid = valid and all(type(n) is int and n >= 0 for n in (begin, end, *shape))
        except (KeyError, TypeError, ValueError):
            valid = False
        if not valid:
            raise ValueError('it has no valid dtype, shape and data_offsets')
        if dtype not in _SAFETENSORS_DTYPES:
            raise ValueError(f'dtype {dtype[:20]} is none of {", ".join(_SAFETENSORS_DTYPES)}')
        stored = np.dtype(_SAFETENSORS_DTYPES[dtype])
        if not begin <= end <= len(data):
            raise ValueError(
                f'bytes {begin} to {end} of {len(data)}: the file is truncated or damaged'
            )
        if end - begin != math.prod(shape) * stored.itemsize:
            raise ValueError(f'{end - begin} bytes for shape {tuple(shape)} of {dtype}')
        array = data[begin:end].view(stored).reshape(shape)
        if dtype == 'BF16':
            # bfloat16 is the upper half of a float32.
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array
