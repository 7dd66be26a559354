"""The options of a training run that are not part of the recipe, and the flags made from them."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.openimages.corrupt_images import CorruptImages


def _option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    **argument: Any,
) -> Any:
    """A field with the help, limits and further arguments of its flag."""
    return dataclasses.field(
        default=default,
        metadata={'help': help, 'least': least, 'most': most, 'argument': argument},
    )


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a recipe is run: on which weights, for how long, with which reports and files.

    Every field is a flag of ``pfdet train`` (:func:`add_options`).
    """

    init: Path | None = _option(None, 'weights to start from', type=Path, metavar='MODEL.npz')
    resume: bool = _option(
        False,
        'resume from the newest undamaged snapshot in --out, on any number of ranks; start from '
        'scratch if there is none',
        action='store_true',
    )
    seed: int = _option(0, 'of weights, order, augmentation and sampling', type=int)
    iterations: int | None = _option(
        None, "stop after this many iterations of the whole run's schedule", least=0, type=int
    )
    threads: int = _option(1, 'threads per rank that load images', least=1, type=int)
    corrupt: str = _option(
        'raise',
        'stop at the first training image that cannot be read, or replace it by another image',
        choices=('raise', 'skip'),
    )
    max_corrupt_share: float = _option(
        0.01,
        'with --corrupt skip, stop when at least 20 images and more than this share of all images '
        'drawn cannot be read',
        least=0,
        most=1,
        type=float,
        metavar='SHARE',
    )
    accumulate: int = _option(
        1,
        "process N batches of the recipe's size one after the other per rank and update, where "
        'memory is short; the learning rate is that of the N times larger batch, batch '
        'normalization sees one batch at a time',
        least=1,
        type=int,
        metavar='N',
    )
    bn_group_size: int = _option(
        0,
        'consecutive ranks that share batch statistics; 0 for all',
        type=int,
        metavar='RANKS',
    )
    communicator: str | None = _option(
        None, "packed, or ChainerMN's name (default: pure_nccl on GPUs, else packed)"
    )
    allreduce_dtype: str | None = _option(
        None,
        'type in which gradients are sent; float16 for slow networks, with pure_nccl or packed '
        '(default: float32)',
        choices=('float32', 'float16'),
    )
    double_buffering: bool = _option(
        False,
        'all-reduce gradients during the next batch, with pure_nccl: each update then uses the '
        'gradients of the previous iteration, and a resumed run loses one update',
        action='store_true',
    )
    log_interval: int = _option(
        10, 'between lines of the log', least=1, type=int, metavar='ITERATIONS'
    )
    val_interval: float | None = _option(
        None,
        'between validations (default: an eighth of the run)',
        type=float,
        metavar='EPOCHS',
    )
    snapshot_interval: int | None = _option(
        None,
        'between snapshots (default: one epoch); the last iteration has one, too',
        type=int,
        metavar='ITERATIONS',
    )
    keep_snapshots: int = _option(3, 'keep the newest K snapshots', least=1, type=int, metavar='K')

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least, most = (
                getattr(self, field.name),
                *map(field.metadata.get, ('least', 'most')),
            )
            if (
                value is None
                or least is None
                or (least <= value and (most is None or value <= most))
            ):
                continue
            limit = f'at least {least}' if most is None else f'a number from {least} to {most}'
            raise InputError(f'{_flag(field.name)} {value}: expected {limit}')

    @property
    def corrupt_images(self) -> CorruptImages | None:
        """A new count of the images that cannot be read, or :obj:`None` if the first one stops."""
        return CorruptImages(self.max_corrupt_share) if self.corrupt == 'skip' else None


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the flags of options to a parser.

    Args:
        parser (argparse.ArgumentParser): Of a command.
        names (str): Of fields of :class:`RunOptions`; all of them by default.
    """
    for field in dataclasses.fields(RunOptions):
        if names and field.name not in names:
            continue
        argument = dict(field.metadata['argument'])
        if field.default is not None and argument.get('action') != 'store_true':
            argument['default'] = field.default
        shows_default = field.default is not None and 'action' not in argument
        parser.add_argument(
            _flag(field.name),
            help=field.metadata['help'] + (' (default: %(default)s)' if shows_default else ''),
            **argument,
        )


def options_of(args: argparse.Namespace) -> RunOptions:
    """The options among parsed arguments; those without a flag keep their default.

    Raises:
        InputError: A value is out of its limits.
    """
    fields = {field.name for field in dataclasses.fields(RunOptions)}
    return RunOptions(**{name: value for name, value in vars(args).items() if name in fields})


def _flag(name: str) -> str:
    return '--' + name.replace('_', '-')
