"""Count the images that cannot be read during training."""

import sys
from collections.abc import Callable

import numpy as np
from chainer import training

from pfdet.openimages.corrupt_images import CorruptImages


class CountCorruptImages(training.Extension):
    """Count the corrupt images over all ranks, print the first ones, and stop at too many.

    All ranks run this extension in every iteration. The counts are saved in snapshots.

    Args:
        corrupt (CorruptImages): The count of this rank's iterator.
        comm (ChainerMN communicator): The ranks.
        report (callable): A trigger; when it fires, the number of corrupt images so far is
            reported as ``images/corrupt``.
        out (file): The first rank prints the first corrupt images here.

    Attributes:
        total (CorruptImages): The counts over all ranks, the same on each rank.

    Raises:
        InputError: Too many images are corrupt (see :class:`CorruptImages`).
    """

    # Run before the log and the snapshot.
    priority = training.PRIORITY_EDITOR

    def __init__(
        self, corrupt: CorruptImages, comm, report: Callable = lambda trainer: True, out=sys.stderr
    ):
        self.corrupt = corrupt
        self.comm = comm
        self.report = report
        self.out = out
        self.total = CorruptImages(corrupt.max_share, corrupt.min_count, corrupt.n_first)

    # A function, unlike a trigger object, adds no state to the snapshot. The snapshot of a run
    # without this extension would lack it.
    @staticmethod
    def trigger(trainer) -> bool:
        """Fire in every iteration."""
        return True

    def __call__(self, trainer) -> None:
        local = self.corrupt.take()
        counts, first = np.array([local.n_image, local.n_corrupt], np.int64), local.first
        if self.comm.size > 1:
            from mpi4py import MPI

            self.comm.mpi_comm.Allreduce(MPI.IN_PLACE, counts, MPI.SUM)
            if counts[1]:
                first = sum(self.comm.mpi_comm.allgather(first), [])
        n_printed = len(self.total.first)
        self.total.merge(int(counts[0]), int(counts[1]), first)
        if self.comm.rank == 0:
            for _, message in self.total.first[n_printed:]:
                print(f'warning: {message}; replaced by another image', file=self.out, flush=True)
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
            # Only the first rank prints the error and ends the job; the others wait for it.
            self.comm.mpi_comm.Barrier()
            raise

    def serialize(self, serializer) -> None:
        """Save or load the counts; a snapshot of a run without ``--corrupt skip`` has none."""
        try:
            self.total.n_image = int(serializer('n_image', self.total.n_image))
            self.total.n_corrupt = int(serializer('n_corrupt', self.total.n_corrupt))
        except KeyError:
            pass
