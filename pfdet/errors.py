"""The exception for bad input, and how commands report it."""

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

from pfdet import interruption, progress, shared_memory
from pfdet.printable import printable
from pfdet.process_stat import stat_fields

# Time for the launcher to forward the last output of a rank.
_SECONDS_TO_PASS_ON = 1.0
# An error on all ranks is reported once: the first rank reports at once, the others only after the
# time in which the first one would have ended them.
_SECONDS_FIRST = 1.5
_SECONDS_OTHERS = 3.0
# Longest time that MPI may take to end after all ranks have failed.
_SECONDS_TO_FINALIZE = 10.0
# Longest time that the launcher may take to end this rank.
_SECONDS_TO_ABORT = 10.0
# Environment variables with the rank: MPICH's and Slurm's PMI, PMIx, Open MPI.
_LAUNCHED = 'PMI_RANK', 'PMIX_RANK', 'OMPI_COMM_WORLD_RANK'
# Of messages between ranks that have failed; no other code sends messages with a tag like it.
_TAG = 32_749


class InputError(Exception):
    """Input that pfdet cannot use.

    The message is one line. It names the file and the line or image, says what is wrong and what
    was expected. Commands print it without a traceback and exit with status 2.
    """


class NotFiniteError(ArithmeticError):
    """The network's output for an image has a NaN or an infinity.

    Args:
        what (str): The output, such as ``'scores'``.
        image (int): Position of the image in the batch.
    """

    def __init__(self, what: str, image: int):
        super().__init__(f'the {what} of image {image} of the batch are not finite')
        self.what = what
        self.image = image


def run_command(main: Callable[[], int | None]) -> None:
    """Run ``main`` as a command line program and exit.

    An :class:`InputError`, or a system error of a file, becomes one line on standard error and exit
    status 2. A signal that asks the command to end (:mod:`pfdet.interruption`) becomes one line and
    the status 128 plus the signal, 130 for Ctrl-C. Under MPI both end all ranks of the job, which
    would otherwise wait forever for this one. Any other exception ends them, too (see
    :func:`end_all_ranks_on_exception`). If the reader of standard output has closed it, such as
    ``head``, the command ends without a message and with status 141, as programs do that are ended
    by SIGPIPE.

    Args:
        main (callable): Takes no argument; returns the exit status, or :obj:`None` for 0.
    """
    interruption.listen()
    end_all_ranks_on_exception()
    try:
        status = _status_of(main)
        sys.stdout.flush()
    except BaseException as e:
        status, line = _outcome(e)
        if status is None:
            raise
        end_all_ranks(status, lambda: _print_error(line))
    sys.exit(status)


def _status_of(main: Callable[[], int | None]) -> int | str | None:
    try:
        return main() or 0
    except SystemExit as e:
        # Such as that of argparse after --help, which ignores errors of writing.
        if _output_is_closed():
            raise BrokenPipeError from e
        sys.stdout.flush()
        return e.code


def _outcome(error: BaseException) -> tuple[int | None, str]:
    """The exit status and the line of an error; the status is None for one with a traceback."""
    # An exception that replaced Interrupted on its way means the same.
    number = getattr(error, 'number', signal.SIGINT)
    number = interruption.raised() or (isinstance(error, KeyboardInterrupt) and number)
    if number:
        return interruption.status(number), interruption.describe(number)
    if isinstance(error, InputError):
        return 2, f'error: {printable(" ".join(str(error).split()))}'
    if isinstance(error, BrokenPipeError) and _drop_output_if_closed():
        return interruption.status(signal.SIGPIPE), ''
    line = _of_a_file(error)
    return (2, f'error: {printable(line)}') if line else (None, '')


def _of_a_file(error: BaseException) -> str:
    """The line of an error that the system reports for a file; empty for other errors.

    Most are caught where the purpose of the file is known. This is for all others: a directory that
    is read-only, or was removed meanwhile, a full disk.
    """
    if not isinstance(error, OSError) or error.strerror is None:
        return ''
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if _is_path(name)]
    if not names and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        return ''
    return ': '.join([*([' -> '.join(names)] if names else []), error.strerror])


def _is_path(name: object) -> bool:
    return isinstance(name, (str, bytes, os.PathLike))


def _print_error(line: str) -> None:
    # The terminal may be gone after SIGHUP.
    with contextlib.suppress(OSError):
        if line:
            print(line, file=sys.stderr, flush=True)


