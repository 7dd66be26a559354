"""Preemption: on a signal, finish the iteration, write a snapshot, and exit.

Slurm sends SIGTERM to a job that it preempts. With ``--signal=USR1@120`` it sends SIGUSR1 120
seconds before the time limit. MPICH's ``mpiexec`` forwards both to all ranks and waits for them.
Its proxies, the parents of the ranks, ignore both. So have Slurm signal the batch script
(``--signal=B:USR1@120``), and forward the signal to ``mpiexec`` in the script.

SIGINT (Ctrl-C) and SIGHUP (a closed terminal) do the same as soon as training has begun.
``mpiexec`` forwards the first SIGINT, and kills the ranks at a second one within seconds. SIGHUP
ends MPICH's ``mpiexec`` at once, which kills the ranks: ``mpi_scripts/mpiexec_gpus.sh`` passes it
on in another form.

If only some ranks receive the signal, all ranks still stop after the same iteration, because they
synchronize after every iteration.
"""

import ctypes
import os
import signal

import numpy as np
from chainer import training

from pfdet import interruption, progress
from pfdet.interruption import StopRequest

__all__ = ['STATUS', 'AgreeToStop', 'StopRequest', 'end_with_launcher', 'exit_status']

# EX_TEMPFAIL, "the user is invited to retry", for requeue scripts. MPICH's mpiexec exits with this
# status if all ranks do.
STATUS = os.EX_TEMPFAIL
_PR_SET_PDEATHSIG = 1


def exit_status(number: int) -> int:
    """The exit status of a run that a signal has stopped after a snapshot.

    Args:
        number (int): The signal.

    Returns:
        int: :data:`STATUS` for the signals of a scheduler, SIGTERM and SIGUSR1; 128 plus the signal
        for those of a user, SIGINT and SIGHUP.
    """
    if number in (signal.SIGINT, signal.SIGHUP):
        return interruption.status(number)
    return STATUS


def end_with_launcher() -> None:
    """Have Linux send SIGTERM to this process when its parent ends.

    Otherwise a rank whose launcher was killed continues training, and writes to the same files as
    the resumed run. MPICH ends the ranks if ``mpiexec`` is killed, but not if a proxy is.
    """
    prctl = getattr(ctypes.CDLL(None), 'prctl', None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class AgreeToStop(training.Extension):
    """Check after every iteration whether any rank has been asked to stop.

    All ranks run this extension. Its cost is an all-reduce of one number.

    Args:
        request (StopRequest): The stop request of this rank.
        comm (ChainerMN communicator): The ranks.

    Attributes:
        signal (int): The signal that any rank has received, or 0; the same on all ranks.
    """

    # Run after the log and before the snapshot.
    priority = training.PRIORITY_READER - 90

    def __init__(self, request: StopRequest, comm):
        self.request = request
        self.comm = comm
        self.signal = 0

    # A function, unlike a trigger object, adds no state to the snapshot.
    @staticmethod
    def trigger(trainer) -> bool:
        """Fire in every iteration."""
        return True

    def __call__(self, trainer) -> None:
        received = np.array([self.request.signal], np.int64)
        if self.comm.size > 1:
            from mpi4py import MPI

            self.comm.mpi_comm.Allreduce(MPI.IN_PLACE, received, MPI.MAX)
        self.signal = int(received[0])
        if trainer is not None:
            progress.report(f'iteration {trainer.updater.iteration + 1}')
        if self.signal:
            # All ranks exit with the same status.
            self.request.signal = self.signal
