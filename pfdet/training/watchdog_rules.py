"""When the watchdog ends a job: which ranks have stopped, and what is said about it."""

from collections.abc import Iterable
from typing import NamedTuple

# A rank that does not answer is told from one without progress if it has missed this many
# heartbeats.
_MISSED = 3


class Heartbeat(NamedTuple):
    """What a rank says about itself.

    Attributes:
        count (int): See :class:`pfdet.progress.Progress`.
        phase, waiting (str): See there.
        active (bool): Whether the process has computed since its last heartbeat.
    """

    count: int = 0
    phase: str = 'start-up'
    waiting: str = ''
    active: bool = True


class Problem(NamedTuple):
    """Ranks that have stopped.

    Attributes:
        ranks (tuple of int): The ranks.
        line (str): One line about them.
    """

    ranks: tuple[int, ...]
    line: str


class Monitor:
    """The heartbeats of ranks, and the rules by which they have stopped.

    A rank has stopped if it has not been heard of for ``timeout`` seconds: it is frozen, or its
    node or the network is. It has also stopped if it is heard of, but makes no progress for that
    time: it has not reported progress, has not computed, and does not wait for other ranks. If all
    ranks wait for each other for that time, all have stopped.

    Times are those of the observer, in seconds of a monotonic clock.

    Args:
        nodes (dict): Names of the nodes by rank, of the ranks to watch.
        timeout (float): Seconds.
        interval (float): Seconds between heartbeats.
        now (float): The time.
    """

    def __init__(self, nodes: dict[int, str], timeout: float, interval: float, now: float):
        self.nodes = nodes
        self.timeout = timeout
        self.interval = interval
        self._heard = dict.fromkeys(nodes, now)
        self._progress = dict.fromkeys(nodes, now)
        self._last = dict.fromkeys(nodes, Heartbeat())
        self._lost: set[int] = set()

    def joined(self, rank: int, node: str, now: float) -> None:
        """Watch another rank, or one whose connection was lost and is there again."""
        self.nodes[rank] = node
        self._lost.discard(rank)
        self._last.setdefault(rank, Heartbeat())
        self._progress.setdefault(rank, now)
        self._heard[rank] = now

    def heard(self, rank: int, beat: Heartbeat, now: float) -> None:
        """Note a heartbeat."""
        if rank not in self.nodes:
            return
        self._lost.discard(rank)
        before = self._last[rank]
        # A rank that waits is not active, even if its MPI polls.
        if beat.count != before.count or (beat.active and not beat.waiting):
            self._progress[rank] = now
        self._heard[rank] = now
        self._last[rank] = beat

    def lost(self, rank: int) -> None:
        """Note that the connection to a rank has ended."""
        self._lost.add(rank)

    def connected(self) -> set[int]:
        """The ranks that are watched and whose connection has not ended."""
        return set(self.nodes) - self._lost

    def finished(self, rank: int) -> None:
        """Do not watch a rank any longer."""
        self.nodes.pop(rank, None)

    def restart(self, now: float) -> None:
        """Start all times anew, after the observer itself was stopped."""
        for rank in self._heard:
            self._heard[rank] = self._progress[rank] = now

    def silent(self, now: float) -> Problem | None:
        """The ranks that have not been heard of, if any."""
        ranks = self._older(self._heard, now, self.timeout)
        return self._problem(ranks, 'has not answered') if ranks else None

    def problem(self, now: float) -> Problem | None:
        """The ranks that have stopped by now, if any."""
        silent = self.silent(now)
        if silent is not None:
            return silent
        if self._older(self._heard, now, _MISSED * self.interval):
            # What the others wait for may turn out to be this rank.
            return None
        still = self._older(self._progress, now, self.timeout)
        stuck = [rank for rank in still if not self._last[rank].waiting]
        if stuck:
            return self._problem(stuck, 'has made no progress')
        if still and len(still) == len(self.nodes):
            return self._problem(still, 'has waited for other ranks, as all do,')
        return None

    def _older(self, times: dict[int, float], now: float, age: float) -> list[int]:
        return [rank for rank in self.nodes if now - times[rank] > age]

    def _problem(self, ranks: Iterable[int], verb: str) -> Problem:
        # The rank that is furthest behind: the others may wait for it.
        ranks = sorted(ranks, key=lambda rank: (self._last[rank].count, rank))
        first = ranks[0]
        if first in self._lost:
            verb = 'has lost its connection and has not answered'
        last = self._last[first]
        where = f'{last.phase}, in {last.waiting}' if last.waiting else last.phase
        more = ''
        if len(ranks) == 2:
            more = f'; likewise rank {ranks[1]} on node {self.nodes[ranks[1]]}'
        elif len(ranks) > 2:
            more = f'; likewise {len(ranks) - 1} more ranks'
        return Problem(
            tuple(ranks),
            f'rank {first} on node {self.nodes[first]} {verb} for {self.timeout:g} seconds '
            f'(--rank-timeout), last phase: {where}{more}; the job ends',
        )
