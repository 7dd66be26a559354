"""Arguments that several commands have."""

import argparse
import os
from pathlib import Path

from pfdet.errors import InputError


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
        default=os.environ.get(variable),
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
