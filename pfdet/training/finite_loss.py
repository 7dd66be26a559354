"""Stop at a NaN or infinite loss and record the images of the batch."""

import json
import math
from pathlib import Path

from chainer import training

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.training.reports import MeanOverRanks


class FiniteLoss(training.Extension):
    """Stop all ranks when a loss is NaN or infinite on any rank.

    The extension checks the mean over all ranks, which is not finite if any loss is not. It runs in
    the iteration of the loss, before anything is written. The weights in memory have been updated
    by then, but they are discarded; the files on disk are from earlier iterations. A check before
    the update would add a synchronization with the GPU between forward and backward, and one more
    synchronization of the ranks.

    All ranks run this extension. The images of the ranks with a loss that is not finite are saved
    in ``bad_batch.json``::

        {"iteration": 7, "learning_rate": 0.01,
         "ranks": [{"rank": 1, "positions": [13, 15], "image_ids": ["...", "..."],
                    "losses": {"main/loss": "nan", ...}}]}

    Args:
        mean (MeanOverRanks): The extension that averages the losses.
        out (path): Directory for ``bad_batch.json``.

    Raises:
        InputError: A loss is not finite.
    """

    priority = training.PRIORITY_EDITOR - 10

    def __init__(self, mean: MeanOverRanks, out: Path):
        self.mean = mean
        self.path = Path(out) / 'bad_batch.json'

    # A function, unlike a trigger object, adds no state to the snapshot.
    @staticmethod
    def trigger(trainer) -> bool:
        """Fire in every iteration."""
        return True

    def __call__(self, trainer) -> None:
        images = trainer.updater.images
        names = [k for k in trainer.observation if k.startswith(self.mean.prefix)]
        if not all(math.isfinite(trainer.observation[k]) for k in names):
            self._stop(trainer, images)

    def _stop(self, trainer, images: list[tuple[int, str]]) -> None:
        comm, losses = self.mean.comm, self.mean.local
        bad = [k for k, v in losses.items() if not math.isfinite(v)]
        parts = comm.mpi_comm.gather(
            bad
            and {
                'rank': comm.rank,
                'positions': [p for p, _ in images],
                'image_ids': [i for _, i in images],
                # JSON has no NaN or infinity.
                'losses': {k: v if math.isfinite(v) else str(v) for k, v in losses.items()},
            }
        )
        if comm.rank == 0:
            raise self._error(trainer, [part for part in parts if part])
        # Only the first rank prints the error and ends the job; the others wait for it.
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
            f'iteration {iteration}: the loss is {losses}{more}; the images are listed in '
            f'{self.path}; the snapshots are from earlier iterations'
        )
