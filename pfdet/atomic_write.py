"""Writing files so that a reader never sees half of one."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pfdet.errors import InputError

# What only writing raises: the disk is full, or the user's share of it, or a limit is reached.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def replace_when_done(path: str | os.PathLike, sync: bool = False) -> Iterator[Path]:
    """Write a file beside ``path`` and rename it into place at the end.

    If the block raises, ``path`` is left as it was and the unfinished file is removed.

    Args:
        path (path): Where the finished file goes. Missing parent directories are made.
        sync (bool): Wait until the file is on the disk, before it takes the place of the old one:
            then there is one whole file after a power failure, too.

    Yields:
        pathlib.Path: The path to write to, in the same directory and with the same suffix.

    Raises:
        InputError: The directory cannot be written to, or has no room.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f'.{path.stem}-', suffix=path.suffix, dir=path.parent
        )
    except OSError as e:
        raise _cannot_be_written(path, e) from e
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        # mkstemp's files are private; a finished file gets what the user's umask allows.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(unfinished, 0o666 & ~umask)
        if sync:
            _sync(unfinished)
        os.replace(unfinished, path)
        if sync:
            _sync(path.parent)
    except OSError as e:
        if _is_no_room(e):
            raise _cannot_be_written(path, e) from e
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(directory: str | os.PathLike, *names: str) -> None:
    """Remove what :func:`replace_when_done` left behind where its process was killed.

    Call it only where no other process may be writing the same files.

    Args:
        directory (path): Where to look; it need not exist.
        names (str): Of the finished files, such as ``'log'`` or ``'iter_*.npz'``.
    """
    for name in map(Path, names):
        # mkstemp puts eight characters in.
        for path in Path(directory).glob(f'.{name.stem}-????????{name.suffix}'):
            path.unlink(missing_ok=True)


def _is_no_room(error: OSError) -> bool:
    # NumPy's short write has no number: '1000 requested and 512 written'.
    return error.errno in _NO_ROOM or (error.errno is None and str(error).endswith(' written'))


def _cannot_be_written(path: Path, error: OSError) -> InputError:
    return InputError(f'{path}: cannot be written: {error.strerror or "no room"}')


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
