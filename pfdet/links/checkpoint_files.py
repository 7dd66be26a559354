"""Readers of public checkpoints: PyTorch's .pth, .safetensors, and Chainer's .npz."""

import json
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pfdet.errors import InputError

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
# The limit of the format's own reader.
_MAX_HEADER = 100_000_000


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint.

    Args:
        path (path): ``.pth``, ``.pt`` or ``.bin`` (needs PyTorch), ``.safetensors`` or ``.npz``.

    Returns:
        dict: Arrays by name. bfloat16 is converted to float32. If all names have the prefix
        ``module.``, it is removed.

    Raises:
        InputError: The file cannot be read.
    """
    path = Path(path)
    readers = {
        '.pth': _read_pth,
        '.pt': _read_pth,
        '.bin': _read_pth,
        '.safetensors': read_safetensors,
        '.npz': read_npz,
    }
    if path.suffix not in readers:
        raise InputError(f'{path}: expected a file named .pth, .safetensors or .npz')
    arrays = readers[path.suffix](path)
    # The prefix of PyTorch's DataParallel.
    if arrays and all(name.startswith('module.') for name in arrays):
        arrays = {name.removeprefix('module.'): a for name, a in arrays.items()}
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
    try:
        content = np.memmap(path, np.uint8, 'r')
    except (OSError, ValueError) as e:
        # mmap raises ValueError for an empty file.
        raise InputError(f'{path}: {getattr(e, "strerror", None) or e}') from e
    size = int.from_bytes(content[:8].tobytes(), 'little')
    if len(content) < 8 or size > min(_MAX_HEADER, len(content) - 8):
        raise InputError(f'{path}: not a safetensors file: header does not fit into the file')
    try:
        header = json.loads(content[8 : 8 + size].tobytes().decode('utf-8'))
    except (UnicodeDecodeError, ValueError, RecursionError) as e:
        raise InputError(f'{path}: not a safetensors file: header is not JSON: {e}') from e
    if not isinstance(header, dict):
        raise InputError(f'{path}: not a safetensors file: header is not a JSON object')
    header.pop('__metadata__', None)
    data = content[8 + size :]
    return {name: _tensor(path, name, entry, data) for name, entry in header.items()}


def _tensor(path: Path, name: str, entry: Any, data: np.ndarray) -> np.ndarray:
    try:
        dtype, shape, (begin, end) = entry['dtype'], entry['shape'], entry['data_offsets']
        numbers = [begin, end, *shape]
        valid = all(type(n) is int and n >= 0 for n in numbers)
    except (KeyError, TypeError, ValueError):
        valid = False
    if not valid:
        raise InputError(f'{path}: tensor {name}: expected dtype, shape and data_offsets')
    if dtype not in _SAFETENSORS_DTYPES:
        raise InputError(
            f'{path}: tensor {name}: dtype {dtype} is none of {", ".join(_SAFETENSORS_DTYPES)}'
        )
    stored = np.dtype(_SAFETENSORS_DTYPES[dtype])
    if not begin <= end <= len(data):
        raise InputError(
            f'{path}: tensor {name}: bytes {begin} to {end} of {len(data)}: '
            'the file is truncated or damaged'
        )
    if end - begin != math.prod(shape) * stored.itemsize:
        raise InputError(
            f'{path}: tensor {name}: {end - begin} bytes for shape {tuple(shape)} of {dtype}'
        )
    array = data[begin:end].view(stored).reshape(shape)
    if dtype == 'BF16':
        # bfloat16 is the upper half of a float32.
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read a ``.npz`` file.

    Args:
        path (path): The file.

    Returns:
        dict: Arrays by name.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as e:
        raise InputError(f'{path}: {e.strerror or e}') from e
    except (ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as e:
        # A .npy file with suffix .npz raises TypeError or, in old NumPy, AttributeError.
        raise InputError(f'{path}: not a .npz file of arrays: {e}') from e


def _read_pth(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as e:
        raise InputError(
            f'{path}: only PyTorch can read {path.suffix}, and it is not installed: install it '
            '(pip install torch), or convert the weights to .safetensors'
        ) from e
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except OSError as e:
        raise InputError(f'{path}: {e.strerror or e}') from e
    except (
        RuntimeError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        pickle.UnpicklingError,
    ) as e:
        raise InputError(
            f'{path}: not a file of tensors that PyTorch can read: {str(e).splitlines()[0]}'
        ) from e
    # Training scripts save the state dict together with that of the optimizer.
    for key in 'state_dict', 'model':
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise InputError(f'{path}: expected a state dict, which maps names to tensors')
    return {
        name: (t.float() if t.is_floating_point() else t).detach().numpy()
        for name, t in content.items()
        if isinstance(t, torch.Tensor)
    }
