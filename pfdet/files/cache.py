"""The directory for files that can be made again, used where inputs are read-only."""

import errno
import os
from pathlib import Path


def cache_directory() -> Path:
    """The cache directory of this user. It may not exist.

    It is ``$PFDET_CACHE``; if that is not set, ``pfdet`` in ``$XDG_CACHE_HOME``, which is
    ``~/.cache`` by default (XDG Base Directory Specification).

    Raises:
        OSError: Neither is set, and the user has no home directory.
    """
    given = os.environ.get('PFDET_CACHE')
    if given:
        return Path(given)
    base = os.environ.get('XDG_CACHE_HOME', '')
    # The specification says that relative paths are invalid.
    if os.path.isabs(base):
        return Path(base) / 'pfdet'
    home = os.path.expanduser('~')
    if not os.path.isabs(home):
        raise FileNotFoundError(errno.ENOENT, 'no home directory')
    return Path(home) / '.cache' / 'pfdet'
