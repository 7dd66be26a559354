"""The one exception for bad input, and the one way commands report it."""

import sys
import time
from collections.abc import Callable

# What a launcher has to pass on the last words of a rank.
_SECONDS_TO_PASS_ON = 1.0


class InputError(Exception):
    """Input that pfdet cannot use.

    The message is one line that names the file, and the line or image in it,
    says what is wrong, and what was expected. Commands print it without a
    traceback and exit with status 2.
    """


def run_command(main: Callable[[], int | None]) -> None:
    """Run ``main`` as a command line program and exit.

    An :class:`InputError` becomes one line on standard error and exit status 2. Under MPI,
    every rank of the job is ended, since the others would wait for this one for ever.

    Args:
        main (callable): Takes nothing; returns the exit status, or :obj:`None` for 0.
    """
    try:
        status = main() or 0
    except InputError as e:
        message = ' '.join(str(e).split())
        print(f'error: {message}', file=sys.stderr, flush=True)
        _abort_other_ranks(2)
        status = 2
    sys.exit(status)


def end_all_ranks_on_exception() -> None:
    """From now on, an exception that ends this MPI rank ends the others, too.

    They would wait for it for ever. Its traceback is printed first.
    """
    def hook(kind, exception, traceback) -> None:
        sys.__excepthook__(kind, exception, traceback)
        _abort_other_ranks(1)

    sys.excepthook = hook


def _abort_other_ranks(status: int) -> None:
    # mpi4py starts MPI when imported: a program that never did has no other ranks to end.
    mpi = sys.modules.get('mpi4py.MPI')
    if mpi is not None and mpi.Is_initialized() and mpi.COMM_WORLD.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        # MPICH's launcher drops what it has not passed on when the job is aborted.
        time.sleep(_SECONDS_TO_PASS_ON)
        mpi.COMM_WORLD.Abort(status)
