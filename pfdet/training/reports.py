"""What a run reports while it trains."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from chainer import training
from chainer.backends import cuda

from pfdet.atomic_write import replace_when_done


class MeanOverRanks(training.Extension):
    """Replace the losses a rank observed by the mean over all ranks.

    Args:
        comm (ChainerMN communicator): The ranks.
        prefix (str): Of the observations to average.

    Attributes:
        own (dict): This rank's values of the last iteration.
    """

    trigger = 1, 'iteration'
    priority = training.PRIORITY_EDITOR

    def __init__(self, comm, prefix: str = 'main/'):
        self.comm = comm
        self.prefix = prefix
        self.own: dict[str, float] = {}

    def __call__(self, trainer) -> None:
        keys = sorted(k for k in trainer.observation if k.startswith(self.prefix))
        values = [getattr(trainer.observation[k], 'array', trainer.observation[k]) for k in keys]
        # All at once: the host waits for the GPU once.
        xp = cuda.get_array_module(*values)
        values = (
            cuda.to_cpu(xp.stack([xp.asarray(v, dtype=np.float64) for v in values]))
            if (keys)
            else np.zeros(0)
        )
        self.own = dict(zip(keys, values.tolist(), strict=True))
        if self.comm.size > 1:
            from mpi4py import MPI

            self.comm.mpi_comm.Allreduce(MPI.IN_PLACE, values, MPI.SUM)
        trainer.observation.update(zip(keys, values / self.comm.size, strict=True))


class WriteLog(training.Extension):
    """Write the log of Chainer's ``LogReport``, whose own way leaves a directory when killed.

    Args:
        path (path): The file.

    Raises:
        InputError: The disk is full.
    """

    priority = training.PRIORITY_READER

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, trainer) -> None:
        with replace_when_done(self.path) as path:
            path.write_text(json.dumps(trainer.get_extension('LogReport').log, indent=4))


class PrintLog(training.Extension):
    """Print each new entry of the log as a line that is short enough to read.

    The losses' parts are in the log file. Unlike Chainer's ``PrintReport``, it writes no escape
    codes where nobody looks at a terminal.
    """

    priority = training.PRIORITY_READER

    def __init__(self, out=sys.stdout):
        self.out = out
        self._n_printed = 0

    def initialize(self, trainer) -> None:
        """Entries from before resuming have been printed."""
        self._n_printed = len(trainer.get_extension('LogReport').log)

    def __call__(self, trainer) -> None:
        log = trainer.get_extension('LogReport').log
        for entry in log[self._n_printed :]:
            # The progress bar stands below the last line: write over it.
            clear = '\033[J' if self.out.isatty() else ''
            print(clear + line(entry, trainer.updater.epoch_detail), file=self.out, flush=True)
        self._n_printed = len(log)


def line(entry: Mapping, epoch: float) -> str:
    """A line for an entry of the log.

    Args:
        entry (mapping): Of Chainer's ``LogReport``.
        epoch (float): Epochs passed.
    """
    text = (
        f'epoch {epoch:6.2f}  iteration {entry["iteration"]:6}  lr {entry["lr"]:.5f}  '
        f'loss {entry["main/loss"]:8.4f}  {entry["elapsed_time"]:7.0f} s'
    )
    if 'validation/mAP' in entry:
        text += f'  mAP {entry["validation/mAP"]:.4f}'
    if entry.get('waiting_for_data', 0) >= 0.05:
        text += f'  waiting for data {entry["waiting_for_data"]:.0%}'
    return text
