"""Element-wise functions on the GPU that keep channels-last memory.

:func:`install` wraps Chainer's addition, multiplication, ReLU and batch normalization with stored
statistics. They compute the same on views whose axes are in memory order (:mod:`pfdet.gpu.layout`).
"""

import functools
from typing import Any

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
        original = cls.forward

        @functools.wraps(original)
        def forward(self: Any, inputs: tuple) -> tuple:
            if len(inputs) != 2 or not last(*inputs):
                return original(self, inputs)
            if retained:
                self.retain_inputs(retained)
            return (in_memory_order(operator, *inputs),)

        cls.forward = forward

    wrap_binary(basic_math.Add, lambda a, b: a + b)
    wrap_binary(basic_math.Mul, lambda a, b: a * b, (0, 1))

    ReLU: Any = relu.ReLU
    ReLUGrad: Any = relu.ReLUGrad2
    Fixed: Any = batch_normalization.FixedBatchNormalization
    chainer_relu, chainer_gradient = ReLU.forward_gpu, ReLUGrad.forward_gpu
    chainer_fixed = Fixed.forward

    @functools.wraps(chainer_relu)
    def relu_forward(self: Any, inputs: tuple) -> tuple:
        (x,) = inputs
        if not last(x):
            return chainer_relu(self, inputs)
        self._use_cudnn = False
        self.retain_outputs((0,))
        return (in_memory_order(lambda a: cupy.maximum(a, 0, dtype=a.dtype), x),)

    @functools.wraps(chainer_gradient)
    def relu_gradient(self: Any, inputs: tuple) -> tuple:
        (gy,) = inputs
        if not last(self.b):
            return chainer_gradient(self, inputs)
        return (in_memory_order(lambda b, g: relu._relu_grad2_kernel(b, g), self.b, gy),)

    @functools.wraps(chainer_fixed)
    def fixed(self: Any, inputs: tuple) -> tuple:
        x, gamma, beta, mean, var = inputs
        if chainer.config.enable_backprop or gamma.ndim != 1 or not last(x):
            return chainer_fixed(self, inputs)
        scale = gamma / cupy.sqrt(var + var.dtype.type(self.eps))
        channel = [a.reshape(1, -1, 1, 1) for a in (scale, beta - mean * scale)]
        return (in_memory_order(_affine, x, *channel),)

    ReLU.forward_gpu = relu_forward
    ReLUGrad.forward_gpu = relu_gradient
    Fixed.forward = fixed


def _affine(x: Any, scale: Any, shift: Any) -> Any:
    return (x * scale + shift).astype(x.dtype, copy=False)
