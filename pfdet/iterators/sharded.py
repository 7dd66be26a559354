"""A Chainer iterator over one rank's share of a global sequence."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import chainer

from pfdet.errors import InputError
from pfdet.iterators.load_threads import LoadThreads
from pfdet.iterators.samplers import replacements
from pfdet.openimages.corrupt_images import CorruptImages


class ShardedIterator(chainer.dataset.Iterator):
    """One rank's batches of a global sequence, loaded ahead of time by threads.

    In iteration :math:`i`, :math:`n` ranks of batch size :math:`b` together take the positions
    from :math:`i b n` to :math:`(i + 1) b n`, rank :math:`r` every :math:`n`-th from the
    :math:`r`-th on. Decoding and resizing release Python's lock, so threads do; processes forked
    after MPI has started are known to crash on InfiniBand.

    Args:
        sampler (sequence): Maps a global position to an image; its length is that of an epoch.
        load (callable): Called as ``load(image, position, iteration)`` in a thread, returns what
            goes into a batch.
        batch_size (int): Images a rank and iteration.
        rank, n_rank (int): Which share.
        n_thread (int): Threads that load.
        n_ahead (int): Batches to load ahead.
        timeout (float): Seconds after which an image that is still not loaded is an error.
        corrupt (CorruptImages): Counts what was read, and the images for which ``load`` raises
            :class:`~pfdet.errors.InputError`: others take their place, see
            :func:`~pfdet.iterators.samplers.replacements`. With :obj:`None`, the error is raised.
    """

    repeat = True

    def __init__(
        self,
        sampler: Sequence[int],
        load: Callable[[int, int, int], Any],
        batch_size: int,
        rank: int = 0,
        n_rank: int = 1,
        n_thread: int = 1,
        n_ahead: int = 2,
        corrupt: CorruptImages | None = None,
        timeout: float = 900.0,
    ):
        if batch_size < 1:
            raise ValueError(f'batch size must be at least 1, not {batch_size}')
        if not 0 <= rank < n_rank:
            raise ValueError(f'rank must be in [0, {n_rank}), not {rank}')
        self.sampler = sampler
        self.load = load
        self.batch_size = batch_size
        self.rank = rank
        self.n_rank = n_rank
        self.n_ahead = n_ahead
        self.corrupt = corrupt
        self.position = 0
        self._previous = 0
        self._threads = LoadThreads(load, n_thread, timeout)
        self._batches: deque[list[Future]] = deque()
        self._requested = 0

    @property
    def global_batch_size(self) -> int:
        """Images of all ranks an iteration."""
        return self.batch_size * self.n_rank

    def positions(self, start: int) -> range:
        """This rank's positions in the iteration that begins at global position ``start``."""
        return range(start + self.rank, start + self.global_batch_size, self.n_rank)

    def __next__(self) -> list:
        while len(self._batches) <= self.n_ahead:
            iteration = self._requested // self.global_batch_size
            self._batches.append(
                [
                    self._threads.submit(self.sampler[p], p, iteration)
                    for p in self.positions(self._requested)
                ]
            )
            self._requested += self.global_batch_size
        batch = [
            self._sample(future, p)
            for future, p in zip(
                self._batches.popleft(), self.positions(self.position), strict=True
            )
        ]
        self._previous = self.position
        self.position += self.global_batch_size
        return batch

    next = __next__

    def _sample(self, future: Future, position: int) -> Any:
        # Counted here and not where it is loaded ahead, so that the count is that of the batches.
        try:
            sample = self._threads.result(future, f'image at position {position}')
        except InputError as e:
            if self.corrupt is None:
                raise
            return self._other_sample(position, e)
        if self.corrupt is not None:
            self.corrupt.n_image += 1
        return sample

    def _other_sample(self, position: int, error: InputError) -> Any:
        """What takes the place of an image that cannot be read."""
        self.corrupt.add(position, error)
        iteration = self.position // self.global_batch_size
        for image in replacements(self.sampler, position):
            try:
                sample = self.load(image, position, iteration)
            except InputError as e:
                self.corrupt.add(position, e)
            else:
                self.corrupt.n_image += 1
                return sample
        raise InputError(f'{error}; and none of the images that follow it can be read either')

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.position // len(self.sampler)

    @property
    def epoch_detail(self) -> float:
        """Epochs passed, with the fraction of the current one."""
        return self.position / len(self.sampler)

    @property
    def previous_epoch_detail(self) -> float:
        """:attr:`epoch_detail` before the last batch."""
        return self._previous / len(self.sampler)

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last batch completed an epoch."""
        return self._previous // len(self.sampler) < self.epoch

    def finalize(self) -> None:
        """Stop the threads, without waiting for images not yet begun."""
        # Chainer calls this also for an iterator whose arguments were refused.
        if hasattr(self, '_threads'):
            self._threads.stop()

    def serialize(self, serializer) -> None:
        """Write or read the position, which is all the state there is.

        The number of ranks and the batch size may differ between writing and reading; the global
        sequence goes on. Iterations are then counted by the new size.
        """
        self.position = int(serializer('position', self.position))
        self._previous = int(serializer('previous_position', self._previous))
        if isinstance(serializer, chainer.Deserializer):
            for future in sum(self._batches, []):
                future.cancel()
            self._batches.clear()
            self._requested = self.position
