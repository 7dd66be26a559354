"""What a run reports while it trains."""

import numpy as np
from chainer import training


class MeanOverRanks(training.Extension):
    """Replace the losses a rank observed by the mean over all ranks.

    Args:
        comm (ChainerMN communicator): The ranks.
        prefix (str): Of the observations to average.
    """

    trigger = 1, 'iteration'
    priority = training.PRIORITY_EDITOR

    def __init__(self, comm, prefix: str = 'main/'):
        self.comm = comm
        self.prefix = prefix

    def __call__(self, trainer) -> None:
        keys = sorted(k for k in trainer.observation if k.startswith(self.prefix))
        values = np.array(
            [float(getattr(trainer.observation[k], 'array', trainer.observation[k]))
             for k in keys], np.float64)
        if self.comm.size > 1:
            from mpi4py import MPI

            self.comm.mpi_comm.Allreduce(MPI.IN_PLACE, values, MPI.SUM)
        trainer.observation.update(zip(keys, values / self.comm.size, strict=True))
