"""The one exception for bad input, and the one way commands report it."""

import sys
from collections.abc import Callable


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


def _abort_other_ranks(status: int) -> None:
    # mpi4py starts MPI when imported: a program that never did has no other ranks to end.
    mpi = sys.modules.get('mpi4py.MPI')
    if mpi is not None and mpi.Is_initialized() and mpi.COMM_WORLD.size > 1:
        mpi.COMM_WORLD.Abort(status)
