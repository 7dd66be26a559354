"""A stand-in for CuPy on machines without a GPU, for tests: NumPy beneath, CuPy's strictness above.

It has only names that CuPy 13 and CuPy 14 both have (``cupy_names.json``). Kernels are compiled for
the CPU (:mod:`cupy.kernels`). It says nothing of speed, nor of what CUDA does with a race or an
index out of range.
"""

import functools
import json
from pathlib import Path

import numpy as np

__version__ = '14.0.0'

_NAMES = json.loads((Path(__file__).parents[2] / 'cupy_names.json').read_text())


@functools.cache
def known(module: str) -> frozenset[str]:
    """The names that a module or class of CuPy has in both versions."""
    return frozenset.intersection(
        *(frozenset(names.get(module, '').split()) for names in _NAMES.values())
    )


from cupy import _util, cuda, lib  # noqa: E402, F401
from cupy.array import call, count, counted, ndarray, unwrap, wrap  # noqa: E402, F401
from cupy.kernels import ElementwiseKernel, RawKernel, ReductionKernel  # noqa: E402, F401

# The sizes of what they return depend on data, which the host must know.
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
    """Upload, or copy."""
    if isinstance(obj, ndarray):
        return wrap(np.array(obj._a, dtype, copy=True, order=order, ndmin=ndmin))
    if isinstance(obj, list | tuple) and any(isinstance(x, ndarray) for x in obj):
        return wrap(np.array(unwrap(obj), dtype))
    count('to_gpu')
    return wrap(np.array(obj, dtype, order=order, ndmin=ndmin))


def asarray(a, dtype=None, order=None, *, blocking=False):
    """Upload, unless it is there."""
    if isinstance(a, ndarray):
        return wrap(np.asarray(a._a, dtype, order))
    return array(a, dtype)


def ascontiguousarray(a, dtype=None):
    """Upload, unless it is there and contiguous."""
    if isinstance(a, ndarray):
        return wrap(np.ascontiguousarray(a._a, dtype))
    return array(a, dtype)


def asnumpy(a, stream=None, order='C', out=None, *, blocking=True):
    """Download."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def get_array_module(*args):
    """This module if any of them is on the GPU."""
    import cupy

    return cupy if any(isinstance(a, ndarray) for a in args) else np


def argsort(a, axis=-1, kind=None):
    """Stable, as all of CuPy's sorting."""
    if kind not in (None, 'stable'):
        raise ValueError(f'CuPy sorts stably, not by {kind!r}')
    return wrap(np.argsort(unwrap(a), axis, kind='stable'))


def lexsort(keys):
    """By the last row first; of one array."""
    if not isinstance(keys, ndarray):
        raise TypeError('cupy.lexsort takes one array, not a sequence')
    return wrap(np.lexsort(keys._a))


def repeat(a, repeats, axis=None):
    """How often must be known on the host."""
    if isinstance(repeats, ndarray):
        raise HostArgumentError('cupy.repeat takes numbers of the host')
    return wrap(np.repeat(unwrap(a), repeats, axis))


class HostArgumentError(TypeError):
    """A function takes its argument on the host only."""


def split(ary, indices_or_sections, axis=0):
    """Where to split must be known on the host."""
    return wrap(np.split(unwrap(ary), indices_or_sections, axis))


def where(condition, x=None, y=None):
    """With one argument, the places, for which the host waits."""
    if x is None:
        count('wait')
        return wrap(np.nonzero(unwrap(condition)))
    return call(np.where, condition, x, y)


def copyto(dst, src, casting='same_kind', where=None):
    """On the GPU only."""
    call(np.copyto, dst, src, casting=casting, **({} if where is None else {'where': where}))


def fuse(*args, **kwargs):
    """Fusing changes no result."""
    return args[0] if args and callable(args[0]) else lambda function: function


def memoize(for_each_device=False):
    """There is one device."""
    return functools.cache


def clear_memo():
    """Nothing that is kept can be outdated."""


def get_default_memory_pool():
    """A pool that is never used."""
    return cuda.MemoryPool()


def get_default_pinned_memory_pool():
    """A pool that is never used."""
    return cuda.PinnedMemoryPool()


class _Ufunc:
    """A universal function of CuPy: called, or ``at``."""

    def __init__(self, ufunc):
        self._ufunc = ufunc
        self.__name__ = ufunc.__name__

    def __call__(self, *args, **kwargs):
        return call(self._ufunc, *args, **kwargs)

    def at(self, a, indices, b=None):
        """Unbuffered, in place."""
        self._ufunc.at(*map(unwrap, (a, indices, b)))


def __getattr__(name: str):
    if name not in known('cupy'):
        raise AttributeError(f'CuPy 13 and 14 have no {name!r} in common')
    value = getattr(np, name)
    if isinstance(value, np.ufunc):
        return _Ufunc(value)
    if isinstance(value, type) or not callable(value):
        if type(value).__name__ == 'module':
            raise AttributeError(f'the stand-in lacks the module cupy.{name}')
        return value

    @functools.wraps(value)
    def function(*args, **kwargs):
        if name in _WAIT:
            count('wait')
        return call(value, *args, **kwargs)

    return function
