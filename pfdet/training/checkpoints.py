"""Snapshots of a run, from which it can be resumed."""

import re
from pathlib import Path

import chainer
from chainer import training

from pfdet.errors import InputError
from pfdet.files import replace_when_done

_NAME = re.compile(r'iter_(\d+)\.npz')


class Snapshot(training.Extension):
    """Write the trainer's whole state, on the first rank.

    All ranks have the same weights and statistics, and randomness depends on positions in the
    global order alone. So one file serves any number of ranks.

    Args:
        directory (path): Where the snapshots go.
    """

    # After the extensions whose state it keeps.
    priority = training.PRIORITY_READER - 100

    def __init__(self, directory: Path):
        self.directory = Path(directory)

    def __call__(self, trainer) -> None:
        path = self.directory / f'iter_{trainer.updater.iteration:08d}.npz'
        with replace_when_done(path) as unfinished:
            chainer.serializers.save_npz(str(unfinished), trainer, compression=False)


def newest(directory: Path) -> Path | None:
    """The snapshot of the latest iteration, or :obj:`None`."""
    found = [p for p in Path(directory).glob('iter_*.npz') if _NAME.fullmatch(p.name)]
    return max(found, key=lambda p: int(_NAME.fullmatch(p.name)[1]), default=None)


def resume(trainer, path: Path) -> None:
    """Continue from a snapshot.

    Args:
        trainer (chainer.training.Trainer): Set up as the run that wrote it was.
        path (path): The snapshot.

    Raises:
        InputError: It cannot be read, or is of another network.
    """
    try:
        chainer.serializers.load_npz(str(path), trainer)
    except Exception as e:
        # A damaged archive and a missing key raise all kinds of errors.
        raise InputError(f'{path}: not a snapshot of this run: {type(e).__name__}: {e}') from e
