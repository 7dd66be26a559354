"""Flags of commands: numbers and paths with a domain, and errors of one line.

Every command's parser is a :class:`Parser`. A flag with a number has a type of :func:`integer` or
:func:`number`, which has a domain, so that a value out of range is refused before anything starts.
"""

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pfdet.errors import InputError
from pfdet.recipes import domains
from pfdet.similar_names import expected_name, similar

#: Limit of counts, such as iterations: sums of them still fit in 64 bits.
MANY = 1_000_000_000
#: Limit of the number of ranks.
MAX_RANKS = 65_536
# Plain decimal notation. Python would also take other scripts' digits and underscores.
_INTEGER = re.compile(r'[+-]?[0-9]{1,40}')
_NUMBER = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?')
# Limits of file systems: bytes in a name and in a path.
_LONGEST_NAME = 255
_LONGEST_PATH = 4000
# Names of other programs for what is a field of a recipe here.
_FIELDS = {
    'lr': 'base_lr',
    'learning_rate': 'base_lr',
    'batchsize': 'batch_size',
    'batch': 'batch_size',
    'epoch': 'epochs',
    'num_epochs': 'epochs',
    'max_epochs': 'epochs',
    'wd': 'weight_decay',
}
_DEVICES = ('--gpu', '--gpus', '--gpu-id', '--device', '--devices', '--ngpu', '--n-gpu')


class Number:
    """The type of a flag with a number.

    Args:
        domain (Domain): The values that it may have.
        kind (type): :obj:`int` or :obj:`float`.
    """

    def __init__(self, domain: domains.Domain, kind: type):
        self.domain = domain
        self.kind = kind
        # For argparse's messages.
        self.__name__ = kind.__name__

    def __call__(self, text: str) -> Any:
        """Read a number.

        Raises:
            ValueError: The text is not a number of the domain.
        """
        pattern = _INTEGER if self.kind is int else _NUMBER
        value = self.kind(text) if pattern.fullmatch(text) else None
        if value is None or not self.domain.accepts(value):
            raise ValueError(f'expected {self.domain.expected}')
        return value


def integer(low: int, high: int) -> Number:
    """The type of a flag with an integer from ``low`` to ``high``."""
    return Number(domains.integer(low, high), int)


def number(low: float, high: float, *, above: bool = False, below: bool = False) -> Number:
    """The type of a flag with a finite number; see :func:`pfdet.recipes.domains.number`."""
    return Number(domains.number(low, high, above=above, below=below), float)


#: The type of seeds. NumPy's generators take 32 bits.
SEED = integer(0, 2**32 - 1)
#: The type of lengths of an image's edge.
EDGE = Number(domains.EDGE, int)
#: The type of shares, scores and IoUs.
SHARE = number(0, 1)


def path(text: str) -> Path:
    """The type of a flag with a path.

    Raises:
        ValueError: It is empty, as of an unset variable in a shell, or longer than file systems
            allow.
    """
    if not text.strip():
        raise ValueError('expected a path, not an empty one')
    if any(len(os.fsencode(name)) > _LONGEST_NAME for name in text.split('/')):
        raise ValueError(f'expected a path with names of at most {_LONGEST_NAME} bytes')
    if len(os.fsencode(text)) > _LONGEST_PATH:
        raise ValueError(f'expected a path of at most {_LONGEST_PATH} bytes')
    return Path(text)


def path_text(text: str) -> str:
    """As :func:`path`, but the text as it is."""
    path(text)
    return text


class Parser(argparse.ArgumentParser):
    """A parser whose errors are an :class:`~pfdet.errors.InputError`.

    It suggests flags and choices with similar names. For a command with ``--set``, it knows which
    unknown flags are fields of the recipe. Flags of the type :class:`~pathlib.Path` are checked as
    by :func:`path`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise an :class:`~pfdet.errors.InputError`."""
        match = re.fullmatch(r'argument (\S+?)(?:/\S+)?: (.*)', message, re.DOTALL)
        if match:
            raise InputError(f'{match[1]}: {match[2]}')
        raise InputError(f'{self.prog}: {message}')

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse arguments.

        Raises:
            InputError: One is unknown or missing, or has an invalid value.
        """
        parsed, others = self.parse_known_args(args, namespace)
        if others:
            raise InputError(
                f'{self.prog}: unexpected argument {_short(others[0])}; see {self.prog} --help'
            )
        return parsed

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As in :mod:`argparse`, but unknown flags are refused, and before missing ones."""
        if args is None:
            args = sys.argv[1:]
        for k, text in enumerate(args):
            if text == '--':
                break
            flag, equals, value = text.partition('=')
            if text.startswith('--') and not self._is_flag(flag):
                following = args[k + 1 : k + 2]
                if not equals and following and not following[0].startswith('-'):
                    value = following[0]
                self._refuse_flag(flag, value)
        return super().parse_known_args(args, namespace)

    def _is_flag(self, text: str) -> bool:
        known = self._option_string_actions
        return text in known or any(flag.startswith(text) for flag in known)

    def _refuse_flag(self, flag: str, value: str) -> NoReturn:
        where = f'{_short(flag)}: no such flag of {self.prog}'
        if flag in _DEVICES:
            raise InputError(
                f'{where}; every rank uses the GPU of its own number: start one rank per GPU by '
                'mpiexec -n N, and choose GPUs by CUDA_VISIBLE_DEVICES'
            )
        close = similar(flag, [f for f in self._option_string_actions if f.startswith('--')])
        field = self._field(flag)
        if field is not None and not close[:1] == [flag]:
            raise InputError(f'{where}; fields of the recipe are --set {field}={value or "VALUE"}')
        if close:
            raise InputError(f'{where}; did you mean {" or ".join(close)}?')
        raise InputError(f'{where}; see {self.prog} --help')

    def _field(self, flag: str) -> str | None:
        """The field of the recipe that an unknown flag means, if the command has ``--set``."""
        if '--set' not in self._option_string_actions:
            return None
        from pfdet.recipes.recipe import Recipe

        name = flag.lstrip('-').replace('-', '_')
        name = _FIELDS.get(name, name)
        return name if name in {f.name for f in dataclasses.fields(Recipe)} else None

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        kind: Callable[[str], Any] | None = path if action.type is Path else action.type  # type: ignore[assignment]
        if not isinstance(kind, Number) and kind not in (path, path_text):
            return super()._get_value(action, arg_string)
        try:
            return kind(arg_string)
        except ValueError as e:
            raise InputError(f'{_name(action)} {_short(arg_string)}: {e}') from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        expected = expected_name(str(value), map(str, action.choices))
        raise InputError(f'{_name(action)} {_short(str(value))}: {expected}')


def _name(action: argparse.Action) -> str:
    if action.option_strings:
        return action.option_strings[0]
    return str(action.metavar or action.dest)


def _short(text: str) -> str:
    """A value for a message: quoted if it is empty or has spaces, cut if it is long."""
    text = text if len(text) <= 60 else text[:57] + '...'
    return text if text and not re.search(r'\s', text) else repr(text)
