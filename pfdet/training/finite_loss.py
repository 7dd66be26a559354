"""Stopping at a loss that is NaN or infinite, with the images that made it."""

import json
import math
from pathlib import Path

from chainer import training

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.training.reports import MeanOverRanks


class FiniteLoss(training.Extension):
    """Stop all ranks when a loss is NaN or infinite on any of them.

    It looks at the mean over all ranks, which is then not finite either, in the iteration of the
    loss and before anything is written. By then the weights have been updated from it, in
    memory: they are given up with the job, and what is on the disk is from before. To look before
    the update would make the host wait for the GPU between forward and backward, and the ranks
    for each other once more.

    Every rank runs it. The images of the ranks whose loss it was are saved in ``bad_batch.json``::

        {"iteration": 7, "learning_rate": 0.01,
         "ranks": [{"rank": 1, "positions": [13, 15], "image_ids": ["...", "..."],
                    "losses": {"main/loss": "nan", ...}}]}

    Args:
        mean (MeanOverRanks): What averages the losses.
        out (path): Where ``bad_batch.json`` goes.

    Raises:
        InputError: A loss is not finite.
    """

    priority = training.PRIORITY_EDITOR - 10

    def __init__(self, mean: MeanOverRanks, out: Path):
        self.mean = mean
        self.path = Path(out) / 'bad_batch.json'

    # A function has no state in the snapshot.
    @staticmethod
    def trigger(trainer) -> bool:
        """In every iteration."""
        return True

    def __call__(self, trainer) -> None:
        images = trainer.updater.images
        names = [k for k in trainer.observation if k.startswith(self.mean.prefix)]
        if not all(math.isfinite(trainer.observation[k]) for k in names):
            self._stop(trainer, images)

    def _stop(self, trainer, images: list[tuple[int, str]]) -> None:
        comm, own = self.mean.comm, self.mean.own
        bad = [k for k, v in own.items() if not math.isfinite(v)]
        parts = comm.mpi_comm.gather(
            bad
            and {
                'rank': comm.rank,
                'positions': [p for p, _ in images],
                'image_ids': [i for _, i in images],
                # JSON has no name for these numbers.
                'losses': {k: v if math.isfinite(v) else str(v) for k, v in own.items()},
            }
        )
        if comm.rank == 0:
            raise self._error(trainer, [part for part in parts if part])
        # One line says it: the first rank ends the job, and the others wait for that.
        comm.mpi_comm.Barrier()

    def _error(self, trainer, parts: list[dict]) -> InputError:
        iteration = trainer.updater.iteration
        with replace_when_done(self.path) as path:
            path.write_text(
                json.dumps(
                    {
                        'iteration': iteration,
                        'learning_rate': float(trainer.updater.get_optimizer('main').lr),
                        'ranks': parts,
                    },
                    indent=1,
                )
                + '\n'
            )
        losses = ', '.join(
            f'{v} of rank {part["rank"]} ({k.removeprefix(self.mean.prefix)})'
            for part in parts[:1]
            for k, v in part['losses'].items()
            if isinstance(v, str)
        )
        more = f' and {len(parts) - 1} more ranks' if len(parts) > 1 else ''
        return InputError(
            f'iteration {iteration}: the loss is {losses}{more}; its images are in {self.path}, '
            'and the snapshots are from before'
        )
