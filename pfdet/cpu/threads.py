"""Threads of the CPU functions.

NumPy's matrix products use several cores, but its copies and element-wise functions use one. Here
an array is split into pieces and each thread does all steps for its pieces, so that all steps run
in parallel. Matrix products within a thread are limited to one core.

The number of threads is that of NumPy's matrix products: ``OMP_NUM_THREADS``, or the number of
cores available to the process. MPI ranks that share cores must set it, as for any program.
"""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from pfdet.cores import n_core


@functools.lru_cache(maxsize=1)
def n_thread() -> int:
    """Return the number of threads."""
    for name in 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS':
        value = os.environ.get(name, '')
        if value.isdigit() and int(value) > 0:
            return int(value)
    return n_core()


def for_each(work: Callable[[Any], None], pieces: Iterable) -> None:
    """Call ``work`` for each piece, in threads if there are several pieces and threads.

    Args:
        work (callable): ``work(piece)``. Must be thread-safe for different pieces.
        pieces (iterable): Arguments of ``work``.

    Raises:
        Exception: Any exception raised by ``work``.
    """
    pieces = list(pieces)
    if n_thread() == 1 or len(pieces) <= 1:
        for piece in pieces:
            work(piece)
        return
    with _single_threaded_products():
        # Iterating over the results raises exceptions of the threads.
        list(_pool(os.getpid()).map(work, pieces))


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    # One pool per process, because threads do not survive a fork.
    return ThreadPoolExecutor(n_thread(), 'cpu')


def _single_threaded_products() -> AbstractContextManager:
    return _controller(os.getpid()).limit(limits=1, user_api='blas')


@functools.lru_cache(maxsize=1)
def _controller(process: int) -> Any:
    # Cached, because finding the libraries takes milliseconds.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
