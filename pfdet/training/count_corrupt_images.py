"""Counting the images that cannot be read while training."""

import sys
from collections.abc import Callable

import numpy as np
from chainer import training

from pfdet.openimages.corrupt_images import CorruptImages


class CountCorruptImages(training.Extension):
    """Count the corrupt images of all ranks, name the first, and end the run at too many.

    Every rank runs it in every iteration. The counts go on from a snapshot.

    Args:
        corrupt (CorruptImages): What this rank's iterator counts.
        comm (ChainerMN communicator): The ranks.
        report (callable): A trigger; when it fires, the number of corrupt images so far is
            reported as ``images/corrupt``.
        out (file): Where the first rank names the first of them.

    Attributes:
        total (CorruptImages): The counts of all ranks, the same on each.

    Raises:
        InputError: There are too many (see :class:`CorruptImages`).
    """

    # Before the log and the snapshot.
    priority = training.PRIORITY_EDITOR

    def __init__(
        self, corrupt: CorruptImages, comm, report: Callable = lambda trainer: True, out=sys.stderr
    ):
        self.corrupt = corrupt
        self.comm = comm
        self.report = report
        self.out = out
        self.total = CorruptImages(corrupt.max_share, corrupt.least, corrupt.n_first)

    # A function has no state in the snapshot, which the run that is resumed may not have had.
    @staticmethod
    def trigger(trainer) -> bool:
        """In every iteration."""
        return True

    def __call__(self, trainer) -> None:
        part = self.corrupt.take()
        counts, first = np.array([part.n_image, part.n_corrupt], np.int64), part.first
        if self.comm.size > 1:
            from mpi4py import MPI

            self.comm.mpi_comm.Allreduce(MPI.IN_PLACE, counts, MPI.SUM)
            if counts[1]:
                first = sum(self.comm.mpi_comm.allgather(first), [])
        n_named = len(self.total.first)
        self.total.merge(int(counts[0]), int(counts[1]), first)
        if self.comm.rank == 0:
            for _, message in self.total.first[n_named:]:
                print(
                    f'warning: {message}; another image takes its place', file=self.out, flush=True
                )
        if self.report(trainer):
            trainer.observation['images/corrupt'] = self.total.n_corrupt
        self._check()

    def _check(self) -> None:
        if self.comm.rank == 0:
            self.total.check()
            return
        try:
            self.total.check()
        except Exception:
            # One line says it: the first rank ends the job, and the others wait for that.
            self.comm.mpi_comm.Barrier()
            raise

    def serialize(self, serializer) -> None:
        """Write or read the counts; a run that skipped no images has not written any."""
        try:
            self.total.n_image = int(serializer('n_image', self.total.n_image))
            self.total.n_corrupt = int(serializer('n_corrupt', self.total.n_corrupt))
        except KeyError:
            pass
