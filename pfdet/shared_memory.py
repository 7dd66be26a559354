"""Shared memory of MPICH that would stay behind in ``/dev/shm``.

MPICH creates the file ``mpich_shm_ID_NODE``, about 1 MB per rank of a node, and removes it when MPI
is finalized. A job that is killed or aborted leaves it, and a container often has only 64 MB for
all such files. The ranks open the file by its name only while MPI starts. Afterwards the name can
be removed, as other libraries do with their shared memory: it is freed when the last process ends,
whatever ends it.
"""

import os
import re
import time
from pathlib import Path

_DIRECTORY = Path('/dev/shm')
_NAME = re.compile(r'mpich_(?:shm|vci)_[0-9a-f]+_\d+')
# MPI starts within this time: ranks may still open a younger file by its name.
_SECONDS_TO_START = 600.0
_LOCAL_RANK = 'MPI_LOCALRANKID', 'PMI_LOCAL_RANK', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK'


def remove_own() -> None:
    """Remove the names of MPICH's shared memory that this process uses.

    Call it when all ranks of the node have started MPI, or when the job is about to be aborted.
    """
    for name in _mapped('self'):
        (_DIRECTORY / name).unlink(missing_ok=True)


def remove_abandoned() -> list[Path]:
    """Remove the shared memory of this user's jobs that were killed while MPI started.

    A file is removed if no process uses it, it belongs to this user, and it is older than any start
    of MPI takes. Even a job that cannot be seen from here, in another container that shares
    ``/dev/shm``, would not need the name any more. Only the first rank of a node looks.

    Returns:
        list of paths: The removed files.
    """
    if next((os.environ[name] for name in _LOCAL_RANK if name in os.environ), '0') != '0':
        return []
    old = [path for path in _files() if _is_own(path)]
    if not old:
        return []
    used = {name for process in _processes() for name in _mapped(process)}
    removed = []
    for path in old:
        if path.name not in used:
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _files() -> list[Path]:
    try:
        return [path for path in _DIRECTORY.iterdir() if _NAME.fullmatch(path.name)]
    except OSError:
        return []


def _is_own(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    # Memory that is written through a mapping keeps the time of the file's creation.
    return status.st_uid == os.geteuid() and time.time() - status.st_mtime > _SECONDS_TO_START


def _processes() -> list[str]:
    return [entry for entry in os.listdir('/proc') if entry.isdigit()]


def _mapped(process: str) -> set[str]:
    """Names of MPICH's files that a process maps; empty for a process of another user."""
    try:
        maps = Path(f'/proc/{process}/maps').read_text(errors='replace')
    except OSError:
        return set()
    prefix = f'{_DIRECTORY}/'
    paths = (line.split(maxsplit=5)[-1] for line in maps.splitlines() if prefix in line)
    names = (path.removeprefix(prefix) for path in paths)
    return {name for name in names if _NAME.fullmatch(name)}
