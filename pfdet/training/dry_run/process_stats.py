"""Memory and age of this process from /proc; zeros elsewhere."""

import os
import time
from typing import NamedTuple

from pfdet.process_stat import stat_fields


class Memory(NamedTuple):
    """Memory of a process.

    Attributes:
        private (int): Bytes written by this process and not shared. This is the memory that an
            additional process needs.
        proportional (int): Private bytes plus its proportion of shared pages. The sum over the
            processes of a node is their total memory.
    """

    private: int
    proportional: int


def memory() -> Memory:
    """Memory of this process."""
    fields = _fields('/proc/self/smaps_rollup')
    # Clean pages belong to files, such as libraries, which further processes share.
    return Memory(fields.get('Private_Dirty', 0), fields.get('Pss', 0))


def available_memory() -> int:
    """Bytes available to programs on this node."""
    return _fields('/proc/meminfo').get('MemAvailable', 0)


def seconds_since_start() -> float:
    """Seconds since this process was started, including its imports."""
    fields = stat_fields('self')
    if not fields:
        return time.process_time()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf('SC_CLK_TCK')


def _fields(path: str) -> dict[str, int]:
    fields = {}
    try:
        with open(path) as file:
            for line in file:
                words = line.split()
                if len(words) == 3 and words[2] == 'kB':
                    fields[words[0].rstrip(':')] = int(words[1]) * 1024
    except OSError:
        pass
    return fields
