"""Settings for more ranks than cores, as in a dry run of hundreds on one machine.

What NumPy, MPICH and UCX do without is made for a process that has cores of its own: threads for
each, polling while it waits, megabytes ready for every way to its neighbours. They read the
settings when they are loaded.
"""

import contextlib
import os
from collections.abc import MutableMapping

# A rank that waits gives its core away, and sleeps; queues between the ranks of a node are small.
SETTINGS = {
    'MPIR_CVAR_ENABLE_HEAVY_YIELD': '1',
    'MPIR_CVAR_POLLS_BEFORE_YIELD': '1',
    'MPIR_CVAR_CH4_SHM_POSIX_IQUEUE_NUM_CELLS': '8',
    'MPIR_CVAR_CH4_SHM_POSIX_IQUEUE_CELL_SIZE': '8192',
    'OMP_NUM_THREADS': '1',
    'OPENBLAS_NUM_THREADS': '1',
    'MKL_NUM_THREADS': '1',
}
# Where no rank is on another node, UCX need not prepare for InfiniBand and for TCP, which connects
# every rank to every other: 128 ranks start in 10 s instead of 40.
ONE_NODE = {'UCX_TLS': 'posix,self'}
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_ARENA_MAX = -1, -8


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set them where MPICH's launcher has started more ranks on this node than it has cores.

    Call it before NumPy and ``mpi4py.MPI`` are imported. What the environment says already stays.

    Args:
        environment (mapping): Of this process.
    """
    try:
        here, all_ranks = (int(environment[name]) for name in ('MPI_LOCALNRANKS', 'PMI_SIZE'))
    except (KeyError, ValueError):
        return
    if here <= len(os.sched_getaffinity(0)):
        return
    for name, value in {**SETTINGS, **(ONE_NODE if here == all_ranks else {})}.items():
        environment.setdefault(name, value)
    _keep_no_freed_memory()


def _keep_no_freed_memory() -> None:
    """Have glibc give large arrays back to the system at once, and threads share one heap."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for parameter, value in (_M_ARENA_MAX, 1), (_M_TRIM_THRESHOLD, 1 << 16):
            libc.mallopt(parameter, value)
