"""Stop at a NaN or infinite loss, proposal or gradient, and record the images of the batch."""

import json
import math
from pathlib import Path

import numpy as np
from chainer import training
from chainer.backends import cuda

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.functions.finite import GRADIENTS, PREFIX, PROPOSALS
from pfdet.training.reports import MeanOverRanks

# The parts of the network from the loss to the image. A NaN spreads in this direction.
_BACKWARD = 'head', 'rpn', 'extractor'


class FiniteLoss(training.Extension):
    """Stop all ranks when a loss, proposal or gradient is NaN or infinite on any rank.

    The extension checks the means over all ranks, which are not finite if any value is not. It runs
    in the iteration of the values, before anything is written. The weights in memory have been
    updated by then, but they are discarded; the files on disk are from earlier iterations. A check
    before the update would add a synchronization with the GPU between forward and backward, and one
    more synchronization of the ranks.

    What appears first is named: the proposals, the terms of the loss that are computed from them,
    or a gradient, with its parameter.

    All ranks run this extension. The images of the ranks with a value that is not finite are saved
    in ``bad_batch.json``. Gradients are averaged over all ranks, so their images are those of all
    ranks::

        {"iteration": 7, "learning_rate": 0.01,
         "ranks": [{"rank": 1, "positions": [13, 15], "image_ids": ["...", "..."],
                    "losses": {"main/loss": "nan", ...}, "proposals_are_finite": true}]}

    Args:
        mean (MeanOverRanks): The extension that averages the losses.
        out (path): Directory for ``bad_batch.json``.

    Raises:
        InputError: A loss, proposal or gradient is not finite. All ranks raise it.
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
        means = {
            name: trainer.observation[name]
            for name in list(trainer.observation)
            if name.startswith(self.mean.prefix)
        }
        for name in means:
            # Not for the log.
            if name.startswith(self.mean.prefix + PREFIX):
                del trainer.observation[name]
        bad = {
            name.removeprefix(self.mean.prefix)
            for name, value in means.items()
            if not math.isfinite(value)
        }
        if bad == {GRADIENTS}:
            # All ranks have the same gradients.
            names = _not_finite_gradients(trainer.updater.get_optimizer('main').target)
            if names:
                self._stop(trainer, names)
        elif bad:
            self._stop(trainer, [])

    def _stop(self, trainer, gradients: list[str]) -> None:
        comm = self.mean.comm
        parts = comm.mpi_comm.gather(self._part(trainer.updater.images, bool(gradients)))
        message = None
        if comm.rank == 0:
            message = self._write(trainer, [part for part in parts if part], gradients)
        raise InputError(comm.mpi_comm.bcast(message))

    def _part(self, images: list[tuple[int, str]], is_needed: bool) -> dict | None:
        """What is saved about this rank; None if its values are finite and it is not needed."""
        prefix = self.mean.prefix
        local = dict(self.mean.local)
        proposals = local.pop(prefix + PROPOSALS, 0.0)
        local.pop(prefix + GRADIENTS, None)
        if not is_needed and all(map(math.isfinite, [*local.values(), proposals])):
            return None
        return {
            'rank': self.mean.comm.rank,
            'positions': [p for p, _ in images],
            'image_ids': [i for _, i in images],
            # JSON has no NaN or infinity.
            'losses': {k: v if math.isfinite(v) else str(v) for k, v in local.items()},
            'proposals_are_finite': math.isfinite(proposals),
        }

    def _write(self, trainer, parts: list[dict], gradients: list[str]) -> str:
        """Write ``bad_batch.json``, and return the message."""
        iteration = trainer.updater.iteration
        content = {
            'iteration': iteration,
            'learning_rate': float(trainer.updater.get_optimizer('main').lr),
            'ranks': parts,
        }
        with replace_when_done(self.path) as path:
            path.write_text(json.dumps(content, indent=1) + '\n')
        if gradients:
            more = f' and of {len(gradients) - 1} more parameters' if gradients[1:] else ''
            what = f'the gradients of {gradients[0]}{more} are not finite, although the loss is'
        else:
            what = self._describe(parts)
        return (
            f'iteration {iteration}: {what}; the images are listed in {self.path}; the snapshots '
            'are from earlier iterations'
        )

    def _describe(self, parts: list[dict]) -> str:
        rank, losses = parts[0]['rank'], parts[0]['losses']
        named = ', '.join(
            f'{v} of rank {rank} ({k.removeprefix(self.mean.prefix)})'
            for k, v in losses.items()
            if isinstance(v, str)
        )
        sentences = []
        if not parts[0]['proposals_are_finite']:
            sentences.append(f'the proposals of rank {rank} are not finite')
        if named:
            sentences.append(f'the loss is {named}')
        more = f' and {len(parts) - 1} more ranks' if len(parts) > 1 else ''
        return ', and '.join(sentences) + more


def _not_finite_gradients(link) -> list[str]:
    """Names of the parameters whose gradients are not finite, those next to the loss first."""
    names = [
        name.removeprefix('/')
        for name, param in link.namedparams()
        if param.grad is not None and not np.isfinite(cuda.to_cpu(param.grad)).all()
    ]

    def distance(name: str) -> int:
        parts = name.split('/')
        return next((k for k, part in enumerate(_BACKWARD) if part in parts), len(_BACKWARD))

    return sorted(names, key=distance)