def _output_is_closed() -> bool:
    """Whether standard output is a pipe without a reader."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


def _drop_output_if_closed() -> bool:
    """Drop what standard output still holds if nobody reads it; return whether that is so."""
    closed = _output_is_closed()
    if closed:
        # Otherwise the interpreter fails to flush it at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return closed


def end_all_ranks_on_exception() -> None:
    """From now on, an exception that ends this MPI rank also ends all others.

    They would otherwise wait for it forever. The traceback is printed first. If all ranks fail, it
    is the first rank's.
    """

    def hook(kind, exception, traceback) -> None:
        status, line = _outcome(exception)
        if status is None:
            end_all_ranks(1, lambda: sys.__excepthook__(kind, exception, traceback))
        else:
            end_all_ranks(status, lambda: _print_error(line))
            # The interpreter would exit with status 1.
            world = _world()
            if world is not None:
                sys.modules['mpi4py.MPI'].Finalize()
            os._exit(status)

    sys.excepthook = hook


def end_all_ranks(status: int, report: Callable[[], None]) -> None:
    """Report an error of this rank, and end all others.

    If all ranks have failed, only the first one reports. If MPI has started, the function then
    returns, and MPI ends in order when the interpreter exits. Otherwise the job is aborted. A
    single process only reports.

    Args:
        status (int): Exit status of the job.
        report (callable): Prints the error. Takes no argument.
    """
    world = None
    if 'mpi4py.MPI' in sys.modules or launcher_socket() is None:
        world = _world()
        rank, size = (0, 1) if world is None else (world.rank, world.size)
    else:
        # Not by starting MPI: another rank may be far from doing so.
        rank, size = (int(os.environ.get(name, 0)) for name in ('PMI_RANK', 'PMI_SIZE'))
    if rank == 0:
        report()
    _flush()
    if size <= 1:
        if _is_launched() and launcher_socket() is None and 'mpi4py.MPI' not in sys.modules:
            # The import of MPI was interrupted. Other ranks may wait for this one in it.
            abort_job(status)
        return
    if world is None:
        # The first rank ends the job within this time if it has failed, too.
        time.sleep(0 if rank == 0 else _SECONDS_OTHERS)
    elif _all_have_failed(world):
        # Should MPI not end after all, nothing is lost by ending without it.
        timer = threading.Timer(_SECONDS_TO_FINALIZE, os._exit, (status,))
        timer.daemon = True
        timer.start()
        return
    if rank > 0:
        report()
    _flush()
    # MPICH's launcher drops output that it has not yet forwarded when the job is aborted.
    time.sleep(_SECONDS_TO_PASS_ON)
    abort_job(status)


def abort_job(status: int) -> None:
    """End this rank at once, so that the launcher ends all others. Does not return.

    Args:
        status (int): Exit status of the job.
    """
    shared_memory.remove_own()
    # MPI may wait for what another thread holds.
    timer = threading.Timer(_SECONDS_TO_ABORT, os._exit, (status,))
    timer.daemon = True
    timer.start()
    _ask_launcher_to_abort(status)
    mpi = sys.modules.get('mpi4py.MPI')
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.COMM_WORLD.Abort(status)
    os._exit(status)


def _ask_launcher_to_abort(status: int) -> None:
    """Have MPICH's launcher kill all ranks, also stopped ones; return if there is another launcher.

    MPI_Abort sends the same message, but prints a line of its own first, must not be called while
    another thread is in MPI, and needs MPI to have started.
    """
    connection = launcher_socket()
    if connection is not None:
        with contextlib.suppress(OSError):
            # The command of version 1 of PMI, the protocol of this connection.
            os.write(connection, f'cmd=abort exitcode={status}\n'.encode())
            time.sleep(_SECONDS_TO_ABORT / 2)


def launcher_socket() -> int | None:
    """The connection of this rank with MPICH's launcher, which takes the command to end the job.

    Returns:
        int: The number of the open file; :obj:`None` under another launcher or none, and in a
        process that a rank has started: it inherits the number, but not the file.
    """
    number = os.environ.get('PMI_FD', '')
    if 'HYDI_CONTROL_FD' not in os.environ or not number.isdecimal():
        return None
    try:
        with socket.socket(fileno=os.dup(int(number))) as connection:
            credentials = connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize('3i')
            )
    except (OSError, AttributeError):
        return None
    # The process that has made the connection: the launcher's, on this node.
    return int(number) if struct.unpack('3i', credentials)[0] in _ancestors() else None


def _ancestors() -> set[int]:
    found: set[int] = set()
    pid = os.getppid()
    while pid > 0 and pid not in found:
        found.add(pid)
        fields = stat_fields(pid)
        pid = int(fields[1]) if fields else 0
    return found


def _flush() -> None:
    for stream in sys.stdout, sys.stderr:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _all_have_failed(world) -> bool:
    """Whether all ranks call this within a short time.

    Messages with a tag of their own are exchanged with the first rank. They cannot be mistaken for
    part of a collective operation in which other ranks wait for this one.
    """
    empty = bytearray(1)
    if world.rank == 0:
        others = range(1, world.size)
        failed = [world.Irecv(bytearray(1), rank, _TAG) for rank in others]
        if not _completed(failed, _SECONDS_FIRST):
            return False
        replies = [world.Isend(empty, rank, _TAG) for rank in others]
        return _completed(replies, _SECONDS_FIRST)
    sent = world.Isend(empty, 0, _TAG)
    return _completed([sent, world.Irecv(bytearray(1), 0, _TAG)], _SECONDS_OTHERS)


def _completed(requests: list, seconds: float) -> bool:
    from mpi4py import MPI

    deadline = time.monotonic() + seconds
    while not MPI.Request.Testall(requests):
        if time.monotonic() > deadline:
            return False
        progress.report()
        time.sleep(0.01)
    return True


def _is_launched() -> bool:
    return any(name in os.environ for name in _LAUNCHED)


def _world():
    """The communicator of all ranks, or :obj:`None` for a single process."""
    # Importing mpi4py starts MPI. A program that never imported it has no other ranks to end,
    # unless it was launched with some: these may wait for this one in order to start.
    if _is_launched():
        with contextlib.suppress(Exception):
            import mpi4py.MPI  # noqa: F401
    mpi = sys.modules.get('mpi4py.MPI')
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return None
    if mpi.COMM_WORLD.size == 1:
        return None
    return mpi.COMM_WORLD
