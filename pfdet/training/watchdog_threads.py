"""The threads of the watchdog, one per rank, see :mod:`pfdet.training.watchdog`."""

import contextlib
import os
import resource
import secrets
import selectors
import subprocess
import sys
import threading
import time
from typing import Any

from pfdet import interruption, progress
from pfdet.errors import abort_job
from pfdet.training import watchdog_network as network
from pfdet.training.startup_guard import STATUS
from pfdet.training.watchdog_rules import Heartbeat, Monitor, Problem

# A process is active if it computes for more than this share of the time.
_ACTIVE_SHARE = 0.002
# For the launcher to forward the line, and for the message to reach the ranks.
_SECONDS_TO_PASS_ON = 1.0
# If the first rank has stopped, the others end the job one after the other, so that one reports.
_SECONDS_NEXT = 5.0
# For the launcher to kill stopped ranks.
_SECONDS_TO_KILL = 5.0
# In a process of its own that outlives the rank: kill processes unless the launcher has done it.
_KILL = """
import os, sys, time
time.sleep({seconds})
for pid, start in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        stat = open('/proc/' + pid + '/stat').read()
        if stat.rpartition(')')[2].split()[19] == start:
            os.kill(int(pid), 9)
    except OSError:
        pass
"""
# Files of a rank besides its connections.
_OTHER_FILES = 256


def interval_of(timeout: float) -> float:
    """Seconds between heartbeats for a time limit in seconds."""
    return min(max(timeout / 20, 0.05), 10.0)


class Watcher:
    """The thread of a rank.

    Args:
        me (dict): This rank: ``'rank'``, ``'node'``, ``'where'``, ``'pid'``, ``'start'``.
        timeout (float): Seconds after which a rank has stopped.
    """

    connected = True

    def __init__(self, me: dict[str, Any], timeout: float):
        self.me = me
        self.timeout = timeout
        self.interval = interval_of(timeout)
        self._closing = False
        self._wake_up, self._to_wake_up = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_up, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name='watchdog', daemon=True)
        self._cpu, self._cpu_time = 0.0, time.monotonic()

    def start(self) -> None:
        """Start to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop to watch when all ranks have come to this call, and wait for that.

        A rank that has entered a barrier may freeze before it leaves it, while others do leave it.
        So it is watched until it is here.
        """
        self._closing = True
        os.write(self._to_wake_up, b'.')
        self._thread.join()

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as e:
            # Without its heartbeats, this rank would be taken for a frozen one.
            print(
                f'warning: the watchdog of rank {self.me["rank"]} has ended: '
                f'{type(e).__name__}: {e}',
                file=sys.stderr,
                flush=True,
            )
        self._say_goodbye()

    def _watch(self) -> None:
        next_beat = time.monotonic()
        while not (self._closing and self._all_are_closing()):
            before = time.monotonic()
            wait = min(max(next_beat - before, 0.0), self.interval)
            events = self._selector.select(wait)
            now = time.monotonic()
            if now - before > wait + 3 * self.interval + 1:
                # This process was stopped itself, probably with all others: a job was suspended.
                self._monitor.restart(now)
            for key, _ in events:
                if key.fileobj == self._wake_up:
                    os.read(self._wake_up, 1)
                else:
                    self._handle(key)
            if now >= next_beat:
                next_beat = now + self.interval
                self._beat(now)

    def heartbeat(self) -> Heartbeat:
        """What this rank says about itself."""
        now = time.monotonic()
        # Without the watchdog's own time.
        cpu = time.process_time() - time.thread_time()
        active = cpu - self._cpu > _ACTIVE_SHARE * (now - self._cpu_time)
        self._cpu, self._cpu_time = cpu, now
        return Heartbeat(*progress.current(), active)

    def _all_are_closing(self) -> bool:
        """Whether the ranks that this one watches have come to :meth:`close`, as this one has.

        Those whose connection has ended count as such: a frozen rank keeps its connection.
        """
        raise NotImplementedError

    def _handle(self, key: selectors.SelectorKey) -> None:
        raise NotImplementedError

    def _beat(self, now: float) -> None:
        raise NotImplementedError

    def _say_goodbye(self) -> None:
        raise NotImplementedError

    def _end(self, line: str | None, stopped: list[dict[str, Any]]) -> None:
        """End this rank, and by it the job. Does not return.

        Args:
            line (str): Printed if given.
            stopped (list of dict): Processes on this node to kill if the launcher does not.
        """
        if line is not None:
            # Not sys.stderr: the main thread may hold its lock.
            with contextlib.suppress(OSError):
                os.write(2, f'error: {line}\n'.encode())
        _kill_later([p for p in stopped if p['where'] == self.me['where']])
        interruption.clean_up()
        time.sleep(_SECONDS_TO_PASS_ON)
        abort_job(STATUS)


