"""Packages that only some functions need, installed by extras of this package."""

import importlib
import importlib.util
from types import ModuleType

from pfdet.errors import InputError

#: The extra that installs a package.
EXTRAS = {'onnx': 'onnx', 'onnxruntime': 'onnx', 'tensorboardX': 'tensorboard'}


def optional_package(name: str, module: str = '') -> ModuleType:
    """Import an optional package.

    Args:
        name (str): A key of :data:`EXTRAS`.
        module (str): A module of it to import instead, such as ``'summary'``.

    Raises:
        InputError: It is not installed, or it does not work.
    """
    try:
        return importlib.import_module(f'{name}.{module}' if module else name)
    except ImportError as e:
        reason = 'is not installed' if e.name == name else f'cannot be imported: {e}'
        raise InputError(f'{name} {reason}; expected: pip install pfdet[{EXTRAS[name]}]') from e


def check_installed(name: str, flag: str) -> None:
    """Refuse a flag whose package is missing, without importing the package.

    Args:
        name (str): A key of :data:`EXTRAS`.
        flag (str): The flag, for the message.

    Raises:
        InputError: It is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise InputError(
            f'{flag}: {name} is not installed; expected: pip install pfdet[{EXTRAS[name]}]'
        )
