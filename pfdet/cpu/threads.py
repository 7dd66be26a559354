"""Work of the CPU functions shared out to threads.

NumPy's matrix products use several cores, its copies and element-wise functions one. Here an array
is cut into pieces and each thread does all of the work of a piece, so that every step of it runs
in parallel. Within, the matrix products are told to keep to their thread.

The number of threads is that of the matrix products' own: ``OMP_NUM_THREADS``, or the cores that
this process may use. MPI ranks that share cores must set it, as for any program.
"""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


@functools.lru_cache(maxsize=1)
def n_thread() -> int:
    """Threads that work at the same time."""
    for name in 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS':
        value = os.environ.get(name, '')
        if value.isdigit() and int(value) > 0:
            return int(value)
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def for_each(work: Callable[[Any], None], pieces: Iterable) -> None:
    """Call ``work`` with each piece, in threads if there is more than one of either.

    Args:
        work (callable): It must be safe to call for different pieces at the same time.
        pieces (iterable): Its arguments.
    """
    pieces = list(pieces)
    if n_thread() == 1 or len(pieces) <= 1:
        for piece in pieces:
            work(piece)
        return
    with _one_thread_a_product():
        # list() raises what a piece has raised
        list(_pool(os.getpid()).map(work, pieces))


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    # By process: threads do not survive a fork.
    return ThreadPoolExecutor(n_thread(), 'cpu')


def _one_thread_a_product():
    return _controller(os.getpid()).limit(limits=1, user_api='blas')


@functools.lru_cache(maxsize=1)
def _controller(process: int):
    # Looking for the libraries takes milliseconds, so once.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
