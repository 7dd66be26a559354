"""Sums and ReLU of large activations on the CPU, in threads and in the memory order they have.

:func:`install` puts these in place of the CPU path of Chainer's functions for large arrays of one
shape and memory order; others, and all arrays on the GPU, keep Chainer's path.
"""

import functools
from collections.abc import Callable

import numpy as np

from pfdet.cpu.threads import for_each, n_thread

# Smaller arrays are not worth threads.
LEAST_BYTES = 1 << 20


def apply(work: Callable, *arrays: np.ndarray) -> np.ndarray | None:
    """Compute an element-wise function in threads.

    Args:
        work (callable): ``work(*pieces, out)`` fills ``out`` from flat pieces of the arrays.
        arrays: Of one shape and dtype.

    Returns:
        array: Like the first in shape, dtype and memory order; :obj:`None` where threads do not
        pay or the arrays do not lie alike in memory.
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
    # Axes by descending stride: flat where this makes the array contiguous.
    order = sorted(range(first.ndim), key=lambda i: -first.strides[i])
    laid = [a.transpose(order) for a in arrays]
    if not all(a.flags.c_contiguous for a in laid):
        return None
    out = np.empty_like(laid[0])
    flat = [a.reshape(-1) for a in (*laid, out)]
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
    """Make Chainer's addition and ReLU use this module. Calling it again changes nothing."""
    from chainer.functions.activation import relu
    from chainer.functions.math import basic_math

    chainer_add = basic_math.Add.forward
    chainer_relu = relu.ReLU.forward_cpu
    chainer_gradient = relu.ReLUGrad2.forward_cpu

    @functools.wraps(chainer_add)
    def add(self, x):
        y = apply(_add, *x)
        return chainer_add(self, x) if y is None else (y,)

    @functools.wraps(chainer_relu)
    def relu_forward(self, inputs):
        y = apply(_relu, *inputs)
        if y is None:
            return chainer_relu(self, inputs)
        self.retain_outputs((0,))
        return (y,)

    @functools.wraps(chainer_gradient)
    def relu_gradient(self, inputs):
        gx = apply(_relu_gradient, self.b, *inputs)
        return chainer_gradient(self, inputs) if gx is None else (gx,)

    basic_math.Add.forward = add
    relu.ReLU.forward_cpu = relu_forward
    relu.ReLUGrad2.forward_cpu = relu_gradient
