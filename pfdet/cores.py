"""The number of cores that this process may use."""

import os


def n_core() -> int:
    """Return the number of cores; where the system does not tell which may be used, of all."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    # macOS
    return os.cpu_count() or 1