def _kill_later(processes: list[dict[str, Any]]) -> None:
    """Kill processes of this node after a while, by a process that does not end with the job."""
    # Not at once: the launcher would report the killed rank instead of this job's status.
    arguments = [text for p in processes for text in (str(p['pid']), p['start']) if p['start']]
    if arguments:
        with contextlib.suppress(OSError):
            subprocess.Popen(
                [sys.executable, '-I', '-S', '-c', _KILL.format(seconds=_SECONDS_TO_KILL)]
                + arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )


def _allow_files(n: int) -> None:
    """Raise this process's limit of open files to ``n``, if it is lower and may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < n:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (n, max(n, hard)))


class FirstRank(Watcher):
    """The thread of the first rank, which watches all others.

    Args:
        n_rank (int): Number of ranks.

    Attributes:
        invitation (dict): What another rank needs to connect.
    """

    def __init__(self, me: dict[str, Any], timeout: float, n_rank: int):
        super().__init__(me, timeout)
        _allow_files(n_rank + _OTHER_FILES)
        self._listener = network.listen()
        self._listener.setblocking(False)
        # Only ranks of this job know it.
        self._token = secrets.token_hex(16)
        self.invitation = {
            'hosts': network.addresses(),
            'port': self._listener.getsockname()[1],
            'token': self._token,
            'first': me,
        }
        self._monitor = Monitor({0: me['node']}, timeout, self.interval, time.monotonic())
        self._ranks: dict[int, dict[str, Any]] = {0: me}
        self._connections: dict[int, network.Connection] = {}
        self._selector.register(self._listener, selectors.EVENT_READ)
        # The other ranks connect while the main threads wait for each other.
        self._thread.start()

    def start(self) -> None:
        """The thread runs already."""

    def _all_are_closing(self) -> bool:
        return self._monitor.connected() <= {0}

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif isinstance(key.fileobj, network.Connection):
            self._receive(key.fileobj, key.data)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection = network.Connection(self._listener.accept()[0])
            self._selector.register(connection, selectors.EVENT_READ, {})

    def _receive(self, connection: network.Connection, known: dict[str, Any]) -> None:
        try:
            for message in connection.receive():
                self._take(connection, known, message)
        except (OSError, KeyError, TypeError):
            self._selector.unregister(connection)
            connection.close()
            rank = known.get('rank')
            if rank is not None and self._connections.get(rank) is connection:
                del self._connections[rank]
                self._monitor.lost(rank)

    def _take(self, connection: network.Connection, known: dict, message: dict[str, Any]) -> None:
        now = time.monotonic()
        if not known:
            if message['token'] != self._token:
                raise ConnectionResetError('not of this job')
            rank = message['rank']
            known['rank'] = rank
            self._ranks[rank] = message
            self._connections[rank] = connection
            connection.send({'token': self._token})
            self._monitor.joined(rank, message['node'], now)
        elif 'goodbye' in message:
            self._monitor.finished(known['rank'])
        else:
            self._monitor.heard(known['rank'], Heartbeat(*message['beat']), now)

    def _beat(self, now: float) -> None:
        beat = self.heartbeat()
        self._monitor.heard(0, beat, now)
        self._send({'beat': beat})
        problem = self._monitor.problem(now)
        if problem is not None:
            self._end_all(problem)

    def _send(self, message: dict[str, Any]) -> None:
        for connection in list(self._connections.values()):
            # A lost connection is noticed when it is read.
            with contextlib.suppress(OSError):
                connection.send(message)

    def _end_all(self, problem: Problem) -> None:
        stopped = [self._ranks[rank] for rank in problem.ranks if rank != 0]
        # One rank of each node kills its stopped ranks, if one is left.
        killers = {}
        for rank, process in sorted(self._ranks.items()):
            if rank not in problem.ranks:
                killers.setdefault(process['where'], rank)
        for rank, connection in list(self._connections.items()):
            where = self._ranks[rank]['where']
            own = [p for p in stopped if p['where'] == where] if killers.get(where) == rank else []
            with contextlib.suppress(OSError):
                connection.send({'end': own})
        mine = stopped if killers.get(self.me['where']) == 0 else []
        self._end(problem.line, mine)

    def _say_goodbye(self) -> None:
        self._send({'goodbye': True})
        for connection in self._connections.values():
            connection.close()
        self._listener.close()


class OtherRank(Watcher):
    """The thread of any other rank, which watches the first one.

    Args:
        invitation (dict): See :class:`FirstRank`.
    """

    def __init__(self, me: dict[str, Any], timeout: float, invitation: dict[str, Any]):
        super().__init__(me, timeout)
        self._first = invitation['first']
        self._hosts = invitation['hosts']
        if self._first['where'] == me['where']:
            self._hosts = ['127.0.0.1', '::1', *self._hosts]
        self._port = invitation['port']
        self._hello = {**me, 'token': invitation['token']}
        self._monitor = Monitor({0: self._first['node']}, timeout, self.interval, time.monotonic())
        self._connection: network.Connection | None = None
        self._connect()
        self.connected = self._connection is not None

    def _connect(self) -> None:
        self._connection = network.connect(self._hosts, self._port, self._hello)
        if self._connection is not None:
            self._selector.register(self._connection, selectors.EVENT_READ)

    def start(self) -> None:
        """Start to watch, if the first rank can be reached."""
        if self.connected:
            super().start()

    def close(self) -> None:
        """Stop to watch when the first rank says so, and tell it that this rank is here."""
        if self.connected:
            super().close()

    def _all_are_closing(self) -> bool:
        if self._connection is not None:
            # Again each time, since a message may be dropped.
            with contextlib.suppress(OSError):
                self._connection.send({'goodbye': True})
        return 0 not in self._monitor.connected()

    def _handle(self, key: selectors.SelectorKey) -> None:
        if self._connection is None or key.fileobj is not self._connection:
            return
        try:
            for message in self._connection.receive():
                self._take(message)
        except (OSError, TypeError):
            self._lose()

    def _take(self, message: dict[str, Any]) -> None:
        if 'end' in message:
            # The first rank reports, and aborts the job after this time.
            _kill_later(message['end'])
            interruption.clean_up()
            time.sleep(3 * _SECONDS_TO_PASS_ON)
            os._exit(STATUS)
        if 'goodbye' in message:
            self._monitor.finished(0)
        elif 'beat' in message:
            self._monitor.heard(0, Heartbeat(*message['beat']), time.monotonic())

    def _lose(self) -> None:
        if self._connection is not None:
            self._selector.unregister(self._connection)
            self._connection.close()
        self._connection = None
        self._monitor.lost(0)

    def _beat(self, now: float) -> None:
        if self._connection is None and 0 in self._monitor.nodes:
            self._connect()
        if self._connection is not None:
            try:
                self._connection.send({'beat': self.heartbeat()})
            except OSError:
                self._lose()
        silent = self._monitor.silent(now)
        if silent is not None:
            self._take_over(silent)

    def _take_over(self, problem: Problem) -> None:
        """End the job in place of the first rank, which has stopped."""
        rank = self.me['rank']
        if rank > 1:
            # Rank 1 does it, unless it has stopped, too.
            time.sleep(_SECONDS_NEXT * rank.bit_length())
        self._end(problem.line, [self._first])

    def _say_goodbye(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.send({'goodbye': True})
            self._connection.close()
