import subprocess
import sys
import textwrap
import threading

import pytest

from pfdet.iterators import load_threads
from pfdet.iterators.load_threads import LoadThreads
from pfdet.iterators.samplers import SequentialSampler
from pfdet.iterators.sharded import ShardedIterator


@pytest.fixture(autouse=True)
def short_interval(monkeypatch):
    monkeypatch.setattr(load_threads, '_SECONDS', 0.05)


def test_results_in_the_order_of_submission():
    threads = LoadThreads(lambda k: k * k, 3, 10)
    futures = [threads.submit(k) for k in range(50)]
    assert [threads.result(f, 'x') for f in futures] == [k * k for k in range(50)]
    threads.stop()


@pytest.mark.parametrize(
    'error, expected',
    [
        (OSError('disk'), OSError),
        (TimeoutError('network'), TimeoutError),
        (SystemExit(0), RuntimeError),
        (KeyboardInterrupt(), RuntimeError),
    ],
)
def test_errors_of_load_are_raised(error, expected):
    """No error ends the thread, and none ends the process silently."""

    def load(k):
        if k == 1:
            raise error
        return k

    threads = LoadThreads(load, 1, 10)
    futures = [threads.submit(k) for k in range(3)]
    assert threads.result(futures[0], 'x') == 0
    with pytest.raises(expected) as caught:
        threads.result(futures[1], 'x')
    assert type(error).__name__ in str(caught.value) or caught.value is error
    assert threads.result(futures[2], 'x') == 2
    threads.stop()


def test_a_dead_thread_is_an_error():
    threads = LoadThreads(lambda k: k, 1, 60)
    (thread,) = threads._threads
    threads._queue.put(None)
    thread.join(60)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match=r'image at position 5: thread load_0.*has died'):
        threads.result(threads.submit(1), 'image at position 5')
    threads.stop()


def test_a_timeout_is_an_error():
    release = threading.Event()
    iterator = ShardedIterator(
        SequentialSampler(10, 0), lambda *args: release.wait(), 2, timeout=0.3
    )
    with pytest.raises(RuntimeError, match='image at position 0: not loaded within 0.3 seconds'):
        next(iterator)
    # Neither call has waited for the image, which is released only now.
    iterator.finalize()
    release.set()


def test_a_stuck_thread_does_not_keep_the_process_alive():
    program = """
        import time
        from pfdet.iterators.load_threads import LoadThreads
        threads = LoadThreads(lambda: time.sleep(3600), 1, 0.5)
        threads.result(threads.submit(), 'image')
    """
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(program)],
        text=True,
        capture_output=True,
        timeout=600,
    )
    assert done.returncode == 1 and 'image: not loaded within 0.5 seconds' in done.stderr


def test_stop_drops_calls_that_have_not_started():
    started, release = [], threading.Event()

    def load(k):
        started.append(k)
        release.wait()

    threads = LoadThreads(load, 1, 10)
    for k in range(100):
        threads.submit(k)
    threads.stop()
    release.set()
    threads._threads[0].join(60)
    assert len(started) <= 1 and not threads._threads[0].is_alive()
