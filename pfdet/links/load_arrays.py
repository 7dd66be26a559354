"""Load arrays of a file into a network or a trainer, and check each of them."""

import os
from collections.abc import Mapping
from typing import Any

import chainer
import numpy as np

from pfdet.errors import InputError
from pfdet.files.reading import reading, reason

# What else than finite the values must be, by the last part of the name.
_RULES = {
    'avg_var': [(lambda a: a >= 0, 'variances from 0')],
    'std': [(lambda a: a > 0, 'numbers above 0')],
    'bn_eps': [(lambda a: a > 0, 'a number above 0')],
    'pool_pad': [(lambda a: (a == 0) | (a == 1), '0 or 1')],
}


def load_arrays(
    target: Any, arrays: Mapping[str, np.ndarray], path: str | os.PathLike, kind: str
) -> None:
    """Load the state of a Chainer object, with checks that Chainer's deserializer lacks.

    Shapes must be equal: Chainer broadcasts, so one value could fill a whole parameter. Values must
    be finite, and running variances not negative: a network with such values detects nothing, and
    says nothing.

    Args:
        target (object): A link, an optimizer or a trainer.
        arrays (mapping): Arrays by key of Chainer's serialization. Further keys are ignored.
        path (path): The file of the arrays, for messages.
        kind (str): What the file should be, such as ``'weights of this network'``.

    Raises:
        InputError: A key is missing, or an array has another shape, a value that is not finite, or
            one that is out of range. ``target`` may then be partly loaded.
    """
    with reading(path, kind):
        try:
            _CheckedDeserializer(arrays, path, kind).load(target)
        except KeyError as e:
            raise InputError(f'{path}: not {kind}: lacks {e.args[0]}') from e


class _CheckedDeserializer(chainer.serializers.NpzDeserializer):
    """Chainer's deserializer with the checks of :func:`load_arrays`."""

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        file: str | os.PathLike,
        kind: str,
        path: str = '',
    ):
        super().__init__(arrays, path)
        self.file = file
        self.kind = kind

    def __getitem__(self, key: str) -> '_CheckedDeserializer':
        return type(self)(self.npz, self.file, self.kind, self.path + key.strip('/') + '/')

    def __call__(self, key: str, value: Any) -> Any:
        name = self.path + key.lstrip('/')
        if not isinstance(value, chainer.get_array_types()):
            # A number, a text, or an array that does not exist yet.
            try:
                loaded = super().__call__(key, value)
            except (KeyError, InputError):
                raise
            except Exception as e:
                raise InputError(
                    f'{self.file}: not {self.kind}: {name}: {reason(e)}; expected a number or text '
                    f'such as {value!r}'
                ) from e
            if isinstance(loaded, np.ndarray):
                check_values(self.file, name, loaded)
            return loaded
        # The header of an array in a file is read first: its data may be huge.
        header = getattr(self.npz, 'header', self.npz.__getitem__)(name)
        if header.shape != value.shape:
            raise InputError(
                f'{self.file}: not {self.kind}: {name} has shape {header.shape}; expected '
                f'{value.shape}'
            )
        if not np.can_cast(header.dtype, value.dtype, 'same_kind'):
            raise InputError(
                f'{self.file}: not {self.kind}: {name} has dtype {header.dtype}; expected '
                f'{value.dtype}'
            )
        with np.errstate(over='ignore'):
            array = self.npz[name].astype(value.dtype, order='C')
        check_values(self.file, name, array)
        if isinstance(value, np.ndarray):
            value[...] = array
        else:
            value.set(array)
        return value


def check_values(path: str | os.PathLike, name: str, array: np.ndarray) -> None:
    """Refuse an array of weights whose values no training produces.

    Args:
        path (path): The file of the array, for messages.
        name (str): Key of the array. Its last part tells running variances from other parameters.
        array (array): The array.

    Raises:
        InputError: A value is not finite, or a running variance is negative.
    """
    invalid = invalid_value(name, array)
    if invalid:
        raise InputError(f'{path}: parameter {name} has {invalid}')


def invalid_value(name: str, array: np.ndarray) -> str | None:
    """Describe the first value that no training produces.

    Args:
        name (str): Key of the array in Chainer's serialization.
        array (array): The array.

    Returns:
        str: The value and what was expected, or :obj:`None` if all values are valid.
    """
    if array.dtype.kind not in 'iuf':
        return None
    rules = [(np.isfinite, 'finite numbers'), *_RULES.get(name.rpartition('/')[2], ())]
    for is_valid, expected in rules:
        valid = is_valid(array)
        if not valid.all():
            value = array[~valid].reshape(-1)[0]
            return f'{value} among its {array.size} values; expected {expected}'
    return None
