"""The connections of the watchdog, and its threads in one process."""

import json
import os
import signal
import socket
import sys
import threading
import time

import pfdet.compat  # noqa: F401

import pytest

from pfdet.training import watchdog_network as network
from pfdet.training import watchdog_threads


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
