"""Verify the checksum of a large file once per node and day, not in every process.

What was verified is remembered in the cache directory of the user, by host and path: the file's
device, inode, size and times, and the identity of the boot. Any change of the file changes its
time of change (``st_ctime``). After a restart of the machine, and after a day, the file is read
again, because its copy on the disk or in memory may have been damaged.

If several processes open a file at the same time, the first one verifies it and the others wait.
Where nothing can be remembered, each process verifies the file itself.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from pfdet.files.cache import cache_directory
from pfdet.files.locks import wait_for_lock

# Smaller files are verified each time: that takes less than 30 ms.
SMALL = 1 << 24
_VALID = 24 * 3600.0
# A file that was changed this recently may be changed again without a change of its times, which
# have the resolution of the system's clock.
_RECENT = 2.0
# The others then verify the file themselves.
_LONGEST_WAIT = 60.0
_MAX_RECORD = 300
_OLD = 30 * 24 * 3600.0


def verify_once(path: str | os.PathLike, handle: int, verify: Callable[[], None]) -> None:
    """Verify a file, unless it is known to be intact.

    Args:
        path (path): The file.
        handle (int): Descriptor of the open file.
        verify (callable): Verifies the file; raises an exception if it is damaged.

    Raises:
        Exception: Whatever ``verify`` raises. The next process will verify the file, too.
    """
    status = os.fstat(handle)
    if status.st_size < SMALL:
        verify()
        return
    record = _open_record(path)
    if record is None:
        verify()
        return
    try:
        if _is_verified(record, status):
            return
        wait_for_lock(record, _LONGEST_WAIT)
        if _is_verified(record, status):
            return
        verify()
        # The status from before: a file that was changed meanwhile is not remembered.
        _remember(record, status)
    finally:
        os.close(record)


def _open_record(path: str | os.PathLike) -> int | None:
    name = hashlib.sha256(f'{os.uname().nodename}:{os.path.realpath(path)}'.encode()).hexdigest()
    try:
        directory = cache_directory() / 'verified'
        directory.mkdir(parents=True, exist_ok=True)
        is_new = not (directory / name).exists()
        handle = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
    except OSError:
        return None
    if is_new:
        _remove_old(directory)
    return handle


def _remove_old(directory: Path) -> None:
    oldest = time.time() - _OLD
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if entry.stat().st_mtime < oldest:
                os.unlink(entry)


def _identity(status: os.stat_result) -> str:
    fields = (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        _boot(),
    )
    return ' '.join(map(str, fields))


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return 'unknown'


def _is_verified(record: int, status: os.stat_result) -> bool:
    try:
        identity, _, verified = os.pread(record, _MAX_RECORD, 0).decode().rpartition(' ')
        age = time.time() - float(verified)
    except (OSError, ValueError):
        return False
    return identity == _identity(status) and 0 <= age < _VALID


def _remember(record: int, status: os.stat_result) -> None:
    now = time.time()
    if now - status.st_ctime < _RECENT:
        return
    with contextlib.suppress(OSError):
        os.ftruncate(record, 0)
        # In full: rounded up, it would be in the future.
        os.pwrite(record, f'{_identity(status)} {now!r}'.encode(), 0)
