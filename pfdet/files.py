"""Writing files so that a reader never sees half of one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replace_when_done(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file beside ``path`` and rename it into place at the end.

    If the block raises, ``path`` is left as it was and the unfinished file is removed.

    Args:
        path (path): Where the finished file goes. Missing parent directories are made.

    Yields:
        pathlib.Path: The path to write to, in the same directory and with the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f'.{path.stem}-', suffix=path.suffix, dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        # mkstemp's files are private; a finished file gets what the user's umask allows.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(unfinished, 0o666 & ~umask)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
