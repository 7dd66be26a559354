"""Threads that load images, with detection of dead and stuck threads."""

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

# Interval between checks for dead threads.
_SECONDS = 1.0


class LoadThreads:
    """Call a function in threads, in the order of submission.

    With an executor of the standard library, a caller would wait forever for a thread that died,
    and a stuck thread would keep the process alive.

    Args:
        load (callable): Function to call. Threads are enough for images, because decoding and
            resizing release the GIL.
        n_thread (int): Number of threads.
        timeout (float): Seconds to wait for a result.
    """

    def __init__(self, load: Callable, n_thread: int, timeout: float):
        self._load = load
        self._timeout = timeout
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        # Daemon threads: a thread stuck in a read must not keep a failed process alive.
        self._threads = [
            threading.Thread(target=self._work, name=f'load_{i}', daemon=True)
            for i in range(n_thread)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, *args: Any) -> Future:
        """Schedule ``load(*args)`` and return its future."""
        future: Future = Future()
        self._queue.put((future, args))
        return future

    def result(self, future: Future, description: str) -> Any:
        """Wait for a result.

        Args:
            future (Future): A future returned by :meth:`submit`.
            description (str): Description of the result for error messages.

        Returns:
            The return value of ``load``.

        Raises:
            RuntimeError: A thread has died, or the timeout has expired.
            Exception: Any exception raised by ``load``.
        """
        waited = 0.0
        while not concurrent.futures.wait([future], _SECONDS).done:
            waited += _SECONDS
            dead = [thread.name for thread in self._threads if not thread.is_alive()]
            if dead:
                raise RuntimeError(
                    f'{description}: thread {", ".join(dead)}, which loads images, has died'
                )
            if waited >= self._timeout:
                raise RuntimeError(
                    f'{description}: not loaded within {self._timeout:g} seconds; is its '
                    'file system stuck?'
                )
        return future.result()

    def stop(self) -> None:
        """Drop calls that have not started, and stop the threads after their current ones."""
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
                # SystemExit, for example, would end the run with exit status 0 when raised in the
                # main thread.
                error = RuntimeError(f'loading ended by {type(e).__name__}: {e}')
                error.__cause__ = e
                future.set_exception(error)
            # Free the image before waiting for the next call.
            del work, future, args
