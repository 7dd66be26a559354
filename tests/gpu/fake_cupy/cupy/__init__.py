"""Fake CuPy for tests on machines without a GPU: computes with NumPy, restricted as in CuPy.

It has only names that exist in both CuPy 13 and CuPy 14 (``cupy_names.json``). Kernels are compiled
for the CPU (:mod:`cupy.kernels`). It cannot test speed, race conditions or indices out of range.
"""

import functools
import json
from pathlib import Path

import numpy as np

__version__ = '14.0.0'

_NAMES = json.loads((Path(__file__).parents[2] / 'cupy_names.json').read_text())


@functools.cache
def known(module: str) -> frozenset[str]:
    """Names of a module or class of CuPy that exist in both versions."""
    return frozenset.intersection(
        *(frozenset(names.get(module, '').split()) for names in _NAMES.values())
    )


from cupy import _util, cuda, lib  # noqa: E402, F401
from cupy.array import call, count, counted, ndarray, unwrap, wrap  # noqa: E402, F401
from cupy.kernels import ElementwiseKernel, RawKernel, ReductionKernel  # noqa: E402, F401

# The size of their result depends on the data, so the host must wait for it.
_WAIT = {
    'nonzero',
    'flatnonzero',
    'argwhere',
    'unique',
    'bincount',
    'extract',
    'compress',
    'setdiff1d',
    'intersect1d',
    'union1d',
    'array_equal',
    'allclose',
}


def array(obj, dtype=None, copy=True, order='K', subok=False, ndmin=0, *, blocking=False):
    """Copy to the GPU or within it."""
    if isinstance(obj, ndarray):
        return wrap(np.array(obj._a, dtype, copy=True, order=order, ndmin=ndmin))
    if isinstance(obj, list | tuple) and any(isinstance(x, ndarray) for x in obj):
        return wrap(np.array(unwrap(obj), dtype))
    count('to_gpu')
    return wrap(np.array(obj, dtype, order=order, ndmin=ndmin))


def asarray(a, dtype=None, order=None, *, blocking=False):
    """Copy to the GPU unless the array is on it."""
    if isinstance(a, ndarray):
        return wrap(np.asarray(a._a, dtype, order))
    return array(a, dtype)


def ascontiguousarray(a, dtype=None):
    """Copy to the GPU unless the array is on it and contiguous."""
    if isinstance(a, ndarray):
        return wrap(np.ascontiguousarray(a._a, dtype))
    return array(a, dtype)


def asnumpy(a, stream=None, order='C', out=None, *, blocking=True):
    """Copy to the host."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def get_array_module(*args):
    """Return this module if any argument is on the GPU, otherwise NumPy."""
    import cupy

    return cupy if any(isinstance(a, ndarray) for a in args) else np


def argsort(a, axis=-1, kind=None):
    """Sort stably, like all sorts of CuPy."""
    if kind not in (None, 'stable'):
        raise ValueError(f'CuPy supports only stable sorting, not {kind!r}')
    return wrap(np.argsort(unwrap(a), axis, kind='stable'))


def lexsort(keys):
    """Sort by the rows of one array, the last row first."""
    if not isinstance(keys, ndarray):
        raise TypeError('cupy.lexsort takes one array, not a sequence')
    return wrap(np.lexsort(keys._a))


def repeat(a, repeats, axis=None):
    """Repeat elements; ``repeats`` must be on the host."""
    if isinstance(repeats, ndarray):
        raise HostArgumentError('cupy.repeat takes repeats on the host only')
    return wrap(np.repeat(unwrap(a), repeats, axis))


class HostArgumentError(TypeError):
    """An argument must be on the host."""


def split(ary, indices_or_sections, axis=0):
    """Split an array; the indices must be on the host."""
    return wrap(np.split(unwrap(ary), indices_or_sections, axis))


def where(condition, x=None, y=None):
    """Select elements; with one argument, return indices, for which the host waits."""
    if x is None:
        count('wait')
        return wrap(np.nonzero(unwrap(condition)))
    return call(np.where, condition, x, y)


def copyto(dst, src, casting='same_kind', where=None):
    """Copy between arrays on the GPU."""
    call(np.copyto, dst, src, casting=casting, **({} if where is None else {'where': where}))


def fuse(*args, **kwargs):
    """Return the function, because fusing does not change the result."""
    return args[0] if args and callable(args[0]) else lambda function: function


def memoize(for_each_device=False):
    """Cache results; there is only one device."""
    return functools.cache


def clear_memo():
    """Do nothing, because cached results stay valid."""


def get_default_memory_pool():
    """Return a pool that is never used."""
    return cuda.MemoryPool()


def get_default_pinned_memory_pool():
    """Return a pool that is never used."""
    return cuda.PinnedMemoryPool()


class _Ufunc:
    """Universal function of CuPy, with the method ``at``."""

    def __init__(self, ufunc):
        self._ufunc = ufunc
        self.__name__ = ufunc.__name__

    def __call__(self, *args, **kwargs):
        return call(self._ufunc, *args, **kwargs)

    def at(self, a, indices, b=None):
        """Apply in place without buffering, so that repeated indices accumulate."""
        self._ufunc.at(*map(unwrap, (a, indices, b)))


def __getattr__(name: str):
    if name not in known('cupy'):
        raise AttributeError(f'CuPy 13 and 14 do not both have {name!r}')
    value = getattr(np, name)
    if isinstance(value, np.ufunc):
        return _Ufunc(value)
    if isinstance(value, type) or not callable(value):
        if type(value).__name__ == 'module':
            raise AttributeError(f'fake CuPy has no module cupy.{name}')
        return value

    @functools.wraps(value)
    def function(*args, **kwargs):
        if name in _WAIT:
            count('wait')
        return call(value, *args, **kwargs)

    return function
