"""One update of the weights: wait for the images, forward, backward, all-reduce, update."""

import time
from collections.abc import Callable

import chainer
from chainer.training import StandardUpdater

from pfdet.functions.finite import GRADIENTS, nan_unless_squares_finite
from pfdet.training import loss_scale


class Updater(StandardUpdater):
    """Update the weights from a whole batch, or from parts of it to save memory.

    With several parts, gradients are accumulated over the forward and backward passes of all parts,
    and averaged over ranks once. All parts are padded to the size of the batch. So the update
    equals that of the whole batch, except for batch normalization. Its statistics are over one part
    at a time, on all ranks of the group, and its running averages are updated once per part.

    Args:
        iterator (ShardedIterator): Its batch has all images of this rank in an update.
        optimizer (chainer.Optimizer): An optimizer set up with the chain that computes the loss.
        converter (callable): Converts samples to a :class:`~pfdet.training.transforms.Batch`.
        n_part (int): Number of parts of a batch.

    Attributes:
        images (list of pairs): Position and image id of this rank's images in the last update.
        seconds (float): Duration of the last update.
        seconds_waited (float): Part of it that was spent waiting for the iterator.
    """

    def __init__(self, iterator, optimizer, converter: Callable, n_part: int = 1):
        super().__init__(iterator, optimizer, converter=converter, device=None)
        self.n_part = n_part
        self.images: list[tuple[int, str]] = []
        self.seconds = self.seconds_waited = 0.0

    def update_core(self) -> None:
        """Do one update."""
        started = time.perf_counter()
        samples = self.get_iterator('main').next()
        self.seconds_waited = time.perf_counter() - started
        batch = self.converter(samples, self.device)
        self.images = list(zip(batch.positions, batch.image_ids, strict=True))
        optimizer = self.get_optimizer('main')
        if self.n_part == 1:
            optimizer.update(optimizer.target, batch)
        else:
            self._update_in_parts(optimizer, batch)
        gradients = [param.grad for param in optimizer.target.params() if param.grad is not None]
        if loss_scale.report(optimizer):
            # They have been dropped.
            gradients = []
        chainer.report({f'main/{GRADIENTS}': nan_unless_squares_finite(gradients)})
        self.seconds = time.perf_counter() - started

    def _update_in_parts(self, optimizer, batch) -> None:
        summary = chainer.DictSummary()
        optimizer.target.cleargrads()
        for part in batch.parts(self.n_part):
            observation = {}
            with chainer.reporter.report_scope(observation):
                loss = optimizer.target(part) / self.n_part
            loss.backward(loss_scale=optimizer._loss_scale)
            # Free the activations before the next part.
            del loss
            summary.add(observation)
        optimizer.update()
        chainer.report(summary.compute_mean())
