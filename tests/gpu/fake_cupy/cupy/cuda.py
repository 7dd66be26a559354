"""One device, whose streams and events do nothing: everything is done when it is asked for."""

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
        """It is in use."""

    def synchronize(self):
        """There is nothing to wait for."""


class Stream:
    """A stream that never holds anything."""

    null: ClassVar['Stream']
    ptr = 0

    def __init__(self, null=False, non_blocking=False, ptds=False):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return None

    def synchronize(self):
        """There is nothing to wait for."""

    def record(self, event=None):
        """Note the time."""
        event = event or Event()
        event.record(self)
        return event


Stream.null = Stream()


class Event:
    """A moment."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.seconds = 0.0

    def record(self, stream=None):
        """Note the time."""
        self.seconds = time.perf_counter()

    def synchronize(self):
        """There is nothing to wait for."""


def get_elapsed_time(start, end):
    """Milliseconds between two events."""
    return (end.seconds - start.seconds) * 1000


def get_current_stream(device_id=-1):
    """The one that everything is done in."""
    return Stream.null


class MemoryPointer:
    """An address, and what keeps it valid."""

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
    """Some bytes."""
    memory = np.empty(size, np.uint8)
    return MemoryPointer(memory.ctypes.data, memory)


class MemoryPool:
    """Nothing is pooled."""

    def free_all_blocks(self):
        """There are none."""

    def total_bytes(self):
        """None."""
        return 0

    used_bytes = total_bytes


PinnedMemoryPool = MemoryPool

runtime = types.SimpleNamespace(
    getDeviceCount=lambda: 1,
    getDevice=lambda: 0,
    runtimeGetVersion=lambda: 13000,
    driverGetVersion=lambda: 13000,
    deviceSynchronize=lambda: None,
)
memory_hook = types.SimpleNamespace(MemoryHook=object)
cublas = types.SimpleNamespace()
nvtx = types.SimpleNamespace(available=False)
