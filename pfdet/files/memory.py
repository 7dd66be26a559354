"""The memory that this process can still allocate, to refuse files that need more."""

import contextlib
import os
import resource
from pathlib import Path

from pfdet.errors import InputError

# Smaller needs are not checked: asking the system takes longer than reading such a file.
_UNCHECKED = 1 << 26


def check_memory(path: str | os.PathLike, n_byte: int, part: str = 'its content') -> None:
    """Refuse a file whose content does not fit into the memory that is available.

    Args:
        path (path): The file, for the message.
        n_byte (int): The memory that the content needs.
        part (str): What needs the memory.

    Raises:
        InputError: Less memory is available.
    """
    if n_byte <= _UNCHECKED:
        return
    available = available_memory()
    if n_byte > available:
        raise InputError(
            f'{path}: {part} needs {n_byte / 1e6:,.1f} MB of memory; expected at most the '
            f'{available / 1e6:,.1f} MB that are available'
        )


def available_memory() -> int:
    """The number of bytes that this process can still allocate.

    The smallest of: the machine's available memory, what the control group of the process (a
    container or a batch job) leaves, and what the limit on its address space leaves.
    """
    limits = [1 << 62, *_machine(), *_control_groups(), *_address_space()]
    return max(0, min(limits))


def _machine() -> list[int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path('/proc/meminfo').read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return [int(line.split()[1]) << 10]
    return []


def _control_groups() -> list[int]:
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path('/proc/self/cgroup').read_text().splitlines():
            _, controllers, path = line.split(':', 2)
            if not controllers:  # version 2
                root, names = Path('/sys/fs/cgroup'), ('memory.max', 'anon ')
            elif 'memory' in controllers.split(','):
                root, names = Path('/sys/fs/cgroup/memory'), ('memory.limit_in_bytes', 'total_rss ')
            else:
                continue
            group = root / path.lstrip('/')
            # A limit of a group also holds for the groups in it.
            for folder in (group, *group.parents):
                found += _left_in_group(folder, *names)
                if folder == root:
                    break
    return found


def _left_in_group(folder: Path, limit_name: str, used_key: str) -> list[int]:
    # A limit that is not set is 'max', a huge number, or has no file. The cache of files counts as
    # used in memory.current, although it is given up when needed; so memory.stat is read instead.
    with contextlib.suppress(OSError, ValueError):
        limit = int((folder / limit_name).read_text())
        for line in (folder / 'memory.stat').read_text().splitlines():
            if line.startswith(used_key):
                return [limit - int(line.removeprefix(used_key))]
    return []


def _address_space() -> list[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return []
    with contextlib.suppress(OSError, ValueError, IndexError):
        n_page = int(Path('/proc/self/statm').read_text().split()[0])
        return [limit - n_page * resource.getpagesize()]
    return [limit]
