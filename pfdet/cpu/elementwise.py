"""Multi-threaded addition and ReLU of large activations on the CPU, in any memory order.

:func:`install` replaces the CPU versions of Chainer's functions for large arrays of equal shape and
memory order. Other arrays, and all arrays on the GPU, use Chainer's versions.
"""

import functools
from collections.abc import Callable
from typing import Any

from pfdet.compat.override import override

import numpy as np

from pfdet.cpu.threads import for_each, n_thread

# Smallest array for which threads are faster.
LEAST_BYTES = 1 << 20


def apply(work: Callable, *arrays: np.ndarray) -> np.ndarray | None:
    """Compute an element-wise function in threads.

    Args:
        work (callable): ``work(*pieces, out)`` computes ``out`` from flat pieces of the arrays.
        arrays (arrays): Arguments of equal shape and dtype.

    Returns:
        array: The result, with the shape, dtype and memory order of the first array. :obj:`None`
        if threads are not worthwhile or the arrays differ in memory order.
    """
    first = arrays[0]
    if (
        n_thread() == 1
        or first.nbytes < LEAST_BYTES
        or any(
            type(a) is not np.ndarray or a.shape != first.shape or a.dtype != first.dtype
            for a in arrays
        )
    ):
        return None
    # Sort axes by descending stride. Contiguous arrays can then be flattened without a copy.
    order = sorted(range(first.ndim), key=lambda i: -first.strides[i])
    sorted_arrays = [a.transpose(order) for a in arrays]
    if not all(a.flags.c_contiguous for a in sorted_arrays):
        return None
    out = np.empty_like(sorted_arrays[0])
    flat = [a.reshape(-1) for a in (*sorted_arrays, out)]
    step = -(-first.size // n_thread())
    for_each(lambda i: work(*(a[i : i + step] for a in flat)), range(0, first.size, step))
    return out.transpose(np.argsort(order))


def _add(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    np.add(a, b, out=out)


def _relu(x: np.ndarray, out: np.ndarray) -> None:
    np.maximum(x, 0, out=out)


def _relu_gradient(y: np.ndarray, gy: np.ndarray, out: np.ndarray) -> None:
    np.multiply(gy, y > 0, out=out)


@functools.lru_cache(maxsize=1)
def install() -> None:
    """Make Chainer's addition and ReLU use this module. Repeated calls have no effect."""
    from chainer.functions.activation import relu
    from chainer.functions.math import basic_math

    Add: Any = basic_math.Add
    ReLU: Any = relu.ReLU
    ReLUGrad: Any = relu.ReLUGrad2

    def add(self, x):
        y = apply(_add, *x)
        return None if y is None else (y,)

    def relu_forward(self, inputs):
        y = apply(_relu, *inputs)
        if y is None:
            return None
        self.retain_outputs((0,))
        return (y,)

    def relu_gradient(self, inputs):
        gx = apply(_relu_gradient, self.b, *inputs)
        return None if gx is None else (gx,)

    override(Add, 'forward', add)
    override(ReLU, 'forward_cpu', relu_forward)
    override(ReLUGrad, 'forward_cpu', relu_gradient)
