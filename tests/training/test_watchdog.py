"""The watchdog on several ranks, and its connections."""

import json
import os
import signal
import socket
import sys
import textwrap
import threading
import time

import pfdet.compat  # noqa: F401

import pytest

from pfdet.training import startup_guard, watchdog_threads
from pfdet.training import watchdog_network as network

STATUS = startup_guard.STATUS
# Ranks of the tests are frozen after a shorter time than those of the default.
TIMEOUT = 4

# A job of ranks that do what a name in the table says, with the watchdog.
RANKS = """
    import os, signal, sys, threading, time, types

    import pfdet.compat
    from pfdet import progress
    from pfdet.errors import run_command
    from pfdet.training.startup_guard import StartupGuard

    timeout, tells = float(sys.argv[1]), sys.argv[2]

    def tell(text):
        # One line at once, although the ranks share the output.
        os.write(1, (text + '\\n').encode())

    def freeze():
        os.kill(os.getpid(), signal.SIGSTOP)

    def hang():
        progress.report('a read from the disk')
        time.sleep(3600)

    class FrozenAfterTheBarrier:
        def __init__(self, world):
            self.world = world

        def __getattr__(self, name):
            return getattr(self.world, name)

        def barrier(self):
            self.world.barrier()
            # Some heartbeats with this phase
            time.sleep(1)
            freeze()

    def main():
        rank = int(os.environ['PMI_RANK'])
        guard = StartupGuard(timeout)
        if tells == f'frozen at the start: {rank}':
            freeze()
        from pfdet.training import watchdog
        from pfdet.training.communicators import communicator

        comm, _ = communicator('packed')
        guard.close()
        world = comm.mpi_comm
        if tells == f'stopped after the barrier: {rank}':
            comm = types.SimpleNamespace(size=comm.size, mpi_comm=FrozenAfterTheBarrier(world))
        with watchdog.watch(comm, timeout):
            progress.report('the test')
            if tells.startswith('frozen'):
                # Some heartbeats with this phase
                time.sleep(1)
                if str(rank) in tells:
                    freeze()
                world.barrier()
            elif tells == f'hanging: {rank}':
                hang()
            elif tells == 'deadlock':
                world.recv(source=(rank + 1) % comm.size)
            elif tells == 'slow' and rank == 1:
                # Longer than the limit, with progress in different ways.
                for _ in progress.reporting(range(30)):
                    time.sleep(timeout / 20)
                end = time.monotonic() + 1.5 * timeout
                while time.monotonic() < end:
                    sum(range(10000))
            elif tells == 'threads':
                tell(' '.join(sorted(t.name for t in threading.enumerate())))
            world.barrier()
            tell(f'rank {rank} is done')
        tell(f'rank {rank} ends')

    run_command(main)
"""


@pytest.fixture
def job(launch, tmp_path):
    script = tmp_path / 'train_nothing.py'
    script.write_text(textwrap.dedent(RANKS))

    def job(n_rank, tells, timeout=TIMEOUT):
        run = launch(n_rank, timeout, tells, script=script)
        run.ranks(n_rank)
        return run

    return job


def check_end(run, *words):
    """The job has ended with one line that has these words, and nothing of it is left."""
    assert run.wait(600) == STATUS, run.output()
    [line] = run.errors
    assert line.startswith('error: '), line
    for word in (*words, f'{TIMEOUT} seconds', '--rank-timeout', 'the job ends'):
        assert word in line, line
    assert socket.gethostname() in line
    assert run.remaining() == []
    assert not any(' ends' in line for line in run.lines)


STOPPED = {
    'frozen: 1': ('rank 1 on node', 'has not answered', 'last phase: the test'),
    'frozen: 0': ('rank 0 on node', 'has not answered', 'last phase: the test'),
    'frozen: 1, 2': ('rank 1 on node', 'has not answered', 'likewise rank 2 on node'),
    'frozen: 0, 1': ('rank 0 on node', 'has not answered'),
    'hanging: 2': ('rank 2 on node', 'has made no progress', 'last phase: a read from the disk'),
    'hanging: 0': ('rank 0 on node', 'has made no progress', 'last phase: a read from the disk'),
    'deadlock': ('rank 0 on node', 'has waited for other ranks', 'in recv', '2 more ranks'),
    'stopped after the barrier: 1': ('rank 1 on node', 'has not answered', 'last phase: end'),
    'stopped after the barrier: 0': ('rank 0 on node', 'has not answered', 'last phase: end'),
    'frozen at the start: 1': ('rank 1 on node', 'is frozen in the start-up'),
    'frozen at the start: 0': ('rank 0 on node', 'is frozen in the start-up'),
}


