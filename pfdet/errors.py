"""The exception for bad input, and how commands report it."""

import contextlib
import os
import sys
import time
from collections.abc import Callable

from pfdet.printable import printable

# Time for the launcher to forward the last output of a rank.
_SECONDS_TO_PASS_ON = 1.0
# An error on all ranks is reported once: the first rank reports at once, the others only after the
# time in which the first one would have ended them.
_SECONDS_FIRST = 2.0
# Environment variables with the rank: MPICH's and Slurm's PMI, PMIx, Open MPI.
_LAUNCHED = 'PMI_RANK', 'PMIX_RANK', 'OMPI_COMM_WORLD_RANK'


class InputError(Exception):
    """Input that pfdet cannot use.

    The message is one line. It names the file and the line or image, says what is wrong and what
    was expected. Commands print it without a traceback and exit with status 2.
    """


def run_command(main: Callable[[], int | None]) -> None:
    """Run ``main`` as a command line program and exit.

    An :class:`InputError` becomes one line on standard error and exit status 2. Under MPI it ends
    all ranks of the job, which would otherwise wait forever for this one. Any other exception ends
    them, too (see :func:`end_all_ranks_on_exception`).

    Args:
        main (callable): Takes no argument; returns the exit status, or :obj:`None` for 0.
    """
    end_all_ranks_on_exception()
    try:
        status = main() or 0
    except InputError as e:
        _let_first_rank_report()
        message = printable(' '.join(str(e).split()))
        print(f'error: {message}', file=sys.stderr, flush=True)
        _abort_other_ranks(2)
        status = 2
    sys.exit(status)


def end_all_ranks_on_exception() -> None:
    """From now on, an exception that ends this MPI rank also ends all others.

    They would otherwise wait for it forever. The traceback is printed first. If all ranks fail, it
    is the first rank's.
    """

    def hook(kind, exception, traceback) -> None:
        _let_first_rank_report()
        sys.__excepthook__(kind, exception, traceback)
        _abort_other_ranks(1)

    sys.excepthook = hook


def _let_first_rank_report() -> None:
    world = _world()
    if world is not None and world.rank > 0:
        time.sleep(_SECONDS_FIRST)


def _abort_other_ranks(status: int) -> None:
    world = _world()
    if world is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        # MPICH's launcher drops output that it has not yet forwarded when the job is aborted.
        time.sleep(_SECONDS_TO_PASS_ON)
        world.Abort(status)


def _world():
    """The communicator of all ranks, or :obj:`None` for a single process."""
    # Importing mpi4py starts MPI. A program that never imported it has no other ranks to end,
    # unless it was launched with some: these may wait for this one in order to start.
    if any(name in os.environ for name in _LAUNCHED):
        with contextlib.suppress(Exception):
            import mpi4py.MPI  # noqa: F401
    mpi = sys.modules.get('mpi4py.MPI')
    if mpi is None or not mpi.Is_initialized() or mpi.COMM_WORLD.size == 1:
        return None
    return mpi.COMM_WORLD
