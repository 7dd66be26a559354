"""Options of a training run that are not part of the recipe, and their command-line flags."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.flags import MANY, MAX_RANKS, SEED, SHARE, Number, integer, number
from pfdet.openimages.corrupt_images import CorruptImages


def _option(
    default: Any,
    help: str,
    *,
    on_resume: bool = False,
    **argument: Any,
) -> Any:
    """A field with the help text and other arguments of its flag.

    The ``type`` of a number has its domain. ``on_resume`` says whether the option may be changed
    when a run is resumed. Any other option decides what is learned: with another value it is
    another run.
    """
    return dataclasses.field(
        default=default,
        metadata={
            'help': help,
            'on_resume': on_resume,
            'argument': argument,
        },
    )


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of a training run: initial weights, length, communication, reports and snapshots.

    Every field is a flag of ``pfdet train`` (:func:`add_options`).
    """

    init: Path | None = _option(
        None,
        'weights to start from: the model.npz of a run, or a backbone file of pfdet convert',
        type=Path,
        metavar='MODEL.npz',
    )
    random_weights: bool = _option(
        False,
        'start from random weights although the recipe starts from a pretrained backbone or from '
        'the weights of another recipe; recipe.json and the reports say so',
        action='store_true',
        on_resume=True,
    )
    resume: bool = _option(
        False,
        'resume from the newest undamaged snapshot in --out, on any number of ranks; start from '
        'scratch if there is none',
        action='store_true',
        on_resume=True,
    )
    seed: int = _option(0, 'seed of weights, order of images, augmentation and sampling', type=SEED)
    iterations: int | None = _option(
        None,
        'stop after this many iterations; the learning rate schedule is unchanged',
        type=integer(0, MANY),
        on_resume=True,
    )
    threads: int = _option(
        1,
        'threads per rank that load images',
        type=integer(1, 256),
        on_resume=True,
    )
    corrupt: str = _option(
        'raise',
        'stop at the first training image that cannot be read, or replace it by another image',
        choices=('raise', 'skip'),
        on_resume=True,
    )
    max_corrupt_share: float = _option(
        0.01,
        'with --corrupt skip, stop when at least 20 images and more than this share of all images '
        'drawn cannot be read',
        type=SHARE,
        metavar='SHARE',
        on_resume=True,
    )
    accumulate: int = _option(
        1,
        "accumulate gradients over N batches of the recipe's size per rank and update, to save "
        'memory; the learning rate is that of the N times larger batch; batch normalization uses '
        'the statistics of one batch at a time',
        type=integer(1, 1024),
        metavar='N',
        on_resume=True,
    )
    bn_group_size: int = _option(
        0,
        'number of consecutive ranks that share batch statistics; 0 for all',
        type=integer(0, MAX_RANKS),
        metavar='RANKS',
    )
    communicator: str | None = _option(
        None,
        'packed, or the name of a ChainerMN communicator (default: pure_nccl on GPUs, else packed)',
        on_resume=True,
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
    tf32: bool = _option(
        False,
        'on GPUs, let float32 convolutions and matrix products round their factors to 10 bits '
        '(TF32, on tensor cores); with CuPy 13, cuDNN 8 decides for itself; no effect on CPUs',
        action='store_true',
        on_resume=True,
    )
    log_interval: int = _option(
        10,
        'iterations between entries of the log',
        type=integer(1, MANY),
        metavar='ITERATIONS',
        on_resume=True,
    )
    val_interval: float | None = _option(
        None,
        'epochs between validations (default: an eighth of the run)',
        type=number(0, 1e6, above=True),
        metavar='EPOCHS',
        on_resume=True,
    )
    snapshot_interval: int | None = _option(
        None,
        'iterations between snapshots (default: one epoch); one is also written at the end',
        type=integer(1, MANY),
        metavar='ITERATIONS',
        on_resume=True,
    )
    keep_snapshots: int = _option(
        3,
        'number of newest snapshots to keep',
        type=integer(1, MANY),
        metavar='K',
        on_resume=True,
    )
    keep_best: bool = _option(
        False,
        'keep the weights with the highest validation mAP as best.npz, and their score as '
        'best.json; needs --val-index',
        action='store_true',
        on_resume=True,
    )
    tensorboard: bool = _option(
        False,
        'also write the log to event files in --out/tensorboard; needs pip install '
        'pfdet[tensorboard]',
        action='store_true',
        on_resume=True,
    )
    rank_timeout: float = _option(
        600.0,
        'end the job if a rank is frozen: it has not answered, or has made no progress, for this '
        'time; 0 to wait forever',
        type=number(0, 1e7),
        metavar='SECONDS',
        on_resume=True,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = field.metadata['argument'].get('type')
            if not isinstance(kind, Number) or value is None or kind.domain.accepts(value):
                continue
            raise InputError(f'{flag(field.name)} {value}: expected {kind.domain.expected}')

    @property
    def corrupt_images(self) -> CorruptImages | None:
        """A new counter of unreadable images; :obj:`None` if the first one stops the run."""
        return CorruptImages(self.max_corrupt_share) if self.corrupt == 'skip' else None


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add flags for run options to a parser.

    Args:
        parser (argparse.ArgumentParser): Parser of a command.
        names (str): Names of fields of :class:`RunOptions`; by default all.
    """
    for field in dataclasses.fields(RunOptions):
        if names and field.name not in names:
            continue
        argument = dict(field.metadata['argument'])
        if field.default is not None and argument.get('action') != 'store_true':
            argument['default'] = field.default
        shows_default = field.default is not None and 'action' not in argument
        parser.add_argument(
            flag(field.name),
            help=field.metadata['help'] + (' (default: %(default)s)' if shows_default else ''),
            **argument,
        )


def options_of(args: argparse.Namespace) -> RunOptions:
    """Collect the run options from parsed arguments; options without a flag keep their default.

    Args:
        args (argparse.Namespace): Parsed arguments of a command.

    Raises:
        InputError: A value is out of range.
    """
    fields = {field.name for field in dataclasses.fields(RunOptions)}
    return RunOptions(**{name: value for name, value in vars(args).items() if name in fields})


def options_that(on_resume: bool) -> tuple[str, ...]:
    """Names of the options that may, or may not, be changed when a run is resumed."""
    fields = dataclasses.fields(RunOptions)
    return tuple(f.name for f in fields if f.metadata['on_resume'] == on_resume)


def flag(name: str) -> str:
    """The flag of an option, such as ``--bn-group-size``."""
    return '--' + name.replace('_', '-')
