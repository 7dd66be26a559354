"""A single device. Streams and events do nothing, because all operations are synchronous."""

import ctypes
import time
import types
from typing import ClassVar

import numpy as np


class Device:
    """The only device."""

    def __init__(self, device=None):
        self.id = 0 if device is None else int(device)

    compute_capability = '90'

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return None

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def use(self):
        """Do nothing."""

    def synchronize(self):
        """Do nothing."""


class Stream:
    """A stream without pending operations."""

    null: ClassVar['Stream']
    ptr = 0

    def __init__(self, null=False, non_blocking=False, ptds=False):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return None

    def synchronize(self):
        """Do nothing."""

    def record(self, event=None):
        """Record the time."""
        event = event or Event()
        event.record(self)
        return event


Stream.null = Stream()


class Event:
    """A point in time."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.seconds = 0.0

    def record(self, stream=None):
        """Record the time."""
        self.seconds = time.perf_counter()

    def synchronize(self):
        """Do nothing."""


def get_elapsed_time(start, end):
    """Return the milliseconds between two events."""
    return (end.seconds - start.seconds) * 1000


def get_current_stream(device_id=-1):
    """Return the only stream."""
    return Stream.null


class MemoryPointer:
    """An address and the owner of its memory."""

    def __init__(self, ptr, mem):
        self.ptr = ptr
        self.mem = mem

    def copy_from_device(self, src, size):
        """Copy bytes."""
        ctypes.memmove(self.ptr, src.ptr, size)

    copy_from_device_async = copy_from_device

    def __add__(self, offset):
        return MemoryPointer(self.ptr + offset, self.mem)


def alloc(size):
    """Allocate memory."""
    memory = np.empty(size, np.uint8)
    return MemoryPointer(memory.ctypes.data, memory)


class MemoryPool:
    """An empty pool."""

    def free_all_blocks(self):
        """Do nothing."""

    def total_bytes(self):
        """Return 0."""
        return 0

    used_bytes = total_bytes


PinnedMemoryPool = MemoryPool

runtime = types.SimpleNamespace(
    getDeviceCount=lambda: 1,
    getDevice=lambda: 0,
    getDeviceProperties=lambda device: {'name': b'fake GPU'},
    runtimeGetVersion=lambda: 13000,
    driverGetVersion=lambda: 13000,
    deviceSynchronize=lambda: None,
)
memory_hook = types.SimpleNamespace(MemoryHook=object)
cublas = types.SimpleNamespace()
nvtx = types.SimpleNamespace(available=False)
