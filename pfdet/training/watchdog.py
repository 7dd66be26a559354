"""The watchdog: a rank that has stopped is noticed, and the job ends.

A rank may freeze: it is stopped by a signal, its node fails, or its file system never answers. All
other ranks then wait for it in MPI forever, at full load, and even SIGTERM does not end them,
because they do not return to Python. So every rank has a thread that tells the first rank every few
seconds that it is alive, and what it is doing; the first rank tells all others the same. When a
rank has not been heard of for the time limit, or has made no progress
(:class:`~pfdet.training.watchdog_rules.Monitor`), one line names it, and all ranks exit. The
launcher then kills what is left, which SIGTERM would not end.

The threads use TCP connections of their own, not MPI: another thread is inside MPI, where most
libraries let in one thread at a time. They need no shared file system, no common clock and no
launcher's help. 512 ranks send the first one 50 short lines per second in all.

MPI itself starts before the connections exist; :mod:`pfdet.training.startup_guard` watches that.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

from pfdet import progress
from pfdet.training import watchdog_network as network
from pfdet.training.watchdog_threads import FirstRank, OtherRank

#: Default of ``--rank-timeout`` in seconds.
TIMEOUT = 600.0


@contextlib.contextmanager
def watch(comm, timeout: float = TIMEOUT) -> Iterator[None]:
    """Within the block, end the job if a rank stops; all ranks must call this.

    At the end of the block, all ranks wait for each other, and are watched until all have arrived.
    After an exception, which ends the job (:func:`pfdet.errors.end_all_ranks`), this rank is
    watched until the process ends.

    Args:
        comm (ChainerMN communicator): The ranks.
        timeout (float): Seconds after which a rank has stopped; 0 to watch none.
    """
    if timeout <= 0 or comm.size == 1:
        yield
        return
    watcher = _start(comm.mpi_comm, timeout)
    yield
    with progress.phase('end'):
        comm.mpi_comm.barrier()
        progress.watched(watcher.close, 'the end of the job')()


def _start(mpi_comm, timeout: float) -> FirstRank | OtherRank:
    """Connect all ranks with the first one."""
    me = {
        'rank': mpi_comm.rank,
        'node': network.node_name(),
        'where': network.node_identity(),
        'pid': os.getpid(),
        'start': network.start_time(os.getpid()),
    }
    watcher: FirstRank | OtherRank
    if mpi_comm.rank == 0:
        watcher = FirstRank(me, timeout, mpi_comm.size)
        mpi_comm.bcast(watcher.invitation)
    else:
        watcher = OtherRank(me, timeout, mpi_comm.bcast(None))
    connected = mpi_comm.allgather(watcher.connected)
    missing = [rank for rank, ok in enumerate(connected) if not ok]
    if missing and mpi_comm.rank == 0:
        more = f' and {len(missing) - 1} more ranks' if len(missing) > 1 else ''
        print(
            f'warning: rank {missing[0]}{more} cannot be reached from node {me["node"]} by TCP: '
            'if they freeze, the job does not end (--rank-timeout)',
            file=sys.stderr,
            flush=True,
        )
    watcher.start()
    return watcher
