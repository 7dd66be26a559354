"""Being asked to stop: finish the iteration, write a snapshot, and exit.

Slurm sends SIGTERM to a job that it preempts, and with ``--signal=USR1@120`` SIGUSR1 120 seconds
before a job's time is up. MPICH's ``mpiexec`` passes both on to all ranks, and waits for them. Its
proxies, the ranks' parents, ignore both, so let Slurm tell the batch script
(``--signal=B:USR1@120``), and the script ``mpiexec``.

Should only some of the ranks be told, all stop after the same iteration: they ask each other after
every one.
"""

import ctypes
import os
import signal
from collections.abc import Sequence

import numpy as np
from chainer import training

# EX_TEMPFAIL, "the user is invited to retry": what a requeue script looks for. MPICH's mpiexec
# exits with it when all ranks do.
STATUS = os.EX_TEMPFAIL
_PR_SET_PDEATHSIG = 1


class StopRequest:
    """Whether this process has been asked to stop.

    Attributes:
        signal (int): The signal that asked, or 0.
    """

    def __init__(self):
        self.signal = 0

    def listen(self, signals: Sequence[int] = (signal.SIGTERM, signal.SIGUSR1)) -> None:
        """From now on, take note of these signals instead of ending at once."""
        for number in signals:
            signal.signal(number, self._note)

    def _note(self, number: int, frame) -> None:
        self.signal = number


def end_with_launcher() -> None:
    """Ask to be sent SIGTERM when the process that started this one ends; on Linux.

    A rank whose launcher has been killed would train on, and write where the resumed run writes.
    MPICH's ranks end with ``mpiexec``, but not with a proxy.
    """
    prctl = getattr(ctypes.CDLL(None), 'prctl', None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class AgreeToStop(training.Extension):
    """Find out after every iteration whether any rank has been asked to stop.

    Every rank runs it. It costs an all-reduce of one number.

    Args:
        request (StopRequest): This rank's.
        comm (ChainerMN communicator): The ranks.

    Attributes:
        signal (int): The signal that some rank has received, or 0; the same on all ranks.
    """

    # After the log, before the snapshot.
    priority = training.PRIORITY_READER - 90

    def __init__(self, request: StopRequest, comm):
        self.request = request
        self.comm = comm
        self.signal = 0

    # A function has no state in the snapshot.
    @staticmethod
    def trigger(trainer) -> bool:
        """In every iteration."""
        return True

    def __call__(self, trainer) -> None:
        received = np.array([self.request.signal], np.int64)
        if self.comm.size > 1:
            from mpi4py import MPI

            self.comm.mpi_comm.Allreduce(MPI.IN_PLACE, received, MPI.MAX)
        self.signal = int(received[0])
