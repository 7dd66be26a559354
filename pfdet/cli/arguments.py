"""Arguments that several commands have."""

import argparse
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.recipes.known import DTYPES


def add_index(parser: argparse.ArgumentParser, split: str) -> None:
    """Add ``--train-index`` or ``--val-index``, with the environment variable as its default.

    Args:
        parser (argparse.ArgumentParser): Of the command.
        split (str): ``'train'`` or ``'val'``.
    """
    variable = f'PFDET_{split.upper()}_INDEX'
    name = {'train': 'training', 'val': 'validation'}[split]
    parser.add_argument(
        f'--{split}-index',
        type=Path,
        metavar='INDEX',
        # An empty variable is as good as none.
        default=os.environ.get(variable) or None,
        help=f'annotation index of the {name} set (default: ${variable})',
    )


def check_index(args: argparse.Namespace, split: str) -> None:
    """Refuse a missing index.

    Raises:
        InputError: Neither the flag nor the environment variable is given.
    """
    if getattr(args, f'{split}_index') is None:
        name = {'train': 'training', 'val': 'validation'}[split]
        raise InputError(
            f'no {name} set: give --{split}-index INDEX or set $PFDET_{split.upper()}_INDEX; '
            'python -m pfdet.openimages.build_index makes an index (see README.md, "Real Open '
            'Images")'
        )


def add_recipe_size(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add ``--scale``, whose default is that of the recipe if :obj:`None`."""
    parser.add_argument(
        '--scale',
        choices=('full', 'mini'),
        default=default,
        help="the paper's size, or one for two CPU cores "
        f'(default: {default or "the size of the recipe"})',
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--set KEY=VALUE ...``."""
    parser.add_argument(
        '--set',
        nargs='*',
        default=[],
        action='extend',
        metavar='KEY=VALUE',
        help='replace fields of the recipe, such as epochs=2 (see pfdet train --show)',
    )


class _SetDtype(argparse.Action):
    """Add ``dtype=VALUE`` to the settings."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.set = [*namespace.set, f'dtype={values}']


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Add ``--dtype TYPE``, short for ``--set dtype=TYPE``."""
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        action=_SetDtype,
        dest='set',
        default=argparse.SUPPRESS,
        help='the same as --set dtype=..., such as mixed16: activations in float16 and parameters '
        'in float32, for GPUs',
    )


def command_line(
    command: str,
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    own_parser: argparse.ArgumentParser,
    needed: Mapping[str, str],
) -> str:
    """Write the command line of another command with the arguments that were given to this one.

    Args:
        command (str): The other command, such as ``'train-experts'``.
        parser (argparse.ArgumentParser): Its parser.
        args (argparse.Namespace): Parsed arguments of this command.
        own_parser (argparse.ArgumentParser): The parser of this command.
        needed (mapping): From the name of an argument that the other command needs to what is
            written in its place if it was not given.

    Returns:
        str: The command line, quoted for a shell, followed by the flags that were given but that
        the other command does not have.
    """
    given = {
        name: value
        for name, value in vars(args).items()
        if value is not None and value != own_parser.get_default(name)
    }
    words = ['pfdet', command]
    known = set()
    for action in parser._actions:
        if action.dest in known:
            # --dtype is short for a setting.
            continue
        known.add(action.dest)
        value = getattr(args, action.dest, None)
        if value is None and action.dest in needed:
            words += [action.option_strings[0], needed[action.dest]]
        elif value is not None and (value != action.default or action.dest == 'recipe'):
            words += [action.option_strings[0], *_words(action, value)]
    left_out = [_flag(own_parser, name) for name in given if name not in known]
    line = ' '.join(words)
    return f'{line} (without {", ".join(left_out)})' if left_out else line


def _words(action: argparse.Action, value: object) -> list[str]:
    """The value of an argument as it is typed behind its flag."""
    if value == action.const:
        return []
    values = value if isinstance(value, list) else [value]
    return [shlex.quote(str(v)) for v in values]


def _flag(parser: argparse.ArgumentParser, name: str) -> str:
    """The flag of an argument."""
    return next(a.option_strings[0] for a in parser._actions if a.dest == name)
