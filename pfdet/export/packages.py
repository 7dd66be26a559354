"""The optional packages of the export."""

import importlib
from types import ModuleType

from pfdet.errors import InputError


def optional_package(name: str) -> ModuleType:
    """Import a package of the extra ``onnx``.

    Args:
        name (str): ``'onnx'`` or ``'onnxruntime'``.

    Raises:
        InputError: It is not installed, or it does not work.
    """
    try:
        return importlib.import_module(name)
    except ImportError as e:
        reason = 'is not installed' if e.name == name else f'cannot be imported: {e}'
        raise InputError(f'{name} {reason}; expected: pip install pfdet[onnx]') from e
