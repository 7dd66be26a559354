"""Atomic writing of files: a reader never sees an incomplete file."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pfdet import interruption
from pfdet.errors import InputError

# Errors that only writing raises: disk full, quota exceeded, file size limit exceeded.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def replace_when_done(path: str | os.PathLike, sync: bool = False) -> Iterator[Path]:
    """Write to a temporary file and rename it to ``path`` at the end.

    If the block raises, ``path`` stays as it was and the temporary file is removed.

    Args:
        path (path): The file to write. Missing parent directories are created.
        sync (bool): Flush the file to the disk before the rename, so that a complete file also
            survives a power failure.

    Yields:
        pathlib.Path: The temporary file, in the same directory and with the same suffix.

    Raises:
        InputError: The directory cannot be written to or has been removed, ``path`` is a directory,
            or the disk is full.
    """
    path = Path(path)
    check_no_directory(path)
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
        with interruption.before_ending_at_once(partial(unfinished.unlink, missing_ok=True)):
            yield unfinished
        # mkstemp's files are private; the finished file gets the permissions of the user's umask.
        os.chmod(unfinished, 0o666 & ~_umask())
        if sync:
            _sync(unfinished)
        os.replace(unfinished, path)
        if sync:
            _sync(path.parent)
    except OSError as e:
        # Not an error of reading another file in the block.
        if _is_no_room(e) or unfinished.name in str(e):
            raise _cannot_be_written(path, e) from e
        raise
    finally:
        # The directory may have been removed, or replaced by a file.
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def directory_when_done(path: str | os.PathLike) -> Iterator[Path]:
    """Fill a temporary directory and rename it to ``path`` at the end.

    A directory that is there is replaced. If the block raises, it stays as it was, and the
    temporary directory is removed.

    Args:
        path (path): The directory to write. Missing parent directories are created.

    Yields:
        pathlib.Path: The temporary directory, beside ``path``.

    Raises:
        InputError: The directory cannot be created, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f'.{path.name}-', dir=path.parent))
    except OSError as e:
        raise _cannot_be_written(path, e) from e
    remove = partial(shutil.rmtree, unfinished, ignore_errors=True)
    try:
        with interruption.before_ending_at_once(remove):
            yield unfinished
        unfinished.chmod(0o777 & ~_umask())
        if path.is_dir():
            shutil.rmtree(path)
        unfinished.rename(path)
    except OSError as e:
        if _is_no_room(e) or unfinished.name in str(e):
            raise _cannot_be_written(path, e) from e
        raise
    finally:
        remove()


@contextlib.contextmanager
def new_directory_when_done(path: str | os.PathLike) -> Iterator[Path]:
    """As :func:`directory_when_done`, but only where nothing is lost.

    Temporary directories of processes that were killed are removed, so no other process may be
    writing the same directory.

    Raises:
        InputError: ``path`` is a file or a directory with files.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f'{path}: is a file; expected a directory, or none')
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f'{path}: is not empty; expected a new directory')
    for unfinished in path.parent.glob(f'.{path.name}-????????'):
        shutil.rmtree(unfinished, ignore_errors=True)
    with directory_when_done(path) as unfinished:
        yield unfinished


def check_no_directory(*paths: Path) -> None:
    """Refuse to write to a directory.

    Args:
        *paths (path): Files that will be written.

    Raises:
        InputError: One of them is a directory.
    """
    for path in paths:
        if path.is_dir():
            raise InputError(f'{path}: cannot be written: Is a directory; expected a file or none')


def remove_unfinished(directory: str | os.PathLike, *names: str) -> None:
    """Remove temporary files that :func:`replace_when_done` left when its process was killed.

    Call it only where no other process may be writing the same files.

    Args:
        directory (path): Where to look; it need not exist.
        names (str): Names of the finished files, such as ``'log'`` or ``'iter_*.npz'``.
    """
    for name in map(Path, names):
        # mkstemp inserts eight characters.
        for path in Path(directory).glob(f'.{name.stem}-????????{name.suffix}'):
            if not path.is_dir():
                path.unlink(missing_ok=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _is_no_room(error: OSError) -> bool:
    # NumPy's error for a short write has no errno: '1000 requested and 512 written'.
    return error.errno in _NO_ROOM or (error.errno is None and str(error).endswith(' written'))


def _cannot_be_written(path: Path, error: OSError) -> InputError:
    return InputError(f'{path}: cannot be written: {error.strerror or "no room"}')


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
