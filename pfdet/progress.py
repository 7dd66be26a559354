"""What this process is doing, for the watchdog of the ranks (:mod:`pfdet.training.watchdog`).

Functions that take long report their progress, so that a slow rank is not taken for a frozen one,
and so that the phase of a frozen one can be named. A report costs less than a microsecond and does
nothing else. Only the main thread reports.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

_T = TypeVar('_T')


class Progress(NamedTuple):
    """What a process is doing.

    Attributes:
        count (int): Number of reports so far.
        phase (str): The phase, such as ``'validation'``.
        waiting (str): The MPI call in which it waits for other ranks, or ``''``.
    """

    count: int = 0
    phase: str = 'start-up'
    waiting: str = ''


class _State:
    count = 0
    phase = Progress().phase
    waiting = ''


_state = _State()


def current() -> Progress:
    """What this process is doing now."""
    return Progress(_state.count, _state.phase, _state.waiting)


def report(phase: str | None = None) -> None:
    """Report progress, and the beginning of a phase if one is given."""
    _state.count += 1
    if phase is not None:
        _state.phase = phase


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Within the block, the process is in this phase; afterwards in the one before."""
    before = _state.phase
    report(name)
    try:
        yield
    finally:
        report(before)


def reporting(iterable: Iterable[_T]) -> Iterator[_T]:
    """Iterate over the items and report progress at each."""
    for item in iterable:
        report()
        yield item


def watched(call: Callable, name: str) -> Callable:
    """Wrap an MPI call in which a process waits for other ranks.

    While it waits, a process is not expected to make progress. The end of a call is progress.

    Args:
        call (callable): The call.
        name (str): Its name.
    """

    def wait(*args, **kwargs):
        _state.waiting = name
        try:
            return call(*args, **kwargs)
        finally:
            _state.waiting = ''
            _state.count += 1

    return wait
