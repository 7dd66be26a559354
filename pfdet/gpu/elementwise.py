"""Element-wise functions on the GPU that keep channels-last memory.

:func:`install` wraps Chainer's addition, multiplication, ReLU and batch normalization with stored
statistics. They compute the same on views whose axes are in memory order (:mod:`pfdet.gpu.layout`).
"""

import functools
from typing import Any

from pfdet.compat.override import override

import chainer
from chainer.backends.cuda import cupy

from pfdet.gpu.layout import in_memory_order, is_channels_last


@functools.lru_cache(maxsize=1)
def install() -> None:
    """Make Chainer's element-wise functions keep the memory order of CuPy arrays.

    Repeated calls have no effect.
    """
    from chainer.functions.activation import relu
    from chainer.functions.math import basic_math
    from chainer.functions.normalization import batch_normalization

    def last(*arrays: Any) -> bool:
        first = arrays[0]
        return (
            isinstance(first, cupy.ndarray)
            and all(a.shape == first.shape for a in arrays)
            and is_channels_last(first)
        )

    def wrap_binary(cls: Any, operator: Any, retained: tuple[int, ...] = ()) -> None:
        def forward(self: Any, inputs: tuple) -> tuple | None:
            if len(inputs) != 2 or not last(*inputs):
                return None
            if retained:
                self.retain_inputs(retained)
            return (in_memory_order(operator, *inputs),)

        override(cls, 'forward', forward)

    wrap_binary(basic_math.Add, lambda a, b: a + b)
    wrap_binary(basic_math.Mul, lambda a, b: a * b, (0, 1))

    ReLU: Any = relu.ReLU
    ReLUGrad: Any = relu.ReLUGrad2
    Fixed: Any = batch_normalization.FixedBatchNormalization

    def relu_forward(self: Any, inputs: tuple) -> tuple | None:
        (x,) = inputs
        if not last(x):
            return None
        self._use_cudnn = False
        self.retain_outputs((0,))
        return (in_memory_order(lambda a: cupy.maximum(a, 0, dtype=a.dtype), x),)

    def relu_gradient(self: Any, inputs: tuple) -> tuple | None:
        (gy,) = inputs
        if not last(self.b):
            return None
        return (in_memory_order(lambda b, g: relu._relu_grad2_kernel(b, g), self.b, gy),)

    def fixed(self: Any, inputs: tuple) -> tuple | None:
        x, gamma, beta, mean, var = inputs
        if chainer.config.enable_backprop or gamma.ndim != 1 or not last(x):
            return None
        scale = gamma / cupy.sqrt(var + var.dtype.type(self.eps))
        channel = [a.reshape(1, -1, 1, 1) for a in (scale, beta - mean * scale)]
        return (in_memory_order(_affine, x, *channel),)

    override(ReLU, 'forward_gpu', relu_forward)
    override(ReLUGrad, 'forward_gpu', relu_gradient)
    override(Fixed, 'forward', fixed)


def _affine(x: Any, scale: Any, shift: Any) -> Any:
    return (x * scale + shift).astype(x.dtype, copy=False)
