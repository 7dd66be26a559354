"""Environment settings for more ranks than cores, such as a dry run with hundreds of ranks.

By default, NumPy, MPICH and UCX assume that each process has its own cores: they start several
threads, poll while waiting, and allocate megabytes per connection. They read these settings when
they are loaded.
"""

import contextlib
import os
from collections.abc import MutableMapping

from pfdet.cores import n_core

# Waiting ranks yield their core and sleep. The queues between ranks of a node are small.
SETTINGS = {
    'MPIR_CVAR_ENABLE_HEAVY_YIELD': '1',
    'MPIR_CVAR_POLLS_BEFORE_YIELD': '1',
    'MPIR_CVAR_CH4_SHM_POSIX_IQUEUE_NUM_CELLS': '8',
    'MPIR_CVAR_CH4_SHM_POSIX_IQUEUE_CELL_SIZE': '8192',
    'OMP_NUM_THREADS': '1',
    'OPENBLAS_NUM_THREADS': '1',
    'MKL_NUM_THREADS': '1',
}
# If all ranks are on one node, UCX does not need InfiniBand and TCP, for which it connects every
# pair of ranks. Without them, 128 ranks start in 10 s instead of 40 s.
ONE_NODE = {'UCX_TLS': 'posix,self'}
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_ARENA_MAX = -1, -8


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Apply the settings if MPICH's launcher started more ranks on this node than it has cores.

    Call this before importing NumPy and ``mpi4py.MPI``. Variables that are already set are kept.

    Args:
        environment (mapping): Environment variables to read and set.
    """
    try:
        n_local, n_rank = (int(environment[name]) for name in ('MPI_LOCALNRANKS', 'PMI_SIZE'))
    except (KeyError, ValueError):
        return
    if n_local <= n_core():
        return
    for name, value in {**SETTINGS, **(ONE_NODE if n_local == n_rank else {})}.items():
        environment.setdefault(name, value)
    _keep_no_freed_memory()


def _keep_no_freed_memory() -> None:
    """Make glibc return freed arrays to the system at once, and share one heap between threads."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for parameter, value in (_M_ARENA_MAX, 1), (_M_TRIM_THRESHOLD, 1 << 16):
            libc.mallopt(parameter, value)
