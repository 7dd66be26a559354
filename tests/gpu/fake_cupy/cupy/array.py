"""Fake CuPy array on top of NumPy, with the operations that pfdet and Chainer use.

Operations that are errors in CuPy are errors here: mixing with NumPy arrays, NumPy's functions and
``numpy.asarray``. So are operations that wait for the GPU and copy implicitly: ``float()``,
``int()`` and ``bool()`` of an array. Operations that wait because the size of their result depends
on the data are counted, and so are explicit copies.
"""

import collections
import contextlib
import functools
import operator
import traceback

import numpy as np

# Events since the last clear(): 'wait' (the size of a result depends on the data), 'to_host' and
# 'to_gpu'; and their locations in pfdet or Chainer.
counts: collections.Counter = collections.Counter()
locations: collections.Counter = collections.Counter()

_SCALARS = bool, int, float, complex, np.generic


def count(event: str) -> None:
    """Count an event and the innermost function outside fake CuPy that caused it."""
    counts[event] += 1
    for frame in reversed(traceback.extract_stack()):
        if 'fake_cupy' not in frame.filename:
            location = f'{frame.filename.rpartition("site-packages/")[2]}:{frame.name}'
            locations[event, location] += 1
            return


class HostConversionError(TypeError):
    """Data would be copied to or from the GPU implicitly."""


def wrap(value):
    """Wrap a result of NumPy. Scalars become zero-dimensional arrays, as in CuPy."""
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple | list):
        return type(value)(map(wrap, value))
    return value


def unwrap(value):
    """Unwrap an argument for NumPy; NumPy arrays are errors."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray):
        raise HostConversionError('a NumPy array mixed with CuPy arrays')
    if isinstance(value, tuple | list):
        return type(value)(map(unwrap, value))
    if isinstance(value, slice):
        for edge in value.start, value.stop, value.step:
            if isinstance(edge, ndarray):
                raise HostConversionError('a slice with an index on the GPU')
    return value


def call(function, *args, **kwargs):
    """Call a function of NumPy with arguments unwrapped and the result wrapped."""
    kwargs = {key: unwrap(value) for key, value in kwargs.items()}
    with np.errstate(all='ignore'):
        return wrap(function(*map(unwrap, args), **kwargs))


class ndarray:  # noqa: N801
    """CuPy's array, on the CPU."""

    __array_priority__ = 100
    __hash__ = None

    def __new__(cls, array, *args, **kwargs):
        self = super().__new__(cls)
        # Users pass a shape, as in CuPy. Fake CuPy itself passes an array.
        self._a = array if isinstance(array, np.ndarray) else np.empty(array, *args, **kwargs)
        return self

    def __getattr__(self, name: str):
        from cupy import known

        if name not in known('cupy.ndarray') or name.startswith('_'):
            raise AttributeError(f'ndarray of CuPy 13 and 14 has no attribute {name!r}')
        value = getattr(self._a, name)
        if not callable(value):
            return wrap(value)

        def method(*args, **kwargs):
            if name in ('nonzero', 'compress'):
                count('wait')
            return call(value, *args, **kwargs)

        return method

    @property
    def T(self):  # noqa: N802
        return wrap(self._a.T)

    @property
    def base(self):
        return self._a.base

    @property
    def device(self):
        from cupy.cuda import Device

        return Device(0)

    @property
    def data(self):
        from cupy.cuda import MemoryPointer

        return MemoryPointer(self._a.ctypes.data, self._a)

    @property
    def strides(self):
        return self._a.strides

    def get(self, stream=None, order='C', out=None, blocking=True):
        count('to_host')
        return self._a.copy(order)

    def item(self, *args):
        count('to_host')
        return self._a.item(*args)

    def tolist(self):
        count('to_host')
        return self._a.tolist()

    def set(self, array, stream=None):
        count('to_gpu')
        self._a[...] = array

    def scatter_add(self, slices, value):
        np.add.at(self._a, unwrap(slices), unwrap(value))

    def argsort(self, axis=-1):
        # The method has no argument kind in CuPy 13. Sorting is stable.
        return wrap(self._a.argsort(axis, kind='stable'))

    def fill(self, value):
        if isinstance(value, ndarray):
            value = value._a
        self._a.fill(value)

    def reduced_view(self, dtype=None):
        return self

    def __getitem__(self, index):
        if _is_mask(index):
            count('wait')
        return wrap(self._a[unwrap(index)])

    def __setitem__(self, index, value):
        if _is_mask(index) and not isinstance(value, _SCALARS):
            count('wait')
        self._a[unwrap(index)] = unwrap(value)

    def __len__(self):
        return len(self._a)

    def __iter__(self):
        return map(wrap, self._a)

    def __repr__(self):
        return f'<fake CuPy array of {self._a!r}>'

    def __copy__(self):
        return wrap(self._a.copy())

    def __deepcopy__(self, memo):
        return wrap(self._a.copy())

    def __reduce__(self):
        raise HostConversionError('pickling an array on the GPU')

    def __array__(self, dtype=None, copy=None):
        raise HostConversionError('Implicit conversion to a NumPy array is not allowed.')

    def __array_function__(self, function, types, args, kwargs):
        raise HostConversionError(f'numpy.{function.__name__} of an array on the GPU')

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        # Called for a NumPy scalar on the left-hand side, which CuPy supports.
        if method == '__call__' and any(isinstance(x, np.generic) for x in inputs):
            return call(ufunc, *inputs, **kwargs)
        raise HostConversionError(f'numpy.{ufunc.__name__} of an array on the GPU')

    def _no_scalar(self, *_):
        raise HostConversionError('conversion of an array on the GPU to a Python scalar')

    __float__ = __int__ = __bool__ = __index__ = __complex__ = _no_scalar


