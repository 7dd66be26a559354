"""The length of a run and its position in the learning rate schedule."""

import math
from collections.abc import Callable

from pfdet.recipes.recipe import Recipe


def n_epoch(recipe: Recipe, n_image: int) -> float:
    """The length of a recipe's run in passes over a training set of ``n_image`` images."""
    if recipe.iterations:
        return recipe.iterations * recipe.lr_batch_size / n_image
    return recipe.epochs


class RunLength:
    """The length of a run, measured in images.

    A run may be resumed on another number of ranks, and thus with another global batch size. The
    sequence of images stays the same. So the position in this sequence determines the position in
    the schedule and the end of the run. Iterations, in file names, in the log, and in the intervals
    of logs, validations and snapshots, count updates of the weights, and continue from the
    snapshot.

    Example: a run has 2 ranks with 4 images each up to image 4,000, then 4 ranks with 4 images
    each. Iteration 500 is followed by iteration 501. Its learning rate is that of a run on 4 ranks
    at image 4,000, twice that of 2 ranks. The run ends after the same number of images.

    Args:
        n_image (int): Images per epoch.
        epochs (float): Number of epochs.
        global_batch (int): Current number of images per iteration over all ranks.
        iterations (int): Stop after this many updates, regardless of the schedule.
    """

    def __init__(
        self, n_image: int, epochs: float, global_batch: int, iterations: int | None = None
    ):
        self.epochs = epochs
        self.n_epoch_iteration = n_image / global_batch
        self.global_batch = global_batch
        self.iterations = iterations
        n = epochs * self.n_epoch_iteration
        # The product of two quotients may be a little more than the integer that it should be.
        self.n_iteration = math.ceil(n - 1e-9 * n)

    def warmup(self, recipe: Recipe) -> int:
        """The iterations of a recipe's warm-up."""
        return recipe.warmup_iterations or round(recipe.warmup_epochs * self.n_epoch_iteration)

    def schedule_iteration(self, trainer) -> float:
        """The trainer's position in iterations of the current global batch size."""
        return trainer.updater.get_iterator('main').position / self.global_batch

    def last_iteration(self, trainer) -> int:
        """The iteration after which the trainer will stop, counted from its current state."""
        if self.iterations is not None:
            return max(self.iterations, trainer.updater.iteration)
        remaining = self.n_iteration - self.schedule_iteration(trainer)
        return trainer.updater.iteration + max(0, math.ceil(remaining))

    def ended(self, trainer) -> bool:
        """Whether the trainer has reached the end of the run."""
        if self.iterations is not None:
            return trainer.updater.iteration >= self.iterations
        return self.schedule_iteration(trainer) >= self.n_iteration

    def every(self, n: int) -> Callable:
        """A trigger that fires every ``n`` iterations and at the last one."""
        return lambda trainer: trainer.updater.iteration % n == 0 or self.ended(trainer)

    def spaced(self, n: int) -> Callable:
        """A trigger that fires every ``n`` iterations and at the last one.

        It does not fire less than ``n / 2`` iterations before the last one.
        """

        def fires(trainer) -> bool:
            iteration = trainer.updater.iteration
            if iteration % n:
                return self.ended(trainer)
            remaining = self.last_iteration(trainer) - iteration
            return remaining == 0 or remaining >= n / 2

        return fires


class Stop:
    """The trainer's stop trigger.

    Args:
        length (RunLength): Length of the run.
        stop_requested (callable): Without arguments; returns whether to stop early.
    """

    def __init__(self, length: RunLength, stop_requested: Callable[[], object] = lambda: False):
        self.length = length
        self.stop_requested = stop_requested

    def __call__(self, trainer) -> bool:
        return self.length.ended(trainer) or bool(self.stop_requested())

    def get_training_length(self) -> tuple[float, str]:
        """The total that Chainer's progress bar shows progress towards."""
        if self.length.iterations is not None:
            return self.length.iterations, 'iteration'
        return self.length.epochs, 'epoch'
