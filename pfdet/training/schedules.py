"""The learning rate as a function of the iteration, and the extension that sets it."""

import math
from collections.abc import Callable, Sequence

from chainer import training

from pfdet.recipes import known


def linear_scaling(base_lr: float, base_batch_size: int, batch_size: int) -> float:
    """The learning rate for a batch size (Goyal et al., section 2.1).

    PFDet: "a linear learning rate scaling rule with respect to the number of GPUs. The initial
    learning rate is set to 0.01 for batch size of 8" (section 3).

    Args:
        base_lr (float): Learning rate at ``base_batch_size``.
        base_batch_size (int): Images per iteration over all ranks, in the reference.
        batch_size (int): Images per iteration over all ranks, in this run.
    """
    return base_lr * batch_size / base_batch_size


def learning_rate(
    iteration: int,
    n_iteration: int,
    lr: float,
    schedule: str = 'cosine',
    steps: Sequence[float] = (8 / 12, 11 / 12),
    n_warmup: int = 0,
    warmup_start: float = 0.1,
) -> float:
    """Compute the learning rate of an iteration.

    Args:
        iteration (int): Iteration, counted from 0.
        n_iteration (int): Iterations of the whole run.
        lr (float): Learning rate after warm-up.
        schedule (str): ``'step'``: divide by 10 at each of ``steps``; PFDet's baseline has steps at
            epochs 8 and 11 of 12. ``'cosine'``: half a cosine from ``lr`` to 0 (Loshchilov and
            Hutter, equation 5, without restarts).
        steps (sequence of float): Positions of the steps as fractions of the run.
        n_warmup (int): Iterations of linear warm-up (Goyal et al., section 2.2). PFDet only says
            "The training starts with a warm-up phase".
        warmup_start (float): Initial factor of the warm-up.

    Raises:
        ValueError: ``schedule`` is unknown.
    """
    progress = iteration / max(1, n_iteration)
    if schedule == 'step':
        lr = lr * 0.1 ** sum(progress >= s for s in steps)
    elif schedule == 'cosine':
        lr = lr * (1 + math.cos(math.pi * min(1.0, progress))) / 2
    else:
        raise ValueError(f'schedule must be one of {known.SCHEDULES}, not {schedule!r}')
    if iteration < n_warmup:
        lr *= warmup_start + (1 - warmup_start) * iteration / n_warmup
    return lr


class SetLearningRate(training.Extension):
    """Set the optimizer's learning rate before every iteration.

    It has no state: a resumed run computes the learning rate from its iteration.

    Args:
        rate (callable): Takes an iteration, counted from 0, returns the learning rate.
        iteration (callable): Takes the trainer, returns the iteration; by default the number of
            updates.
    """

    trigger = 1, 'iteration'
    # Run after the extensions that report the learning rate of the iteration.
    priority = training.PRIORITY_READER - 50

    def __init__(
        self,
        rate: Callable[[float], float],
        iteration: Callable[..., float] = lambda trainer: trainer.updater.iteration,
    ):
        self.rate = rate
        self.iteration = iteration

    def initialize(self, trainer) -> None:
        """Set the learning rate of the first iteration."""
        self(trainer)

    def __call__(self, trainer) -> None:
        optimizer = trainer.updater.get_optimizer('main')
        optimizer.lr = self.rate(self.iteration(trainer))
