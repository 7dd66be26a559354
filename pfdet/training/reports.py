"""Reports of a run: losses averaged over ranks, the log file, and printed lines."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from chainer import training
from chainer.backends import cuda
from chainer.training import extensions

from pfdet.atomic_write import replace_when_done


class MeanOverRanks(training.Extension):
    """Replace the losses of each rank by their mean over all ranks.

    Args:
        comm (ChainerMN communicator): The ranks.
        prefix (str): Prefix of the observations to average.

    Attributes:
        local (dict): This rank's values in the last iteration.
    """

    trigger = 1, 'iteration'
    priority = training.PRIORITY_EDITOR

    def __init__(self, comm, prefix: str = 'main/'):
        self.comm = comm
        self.prefix = prefix
        self.local: dict[str, float] = {}

    def __call__(self, trainer) -> None:
        keys = sorted(k for k in trainer.observation if k.startswith(self.prefix))
        values = [getattr(trainer.observation[k], 'array', trainer.observation[k]) for k in keys]
        # Copied together, so that the host synchronizes with the GPU only once.
        xp = cuda.get_array_module(*values)
        values = (
            cuda.to_cpu(xp.stack([xp.asarray(v, dtype=np.float64) for v in values]))
            if keys
            else np.zeros(0)
        )
        self.local = dict(zip(keys, values.tolist(), strict=True))
        if self.comm.size > 1:
            from mpi4py import MPI

            self.comm.mpi_comm.Allreduce(MPI.IN_PLACE, values, MPI.SUM)
        trainer.observation.update(zip(keys, values / self.comm.size, strict=True))


class Log(extensions.LogReport):
    """Collect the log, and write it to a file at each new entry.

    An entry has the mean of each observation since the entry before. Of several validations, it has
    the last one, since the network has changed between them.

    Chainer's ``LogReport`` writes the file, too, but not atomically: it leaves a directory behind
    when it is killed. So only this class writes, and it keeps the name and the state in snapshots
    of ``LogReport``.

    Args:
        path (path): The file to write: a list of objects in JSON.
        trigger (callable): When to make an entry.

    Raises:
        InputError: The file cannot be written.
    """

    default_name = 'LogReport'

    def __init__(self, path: Path, trigger: Callable):
        super().__init__(trigger=trigger)
        # Chainer takes filename=None for its default.
        self._log_name = None
        self.path = path

    def __call__(self, trainer) -> None:
        for name in trainer.observation:
            if name.startswith('validation/'):
                self._summary._summaries.pop(name, None)
        n_before = len(self.log)
        super().__call__(trainer)
        if len(self.log) > n_before:
            with replace_when_done(self.path) as path:
                path.write_text(json.dumps(self.log, indent=4))


class PrintLog(training.Extension):
    """Print each new entry of the log as one short line.

    The terms of the loss are only in the log file. Unlike Chainer's ``PrintReport``, this extension
    writes no escape codes if the output is not a terminal.
    """

    priority = training.PRIORITY_READER

    def __init__(self, out=sys.stdout):
        self.out = out
        self._n_printed = 0

    def initialize(self, trainer) -> None:
        """Skip the entries from before resuming, which have been printed already."""
        self._n_printed = len(trainer.get_extension('LogReport').log)

    def __call__(self, trainer) -> None:
        log = trainer.get_extension('LogReport').log
        for entry in log[self._n_printed :]:
            # The progress bar is below the last line: overwrite it.
            clear = '\033[J' if self.out.isatty() else ''
            print(clear + line(entry, trainer.updater.epoch_detail), file=self.out, flush=True)
        self._n_printed = len(log)


def line(entry: Mapping, epoch: float) -> str:
    """Format an entry of the log as one line.

    Args:
        entry (mapping): An entry of :class:`Log`.
        epoch (float): Current epoch.
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
