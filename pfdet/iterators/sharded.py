"""Chainer iterator over one rank's positions of a global sequence."""

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

    In iteration :math:`i`, :math:`n` ranks of batch size :math:`b` process the positions from
    :math:`i b n` to :math:`(i + 1) b n`. Rank :math:`r` takes every :math:`n`-th of them, starting
    at offset :math:`r`. Threads are enough, because decoding and resizing release the GIL, and
    processes forked after the start of MPI can crash on InfiniBand.

    Args:
        sampler (sequence): Maps a global position to an image. Its length is that of an epoch.
        load (callable): ``load(image, position, iteration)`` returns a sample of a batch. Called in
            a thread.
        batch_size (int): Images per rank and iteration.
        rank (int): This rank.
        n_rank (int): Number of ranks.
        n_thread (int): Number of loading threads.
        n_ahead (int): Batches loaded ahead.
        timeout (float): Seconds after which an image that is not loaded is an error.
        corrupt (CorruptImages): Counts the images read, and those for which ``load`` raises
            :class:`~pfdet.errors.InputError`. The latter are replaced by
            :func:`~pfdet.iterators.samplers.replacements`. With :obj:`None`, the error is raised.

    Raises:
        ValueError: ``batch_size`` or ``rank`` is out of range.
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
        """Images per iteration, over all ranks."""
        return self.batch_size * self.n_rank

    def positions(self, start: int) -> range:
        """This rank's positions in the iteration that starts at global position ``start``."""
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
        # Counted here and not in the thread, so that images loaded ahead do not count.
        try:
            sample = self._threads.result(future, f'image at position {position}')
        except InputError as e:
            if self.corrupt is None:
                raise
            return self._replacement_sample(self.corrupt, position, e)
        if self.corrupt is not None:
            self.corrupt.n_image += 1
        return sample

    def _replacement_sample(self, corrupt: CorruptImages, position: int, error: InputError) -> Any:
        """Load the first readable replacement of an image that cannot be read."""
        corrupt.add(position, error)
        iteration = self.position // self.global_batch_size
        for image in replacements(self.sampler, position):
            try:
                sample = self.load(image, position, iteration)
            except InputError as e:
                corrupt.add(position, e)
            else:
                corrupt.n_image += 1
                return sample
        raise InputError(f'{error}; and none of the images that follow it can be read either')

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.position // len(self.sampler)

    @property
    def epoch_detail(self) -> float:
        """Epochs completed, including the fraction of the current one."""
        return self.position / len(self.sampler)

    @property
    def previous_epoch_detail(self) -> float:
        """Value of :attr:`epoch_detail` before the last batch."""
        return self._previous / len(self.sampler)

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last batch completed an epoch."""
        return self._previous // len(self.sampler) < self.epoch

    def finalize(self) -> None:
        """Stop the threads and drop images that are not being loaded yet."""
        # Chainer calls this even if __init__ raised an error.
        if hasattr(self, '_threads'):
            self._threads.stop()

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Save or load the position, which is the whole state.

        The number of ranks and the batch size may differ between saving and loading. The global
        sequence continues, and iterations are counted with the new global batch size.
        """
        self.position = int(serializer('position', self.position))
        self._previous = int(serializer('previous_position', self._previous))
        if isinstance(serializer, chainer.Deserializer):
            for future in sum(self._batches, []):
                future.cancel()
            self._batches.clear()
            self._requested = self.position
