"""The one exception for bad input, and the one way commands report it."""

import contextlib
import os
import sys
import time
from collections.abc import Callable

# What a launcher has to pass on the last words of a rank.
_SECONDS_TO_PASS_ON = 1.0
# What is wrong on all ranks needs saying once: the first rank speaks at once, and the others only
# after the time in which it would have ended them.
_SECONDS_FIRST = 2.0
# Where launchers tell a process its rank: MPICH and Slurm's PMI, PMIx, Open MPI.
_LAUNCHED = 'PMI_RANK', 'PMIX_RANK', 'OMPI_COMM_WORLD_RANK'


class InputError(Exception):
    """Input that pfdet cannot use.

    The message is one line that names the file, and the line or image in it,
    says what is wrong, and what was expected. Commands print it without a
    traceback and exit with status 2.
    """


def run_command(main: Callable[[], int | None]) -> None:
    """Run ``main`` as a command line program and exit.

    An :class:`InputError` becomes one line on standard error and exit status 2. Under MPI,
    every rank of the job is ended, since the others would wait for this one for ever; so they are
    by any other exception (see :func:`end_all_ranks_on_exception`).

    Args:
        main (callable): Takes nothing; returns the exit status, or :obj:`None` for 0.
    """
    end_all_ranks_on_exception()
    try:
        status = main() or 0
    except InputError as e:
        _let_first_rank_speak()
        message = ' '.join(str(e).split())
        print(f'error: {message}', file=sys.stderr, flush=True)
        _abort_other_ranks(2)
        status = 2
    sys.exit(status)


def end_all_ranks_on_exception() -> None:
    """From now on, an exception that ends this MPI rank ends the others, too.

    They would wait for it for ever. Its traceback is printed first; where all ranks fail, it is
    the first rank's.
    """

    def hook(kind, exception, traceback) -> None:
        _let_first_rank_speak()
        sys.__excepthook__(kind, exception, traceback)
        _abort_other_ranks(1)

    sys.excepthook = hook


def _let_first_rank_speak() -> None:
    world = _world()
    if world is not None and world.rank > 0:
        time.sleep(_SECONDS_FIRST)


def _abort_other_ranks(status: int) -> None:
    world = _world()
    if world is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        # MPICH's launcher drops what it has not passed on when the job is aborted.
        time.sleep(_SECONDS_TO_PASS_ON)
        world.Abort(status)


def _world():
    """All ranks, or :obj:`None` where there is one."""
    # mpi4py starts MPI when imported: a program that never did has no other ranks to end, unless
    # it was launched with some. They may wait for this one in order to start.
    if any(name in os.environ for name in _LAUNCHED):
        with contextlib.suppress(Exception):
            import mpi4py.MPI  # noqa: F401
    mpi = sys.modules.get('mpi4py.MPI')
    if mpi is None or not mpi.Is_initialized() or mpi.COMM_WORLD.size == 1:
        return None
    return mpi.COMM_WORLD