# The others take another way in the end of a job, or in what is watched.
LONG = 'frozen: 1, 2', 'frozen: 0, 1', 'hanging: 0', 'frozen at the start: 0'


@pytest.mark.faults('frozen ranks')
@pytest.mark.parametrize(
    'tells',
    [pytest.param(k, marks=[pytest.mark.soak] if k in LONG else []) for k in STOPPED],
)
def test_a_stopped_rank_ends_the_job(tells, job):
    check_end(job(3, tells), *STOPPED[tells])


def test_a_slow_rank_does_not(job):
    run = job(3, 'slow', 4)
    assert run.wait(600) == 0, run.output()
    assert run.errors == []
    assert sorted(run.lines) == sorted(
        f'rank {rank} {end}\n' for rank in range(3) for end in ('is done', 'ends')
    )


@pytest.mark.faults('frozen ranks')
@pytest.mark.soak
def test_a_suspended_job_goes_on(job):
    run = job(3, 'slow', 4)
    ranks = run.ranks(3)
    time.sleep(1)
    for pid in ranks:
        run.send(signal.SIGSTOP, pid)
    # Twice as long as the limit.
    time.sleep(8)
    for pid in ranks:
        run.send(signal.SIGCONT, pid)
    assert run.wait(600) == 0, run.output()
    assert run.errors == []


@pytest.mark.parametrize('timeout, n', [(600, 3), (0, 0)])
def test_0_switches_it_off(timeout, n, job):
    run = job(3, 'threads', timeout)
    assert run.wait(600) == 0, run.output()
    assert sum('watchdog' in line for line in run.lines) == n, run.output()


def test_a_job_ends_at_once_with_the_default_limit(job):
    """Nothing waits for the next heartbeat, which may be seconds away."""
    start = time.monotonic()
    run = job(2, 'nothing', 600)
    assert run.wait(600) == 0, run.output()
    # Most of the time is that of the imports.
    assert time.monotonic() - start < 300
    assert watchdog_threads.interval_of(600) == 10


@pytest.fixture
def pair():
    """Two connections with each other."""
    with network.listen() as listener:
        a = socket.create_connection(('127.0.0.1', listener.getsockname()[1]))
        b, _ = listener.accept()
    connections = network.Connection(a), network.Connection(b)
    yield connections
    for connection in connections:
        connection.close()


def received(connection, n):
    messages = []
    deadline = time.monotonic() + 60
    while len(messages) < n and time.monotonic() < deadline:
        messages += connection.receive()
        time.sleep(0.005)
    return messages


def test_messages_arrive_whole_and_in_order(pair):
    a, b = pair
    for i in range(3):
        a.send({'beat': [i, 'phase', '', True]})
    assert received(b, 3) == [{'beat': [i, 'phase', '', True]} for i in range(3)]
    # In pieces
    a.socket.send(b'{"beat": ')
    time.sleep(0.1)
    assert b.receive() == []
    a.socket.send(b'[1]}\n{"goodbye": true}\n')
    assert received(b, 2) == [{'beat': [1]}, {'goodbye': True}]


def test_a_rank_that_does_not_read_blocks_nobody(pair):
    """A frozen rank: what it does not take is dropped, and what arrives later is whole."""
    a, b = pair
    big = {'text': 'x' * 5000}
    for _ in range(3000):
        a.send(big)
    messages = []
    while more := b.receive():
        messages += more
    # First the rest of the message that was sent in part.
    a.send({'last': False})
    a.send({'last': True})
    messages += received(b, 2)
    assert messages[-1] == {'last': True}
    assert messages[:-1] == [big] * (len(messages) - 1)
    assert 1 < len(messages) < 3000


def test_what_was_sent_before_the_end_of_a_connection_arrives(pair):
    a, b = pair
    a.send({'end': []})
    a.close()
    assert received(b, 1) == [{'end': []}]
    with pytest.raises(OSError):
        while True:
            b.receive()


@pytest.mark.parametrize('data', [b'GET / HTTP/1.1\r\n\r\n', b'[1]\n', b'x' * 100_000, b'\xff\n'])
def test_what_is_not_from_a_rank_is_refused(data, pair):
    a, b = pair
    a.socket.send(data)
    with pytest.raises(OSError):
        received(b, 1)
        a.close()
        while True:
            b.receive()


ME = {'rank': 0, 'node': 'here', 'where': 'here', 'pid': 0, 'start': ''}


