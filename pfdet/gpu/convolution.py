"""Two-dimensional convolution on the GPU by cuDNN 9.

:func:`install` replaces the GPU methods of Chainer's convolution functions. With CuPy 14 these
gather patches (im2col) and multiply matrices, one product per group. The CPU methods stay.
"""

import functools
from collections.abc import Callable
from typing import Any

from pfdet.compat.override import override

import chainer
import numpy as np
from chainer.backends.cuda import cupy

from pfdet.gpu import plans
from pfdet.gpu.graphs import Layout, Operation, contiguous_layout
from pfdet.gpu.layout import Array, arrange, empty, in_memory_order
from pfdet.gpu.precision import tf32_allowed, uses_tensor_cores

# cuDNN counts elements in 32 bits in many engines.
_MAX_SIZE = 2**31 - 1


class Geometry(tuple):
    """Stride, padding and dilation of a convolution: three pairs, by height and width."""

    __slots__ = ()


def geometry(function: Any) -> Geometry:
    """The geometry of one of Chainer's convolution functions."""
    return Geometry(
        (
            (function.sy, function.sx),
            (function.ph, function.pw),
            (function.dy, function.dx),
        )
    )


def convolution(x: Array, W: Array, settings: Geometry, out_size: tuple[int, int]) -> Array | None:
    """Compute a convolution without bias.

    Args:
        x (array): Input :math:`(N, C, H, W)`.
        W (array): Filters :math:`(O, C / groups, k_h, k_w)`.
        settings (Geometry): Stride, padding and dilation.
        out_size (pair of int): Height and width of the output.

    Returns:
        array: Output :math:`(N, O, H', W')`; :obj:`None` if cuDNN declines. It is channels last if
        the convolution runs on tensor cores.
    """
    shape = (len(x), len(W), *out_size)
    return _compute('convolution', settings, (x, W), shape)


def input_gradient(
    gy: Array, W: Array, settings: Geometry, in_shape: tuple[int, ...]
) -> Array | None:
    """Compute the gradient of :func:`convolution` with respect to its input.

    Args:
        gy (array): Gradient of the output, :math:`(N, O, H', W')`.
        W (array): Filters.
        settings (Geometry): As in :func:`convolution`.
        in_shape (tuple of int): Shape of the input.
    """
    return _compute('input_gradient', settings, (gy, W), in_shape)


def filter_gradient(
    x: Array, gy: Array, settings: Geometry, W_shape: tuple[int, ...]
) -> Array | None:
    """Compute the gradient of :func:`convolution` with respect to its filters.

    Args:
        x (array): Input.
        gy (array): Gradient of the output.
        settings (Geometry): As in :func:`convolution`.
        W_shape (tuple of int): Shape of the filters.

    Returns:
        array: Gradient of shape ``W_shape``, contiguous: ChainerMN packs the memory of gradients as
        it is.
    """
    g = _compute('filter_gradient', settings, (x, gy), W_shape)
    return None if g is None else cupy.ascontiguousarray(g)


def _compute(
    kind: str, settings: Geometry, arrays: tuple[Array, ...], shape: tuple[int, ...]
) -> Array | None:
    dtype = arrays[0].dtype
    last = uses_tensor_cores(dtype)
    inputs = [arrange(a, last) for a in arrays]
    out: Layout = contiguous_layout(shape, last, dtype)
    operation = Operation(
        kind,
        tuple(contiguous_layout(a.shape, last, dtype) for a in inputs),
        (out,),
        tuple(settings),
        tensor_cores=tf32_allowed(),
        deterministic=bool(chainer.config.cudnn_deterministic),
    )
    y = empty(out)
    return y if plans.run(operation, inputs, [y]) else None


def _supported(function: Any, *arrays: Array) -> bool:
    dtype = arrays[0].dtype
    return (
        dtype in (np.float16, np.float32)
        and not function.cover_all
        and all(layout is None for layout in function.input_layouts)
        and all(
            isinstance(a, cupy.ndarray) and a.dtype == dtype and 0 < a.size <= _MAX_SIZE
            for a in arrays
        )
    )


def _add_bias(y: Array, b: Array) -> Array:
    return in_memory_order(cupy.add, y, b.reshape(1, -1, 1, 1))


@functools.lru_cache(maxsize=1)
def install() -> None:
    """Make Chainer's convolution functions use cuDNN 9 for CuPy arrays.

    It supports float16 and float32. Other arrays, and operations that cuDNN declines, use Chainer's
    versions. Repeated calls have no effect.
    """
    from chainer.functions.connection import convolution_2d, deconvolution_2d

    def wrap(cls: Any, compute: Callable[[Any, tuple], Array | None]) -> None:
        def forward_gpu(self: Any, inputs: tuple) -> tuple | None:
            y = compute(self, inputs)
            if y is None:
                return None
            self.retain_inputs((0, 1))
            return (y,)

        override(cls, 'forward_gpu', forward_gpu)

    def forward(self: Any, inputs: tuple) -> Array | None:
        x, W, *b = inputs
        if not _supported(self, *inputs):
            return None
        y = convolution(x, W, geometry(self), self._get_out_size(x.shape, W.shape))
        return _add_bias(y, *b) if b and y is not None else y

    def gradient(self: Any, inputs: tuple) -> Array | None:
        x, gy = inputs
        if not _supported(self, x, gy) or self.W_dtype != x.dtype:
            return None
        return filter_gradient(x, gy, geometry(self), self.W_shape)

    def transposed(self: Any, inputs: tuple) -> Array | None:
        x, W, *b = inputs
        self._calc_out_size(x.shape, W.shape)
        self._set_cover_all(x.shape, W.shape)
        if not _supported(self, *inputs):
            return None
        shape = (len(x), W.shape[1] * self.groups, self.outh, self.outw)
        y = input_gradient(x, W, geometry(self), shape)
        return _add_bias(y, *b) if b and y is not None else y

    wrap(convolution_2d.Convolution2DFunction, forward)
    wrap(convolution_2d.Convolution2DGradW, gradient)
    wrap(deconvolution_2d.Deconvolution2DFunction, transposed)