def _is_mask(index) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, ndarray) and part.dtype == bool for part in parts)


def _operator(name: str):
    function = getattr(operator, name)

    def forward(self, other):
        if isinstance(other, (ndarray, *_SCALARS)):
            return call(function, self, other)
        if isinstance(other, np.ndarray):
            raise HostConversionError(f'a NumPy array on the right of {name}')
        return NotImplemented

    def reflected(self, other):
        if isinstance(other, (ndarray, *_SCALARS)):
            return call(function, other, self)
        if isinstance(other, np.ndarray):
            raise HostConversionError(f'a NumPy array on the left of {name}')
        return NotImplemented

    return forward, reflected


def _in_place(name: str):
    function = getattr(operator, f'i{name}')

    def change(self, other):
        if not isinstance(other, (ndarray, *_SCALARS)):
            # A chainer.Variable, for example, must handle the operation itself.
            if isinstance(other, np.ndarray):
                raise HostConversionError(f'a NumPy array on the right of i{name}')
            return NotImplemented
        with np.errstate(all='ignore'):
            function(self._a, unwrap(other))
        return self

    return change


for _name in (
    'add',
    'sub',
    'mul',
    'truediv',
    'floordiv',
    'mod',
    'pow',
    'matmul',
    'and_',
    'or_',
    'xor',
    'lshift',
    'rshift',
):
    _short = _name.rstrip('_')
    _forward, _reflected = _operator(_name)
    setattr(ndarray, f'__{_short}__', _forward)
    setattr(ndarray, f'__r{_short}__', _reflected)
    setattr(ndarray, f'__i{_short}__', _in_place(_short))
for _name in 'eq', 'ne', 'lt', 'le', 'gt', 'ge':
    setattr(ndarray, f'__{_name}__', _operator(_name)[0])
for _name in 'neg', 'pos', 'abs', 'invert':
    setattr(
        ndarray,
        f'__{_name}__',
        functools.partialmethod(
            lambda self, function: call(function, self), getattr(operator, _name)
        ),
    )


@contextlib.contextmanager
def counted():
    """Reset the counters, and yield the counts of events and their locations."""
    counts.clear()
    locations.clear()
    yield counts, locations
