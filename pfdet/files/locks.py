"""Locks that end with their process, so that two commands do not write the same output.

A lock is that of :func:`flock` on a file. The system releases it when the process ends, however it
ends. Linux turns it into a lock of the server on NFS, so that it also holds between nodes; NFS
version 4 releases the lock of a crashed node after the lease time of the server, 90 s by default.
Lustre has locks between nodes if it is mounted with ``-o flock``. On a file system without locks,
commands run without them, and say so.
"""

import contextlib
import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.files.reading import printable, reason
from pfdet.files.regular import regular_file

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_MAX_OWNER = 300
_SECONDS_BETWEEN_TRIES = 0.05
# Locks held by this process. A child that shares the open file would prolong the lock.
_held: set[int] = set()


def _close_in_child() -> None:
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def output_lock(out: str | os.PathLike, is_directory: bool = False) -> Iterator[None]:
    """Hold the lock of an output, so that no other process writes it at the same time.

    Args:
        out (path): The output. Missing directories are created. The lock is the file ``.lock`` in
            an output directory, or ``.NAME.lock`` beside an output file. It is removed at the end.
        is_directory (bool): Whether the output is a directory.

    Raises:
        InputError: Another process holds the lock, or the lock cannot be created. The first message
            has the process id and the host. Also if ``out`` has no name, such as ``.``.
    """
    out = Path(out)
    if not is_directory and not out.name:
        raise InputError(f'{out}: a directory; expected the path of a file to write')
    path = out / '.lock' if is_directory else out.with_name(f'.{out.name}.lock')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _take(path)
    except BlockingIOError:
        raise InputError(
            f'{out}: in use by {_owner(path)}, which writes there; wait for its end, or give '
            'another --out'
        ) from None
    except FileExistsError as e:
        raise InputError(f'{out}: cannot be written: {path.parent} is not a directory') from e
    except OSError as e:
        raise InputError(f'{out}: cannot be written: {reason(e)}') from e
    if handle is None:
        print(
            f'note: {path.parent} is on a file system without locks; start no other command that '
            f'writes {out}',
            file=sys.stderr,
            flush=True,
        )
        yield
        return
    process = os.getpid()
    try:
        yield
    finally:
        # A child that was forked inside the block does not own the lock.
        if os.getpid() == process:
            # Removed before it is released: whoever opened it before sees that it is gone.
            with contextlib.suppress(OSError):
                os.unlink(path)
            _held.discard(handle)
            os.close(handle)


@contextlib.contextmanager
def output_lock_of_ranks(
    out: str | os.PathLike, comm: Any, is_directory: bool = False
) -> Iterator[None]:
    """Hold the lock of an output on the first rank; all ranks must call this.

    Args:
        out (path), is_directory (bool): See :func:`output_lock`.
        comm (ChainerMN communicator): The ranks.

    Raises:
        InputError: On all ranks, if the first one does not get the lock.
    """
    with contextlib.ExitStack() as stack:
        error = None
        if comm.rank == 0:
            try:
                stack.enter_context(output_lock(out, is_directory))
            except InputError as e:
                error = e
        error = comm.mpi_comm.bcast(error)
        if error is not None:
            raise error
        yield


def wait_for_lock(handle: int, seconds: float) -> bool:
    """Wait for the lock of an open file.

    Args:
        handle (int): Its descriptor. Closing the file releases the lock.
        seconds (float): How long to wait.

    Returns:
        bool: Whether this process has the lock now. It may not, too, because the file system has no
        locks.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(_SECONDS_BETWEEN_TRIES)
        except OSError:
            return False


def _take(path: Path) -> int | None:
    """Lock a file; :obj:`None` if its file system has no locks.

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: The file cannot be created.
    """
    while True:
        # O_NONBLOCK: a named pipe in its place is an error at once.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError as e:
                if e.errno not in _UNSUPPORTED:
                    raise
                os.close(handle)
                return None
            if _is_at(path, handle):
                owner = f'process {os.getpid()} on {os.uname().nodename}\n'
                os.ftruncate(handle, 0)
                os.pwrite(handle, owner.encode(), 0)
                _held.add(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        # The process that held the lock removed the file meanwhile.
        os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    """The process that holds a lock, as it wrote itself."""
    try:
        with open(path, 'rb', buffering=0, opener=regular_file) as file:
            text = file.read(_MAX_OWNER).decode('utf-8', 'replace').strip()
    except OSError:
        text = ''
    # It is empty for a moment after the lock was taken.
    return printable(text) if text else 'another process'
