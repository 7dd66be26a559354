"""A fixed affine map per channel, as of batch normalization with stored statistics."""

import chainer
import numpy as np
from chainer.backends import cuda

from pfdet.boxes.arrays import Array
from pfdet.cpu.threads import for_each, n_thread
from pfdet.gpu.layout import in_memory_order

# Smallest array that is split between threads.
_LEAST_BYTES = 1 << 19


class AffineChannel(chainer.FunctionNode):
    """Multiply each channel by a constant and add another.

    Unlike in :func:`chainer.functions.fixed_batch_normalization`, scale and shift get no gradient.
    So the backward pass is one multiplication and does not need the input, which is not kept.

    Args:
        scale, shift: As in :func:`affine_channel`. :obj:`None` as shift adds nothing.
    """

    def __init__(self, scale: Array, shift: Array | None):
        self.scale = scale
        self.shift = shift

    def forward_cpu(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Compute the map in threads."""
        (x,) = inputs
        shape = (-1, *[1] * (x.ndim - 2))
        scale = self.scale.reshape(shape)
        shift = None if self.shift is None else self.shift.reshape(shape)
        # The memory order of x, often channels last.
        y = np.empty_like(x)

        def apply(piece: tuple[slice, ...]) -> None:
            if scale.dtype != x.dtype:
                part = x[piece] * scale
                y[piece] = part if shift is None else part + shift
                return
            np.multiply(x[piece], scale, out=y[piece])
            if shift is not None:
                y[piece] += shift

        for_each(apply, _pieces(x))
        return (y,)

    def forward_gpu(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Compute the map in one kernel."""
        (x,) = inputs
        shape = (1, -1, *[1] * (x.ndim - 2))
        # The types differ in mixed precision.
        if self.shift is None:
            kernel = cuda.elementwise('T x, S scale', 'T y', 'y = x * scale', 'scale_channel')
            return (in_memory_order(kernel, x, self.scale.reshape(shape)),)
        kernel = cuda.elementwise(
            'T x, S scale, S shift', 'T y', 'y = x * scale + shift', 'affine_channel'
        )
        constants = (a.reshape(shape) for a in (self.scale, self.shift))
        return (in_memory_order(kernel, x, *constants),)

    def backward(
        self, indexes: tuple[int, ...], grad_outputs: tuple[chainer.Variable, ...]
    ) -> tuple[chainer.Variable, ...]:
        """Return the gradient of the input: the gradient of the output times the scale."""
        return AffineChannel(self.scale, None).apply(grad_outputs)


def affine_channel(x: chainer.Variable | Array, scale: Array, shift: Array) -> chainer.Variable:
    """Compute ``x * scale + shift`` by channel, with a gradient of ``x`` only.

    Args:
        x (variable or array): :math:`(N, C)` or :math:`(N, C, ...)`.
        scale, shift (arrays): Constants :math:`(C,)` of the dtype of ``x``, or float32 for float16.

    Returns:
        chainer.Variable: Shape, dtype and memory order of ``x``.
    """
    return AffineChannel(scale, shift).apply((x,))[0]


def _pieces(x: np.ndarray) -> list[tuple[slice, ...]]:
    """Split images between threads, and the rows of images if there are fewer images."""
    if x.ndim < 4 or x.nbytes < _LEAST_BYTES:
        return [(slice(None),)]
    N, C, H = x.shape[:3]
    step = -(-H // -(-n_thread() // N))
    return [
        (slice(n, n + 1), slice(None), slice(h, h + step))
        for n in range(N)
        for h in range(0, H, step)
    ]
