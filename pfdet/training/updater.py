"""One update of the weights: wait for the images, forward, backward, all-reduce, update."""

import time
from collections.abc import Callable

import chainer
from chainer.training import StandardUpdater


class Updater(StandardUpdater):
    """Update the weights from a batch at once, or in parts that need less memory.

    In parts, gradients add up over the forward and backward passes of all parts, and then ranks
    average them once. All parts have the batch's size in pixels. So the update is that of the
    whole batch, except through batch normalization: it sees one part at a time, on all ranks of
    its group, so that its statistics are over as many images as with a batch of a part's size, and
    its running averages move once a part.

    Args:
        iterator (ShardedIterator): Its batch is all that a rank has in an update.
        optimizer (chainer.Optimizer): What updates, set up with the chain that computes the loss.
        converter (callable): From samples to a :class:`~pfdet.training.transforms.Batch`.
        n_part (int): Parts of a batch.

    Attributes:
        images (list of pairs): Position and image id of this rank's images of the last update.
        seconds (float): What the last update took.
        seconds_waited (float): For how long of that it waited for the iterator.
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
        self.seconds = time.perf_counter() - started

    def _update_in_parts(self, optimizer, batch) -> None:
        summary = chainer.DictSummary()
        optimizer.target.cleargrads()
        for part in batch.parts(self.n_part):
            observation = {}
            with chainer.reporter.report_scope(observation):
                loss = optimizer.target(part) / self.n_part
            loss.backward(loss_scale=optimizer._loss_scale)
            # Not two parts' activations at a time.
            del loss
            summary.add(observation)
        optimizer.update()
        chainer.report(summary.compute_mean())
