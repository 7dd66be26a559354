"""When a run ends, and where in its schedule it is."""

import math
from collections.abc import Callable


class RunLength:
    """The length of a run, counted in images.

    A run may be resumed with another number of ranks, so with another number of images an
    iteration. What stays is the sequence of images: where a run is in its schedule, and when it
    ends, follow from its position in the sequence. An iteration, in file names, in the log, and
    for the intervals between logs, validations and snapshots, is one update of the weights: their
    number goes on from what it was.

    So with 2 ranks of 4 images up to image 4,000 and 4 ranks of 4 from there on, iteration 500 is
    followed by 501. It has the learning rate of a run that had 4 ranks from the start at image
    4,000, which is twice that of 2 ranks, and the run ends after the same number of images.

    Args:
        n_image (int): Images an epoch.
        epochs (float): Passes over them.
        global_batch (int): Images of all ranks an iteration, now.
        iterations (int): Stop after so many updates, wherever in the schedule that is.
    """

    def __init__(
        self, n_image: int, epochs: float, global_batch: int, iterations: int | None = None
    ):
        self.epochs = epochs
        self.n_epoch_iteration = n_image / global_batch
        self.global_batch = global_batch
        self.iterations = iterations
        self.n_iteration = math.ceil(epochs * self.n_epoch_iteration)

    def schedule_iteration(self, trainer) -> float:
        """Iterations to the trainer's position, had they all been of the present size."""
        return trainer.updater.get_iterator('main').position / self.global_batch

    def last(self, trainer) -> int:
        """The iteration after which the trainer, as it stands, will stop."""
        if self.iterations is not None:
            return max(self.iterations, trainer.updater.iteration)
        left = self.n_iteration - self.schedule_iteration(trainer)
        return trainer.updater.iteration + max(0, math.ceil(left))

    def ended(self, trainer) -> bool:
        """Whether the trainer is there; a stop trigger."""
        if self.iterations is not None:
            return trainer.updater.iteration >= self.iterations
        return self.schedule_iteration(trainer) >= self.n_iteration

    def every(self, n: int) -> Callable:
        """A trigger of every ``n`` iterations, and of the last one."""
        return lambda trainer: trainer.updater.iteration % n == 0 or self.ended(trainer)


class Stop:
    """The trainer's stop trigger.

    Args:
        length (RunLength): Of the run.
        asked (callable): Whether to stop before, without arguments.
    """

    def __init__(self, length: RunLength, asked: Callable[[], object] = lambda: False):
        self.length = length
        self.asked = asked

    def __call__(self, trainer) -> bool:
        return self.length.ended(trainer) or bool(self.asked())

    def get_training_length(self) -> tuple[float, str]:
        """What Chainer's progress bar is a share of."""
        if self.length.iterations is not None:
            return self.length.iterations, 'iteration'
        return self.length.epochs, 'epoch'