@pytest.fixture
def ranks():
    """The first rank, and others that the test adds. They wait for each other at the end."""
    watchers = [watchdog_threads.FirstRank(ME, 600, 2)]
    yield watchers
    threads = [threading.Thread(target=watcher.close) for watcher in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not any(watcher._thread.is_alive() for watcher in watchers)


@pytest.fixture
def first_rank(ranks):
    return ranks[0]


def other_rank(ranks, **changes):
    invitation = {**ranks[0].invitation, **changes}
    ranks.append(watchdog_threads.OtherRank({**ME, 'rank': 1}, 600, invitation))
    return ranks[-1]


def test_a_rank_of_another_job_is_refused(ranks, first_rank):
    stranger = other_rank(ranks, token='guessed')
    assert not stranger.connected
    assert list(first_rank._ranks) == [0] and list(first_rank._monitor.nodes) == [0]


def test_a_rank_finds_the_first_one_by_any_of_its_addresses(ranks):
    with network.listen() as silent:
        # Nobody answers there.
        silent.getsockname()
        rank = other_rank(ranks, hosts=['no-such-host.invalid', '127.0.0.1'])
        assert rank.connected
        rank.start()
    assert all(not network._is_local(a) for a in network.addresses())


def test_a_rank_whose_connection_is_cut_connects_again(ranks, first_rank, monkeypatch):
    monkeypatch.setattr(watchdog_threads, 'interval_of', lambda timeout: 0.05)
    rank = other_rank(ranks)
    rank.start()
    before = first_rank._connections[1]
    before.socket.shutdown(socket.SHUT_RDWR)
    deadline = time.monotonic() + 60
    while first_rank._connections.get(1) in (before, None) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert first_rank._connections[1] is not before
    assert first_rank._monitor.problem(time.monotonic()) is None


def test_a_rank_whose_connection_is_cut_at_the_end_is_not_waited_for(ranks, first_rank):
    rank = other_rank(ranks)
    rank.start()
    closing = threading.Thread(target=first_rank.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    first_rank._connections[1].socket.shutdown(socket.SHUT_RDWR)
    closing.join(60)
    assert not closing.is_alive()


def test_an_error_of_the_watchdog_is_no_error_of_the_job(ranks, first_rank, capfd, monkeypatch):
    rank = other_rank(ranks)
    monkeypatch.setattr(rank, '_beat', lambda now: 1 / 0)
    rank.start()
    rank._thread.join(60)
    assert 'warning: the watchdog of rank 1 has ended: ZeroDivisionError' in capfd.readouterr().err
    deadline = time.monotonic() + 60
    while 1 in first_rank._monitor.nodes and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 1 not in first_rank._monitor.nodes


def test_many_ranks_are_watched(monkeypatch):
    """Each connection of 512 ranks costs the first one little."""
    monkeypatch.setattr(watchdog_threads, 'interval_of', lambda timeout: 0.5)
    watcher = watchdog_threads.FirstRank(ME, 600, 512)
    port, token = watcher.invitation['port'], watcher.invitation['token']
    connections = []
    try:
        for rank in range(1, 512):
            hello = {**ME, 'rank': rank, 'token': token}
            connections.append(network.connect(['127.0.0.1'], port, hello))
        assert all(connections)
        for connection in connections:
            connection.send({'beat': [1, 'iteration 1', '', True]})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            counts = [beat.count for rank, beat in watcher._monitor._last.items() if rank]
            if counts == [1] * 511:
                break
            time.sleep(0.05)
        assert counts == [1] * 511
        assert any('beat' in message for message in received(connections[-1], 1))
    finally:
        for connection in connections:
            connection.close()
        watcher.close()


def test_the_killer_takes_only_the_process_that_it_was_told():
    """Process ids are used again."""
    import subprocess

    def sleeper():
        return subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])

    stopped, other = sleeper(), sleeper()
    os.kill(stopped.pid, signal.SIGSTOP)
    processes = [
        {'pid': stopped.pid, 'start': network.start_time(stopped.pid)},
        {'pid': other.pid, 'start': '1'},
        {'pid': 1 << 30, 'start': '1'},
    ]
    arguments = [text for p in processes for text in (str(p['pid']), p['start'])]
    code = watchdog_threads._KILL.format(seconds=0)
    done = subprocess.run([sys.executable, '-I', '-S', '-c', code, *arguments], check=True)
    assert done.returncode == 0 and stopped.wait(60) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()


def test_what_a_process_says_about_itself():
    """Progress that is reported, and computing in any thread but the watchdog's own."""
    watcher = watchdog_threads.FirstRank(ME, 600, 1)
    watcher.close()
    beats = []

    def beat(seconds):
        # In a thread, as the watchdog's.
        def run():
            watcher.heartbeat()
            time.sleep(seconds)
            beats.append(watcher.heartbeat())

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    beat(0.5).join()
    thread = beat(0.5)
    while thread.is_alive():
        sum(range(1000))
    assert [b.active for b in beats] == [False, True]
    json.dumps({'beat': beats[0]})
