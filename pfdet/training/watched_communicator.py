"""An MPI communicator whose calls tell the watchdog that this rank waits for others."""

from mpi4py import MPI

from pfdet import progress

# All calls that may wait for other ranks, in both spellings: objects and buffers.
_CALLS = (
    'allgather allgatherv allreduce alltoall alltoallv barrier bcast gather gatherv recv reduce '
    'reduce_scatter reduce_scatter_block scan scatter scatterv send sendrecv split'
).split()


class WatchedComm(MPI.Intracomm):
    """A communicator that marks the time in which this rank waits, see :mod:`pfdet.progress`.

    ``WatchedComm(MPI.COMM_WORLD)`` is the same communicator as ``MPI.COMM_WORLD``, with the same
    methods. Communicators that are split off it are watched, too.
    """


for _call in _CALLS:
    for _name in _call, _call.capitalize():
        if hasattr(MPI.Intracomm, _name):
            setattr(WatchedComm, _name, progress.watched(getattr(MPI.Intracomm, _name), _name))
