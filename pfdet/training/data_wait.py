"""How much of the time training waits for images."""

import numpy as np
from chainer import training

from pfdet.training.updater import Updater


class DataWait(training.Extension):
    """Measure the share of the time of updates in which some rank waited for its images.

    In an update all ranks wait for the slowest, so the longest of their waits counts. Where the
    share is more than a few percent, more threads a rank (``--threads``) or a quicker disk help.

    Every rank runs it in every iteration; ranks tell each other when ``report`` fires, which then
    reports the share since the last time as ``waiting_for_data``.

    Args:
        comm (ChainerMN communicator): The ranks.
        report (callable): A trigger, the same on all ranks.

    Attributes:
        share (float): Of all updates up to the last report.
    """

    priority = training.PRIORITY_EDITOR

    def __init__(self, comm, report):
        self.comm = comm
        self.report = report
        self._waits: list[float] = []
        self._seconds = 0.0
        self._total = np.zeros(2)

    # A function has no state in the snapshot.
    @staticmethod
    def trigger(trainer) -> bool:
        """In every iteration."""
        return True

    @property
    def share(self) -> float:
        waited, seconds = self._total
        return float(waited / seconds) if seconds else 0.0

    def __call__(self, trainer) -> None:
        updater: Updater = trainer.updater
        self._waits.append(updater.seconds_waited)
        self._seconds += updater.seconds
        if not self.report(trainer):
            return
        waits = np.array(self._waits)
        if self.comm.size > 1:
            from mpi4py import MPI

            self.comm.mpi_comm.Allreduce(MPI.IN_PLACE, waits, MPI.MAX)
        waited = min(float(waits.sum()), self._seconds)
        trainer.observation['waiting_for_data'] = waited / max(self._seconds, 1e-9)
        self._total += waited, self._seconds
        self._waits, self._seconds = [], 0.0
