"""The share of training time spent waiting for images."""

import numpy as np
from chainer import training

from pfdet.training.updater import Updater


class DataWait(training.Extension):
    """Measure the share of update time during which a rank waited for its images.

    In an update all ranks wait for the slowest one, so the longest wait counts. If the share
    exceeds a few percent, use more threads per rank (``--threads``) or a faster disk.

    All ranks run this extension in every iteration. When ``report`` fires, the ranks exchange
    their waits, and the share since the previous report is reported as ``waiting_for_data``.

    Args:
        comm (ChainerMN communicator): The ranks.
        report (callable): A trigger; it must fire in the same iterations on all ranks.

    Attributes:
        share (float): The share over all updates up to the last report.
    """

    priority = training.PRIORITY_EDITOR

    def __init__(self, comm, report):
        self.comm = comm
        self.report = report
        self._waits: list[float] = []
        self._seconds = 0.0
        self._total = np.zeros(2)

    # A function, unlike a trigger object, adds no state to the snapshot.
    @staticmethod
    def trigger(trainer) -> bool:
        """Fire in every iteration."""
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
