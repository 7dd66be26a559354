"""What a process takes, as Linux tells it; elsewhere, zeros."""

import os
import time
from typing import NamedTuple


class Memory(NamedTuple):
    """Memory of a process.

    Attributes:
        private (int): Bytes of its own that it has written: what one process more takes.
        proportional (int): These, and its part of what it shares with others: summed over the
            processes of a node, it is what they take together.
    """

    private: int
    proportional: int


def memory() -> Memory:
    """This process's memory."""
    fields = _fields('/proc/self/smaps_rollup')
    # Clean pages are of files, such as libraries, which the next process shares.
    return Memory(fields.get('Private_Dirty', 0), fields.get('Pss', 0))


def available_memory() -> int:
    """Bytes that programs of this node can still have."""
    return _fields('/proc/meminfo').get('MemAvailable', 0)


def seconds_since_start() -> float:
    """Seconds since this process was started, its imports among them."""
    try:
        with open('/proc/self/stat') as file:
            # The name of the program may contain anything, also parentheses.
            ticks = int(file.read().rpartition(')')[2].split()[19])
    except OSError:
        return time.process_time()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')


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
