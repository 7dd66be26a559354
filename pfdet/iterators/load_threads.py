"""Threads that load images, of which none can die or stall unnoticed."""

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

# Between looks at whether the threads still live.
_SECONDS = 1.0


class LoadThreads:
    """Call a function in threads, in the order of asking.

    An executor of the standard library would leave a caller waiting for ever for a thread that
    died with its work half done, and keep the process alive for a thread that is stuck.

    Args:
        load (callable): What to call. Decoding and resizing release Python's lock, so threads do.
        n_thread (int): How many.
        timeout (float): Seconds to wait for a result.
    """

    def __init__(self, load: Callable, n_thread: int, timeout: float):
        self._load = load
        self._timeout = timeout
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        # Daemons: a thread that hangs in a read must not keep a failed process from ending.
        self._threads = [
            threading.Thread(target=self._work, name=f'load_{i}', daemon=True)
            for i in range(n_thread)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, *args: Any) -> Future:
        """Ask for ``load(*args)``."""
        future: Future = Future()
        self._queue.put((future, args))
        return future

    def result(self, future: Future, what: str) -> Any:
        """Wait for a result.

        Args:
            future (Future): Of :meth:`submit`.
            what (str): For messages.

        Raises:
            RuntimeError: A thread has died, or the result has not come in time.
            Exception: What ``load`` raised.
        """
        waited = 0.0
        while not concurrent.futures.wait([future], _SECONDS).done:
            waited += _SECONDS
            dead = [thread.name for thread in self._threads if not thread.is_alive()]
            if dead:
                raise RuntimeError(
                    f'{what}: thread {", ".join(dead)}, which loads images, has died'
                )
            if waited >= self._timeout:
                raise RuntimeError(
                    f'{what}: not loaded within {self._timeout:g} seconds; is its '
                    'file system stuck?'
                )
        return future.result()

    def stop(self) -> None:
        """End the threads after what they are at; what has not begun is not done."""
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(_SECONDS)

    def _work(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                return
            future, args = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._load(*args))
            except Exception as e:
                future.set_exception(e)
            except BaseException as e:
                # Such as SystemExit, which in the main thread would end the run as if all was well.
                error = RuntimeError(f'loading ended by {type(e).__name__}: {e}')
                error.__cause__ = e
                future.set_exception(error)
            # Not kept until the next image comes.
            del work, future, args
