"""Max pooling on the CPU with slices of channels-last memory.

Chainer gathers every window. This version takes the maximum of shifted slices of the whole map, one
per position in the window. Threads process different images.

:func:`install` replaces the CPU version of Chainer's two-dimensional max pooling. The GPU version
stays.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

from pfdet.compat.override import override

import numpy as np

from pfdet.cpu.threads import for_each


def max_pooling(
    x: np.ndarray,
    ksize: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    out_size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the maximum of each window and its index in the window.

    Args:
        x (array): Input :math:`(N, C, H, W)`.
        ksize, stride, pad (pairs of int): Window size, stride and padding by height and width.
        out_size (pair of int): Height and width of the output.

    Returns:
        tuple of arrays: Maxima :math:`(N, C, H', W')`; and their indices in the flattened windows,
        uint8 of the same shape. Ties go to the first index. Channels last in memory.
    """
    x = x.transpose(0, 2, 3, 1)
    y = np.full((len(x), *out_size, x.shape[3]), -np.inf, x.dtype)
    indices = np.zeros(y.shape, np.uint8)

    def pool(n: int) -> None:
        for k, source, target in _shifts(x.shape[1:3], ksize, stride, pad, out_size):
            larger = x[n][source] > y[n][target]
            indices[n][target][larger] = k
            # Unlike an assignment where larger, maximum propagates NaN.
            np.maximum(y[n][target], x[n][source], out=y[n][target])

    for_each(pool, range(len(x)))
    return y.transpose(0, 3, 1, 2), indices.transpose(0, 3, 1, 2)


def max_pooling_gradient(
    gy: np.ndarray,
    indices: np.ndarray,
    ksize: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    in_size: tuple[int, int],
) -> np.ndarray:
    """Compute the gradient of :func:`max_pooling` with respect to its input.

    Args:
        gy (array): Gradient of the output, :math:`(N, C, H', W')`.
        indices (array): Indices returned by :func:`max_pooling`.
        ksize, stride, pad (pairs of int): As in :func:`max_pooling`.
        in_size (pair of int): Height and width of the input.

    Returns:
        array: Gradient :math:`(N, C, H, W)`, channels last in memory.
    """
    gy, indices = gy.transpose(0, 2, 3, 1), indices.transpose(0, 2, 3, 1)
    gx = np.zeros((len(gy), *in_size, gy.shape[3]), gy.dtype)

    def spread(n: int) -> None:
        for k, source, target in _shifts(in_size, ksize, stride, pad, gy.shape[1:3]):
            gx[n][source] += gy[n][target] * (indices[n][target] == k)

    for_each(spread, range(len(gy)))
    return gx.transpose(0, 3, 1, 2)


def _shifts(
    in_size: tuple[int, ...],
    ksize: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    out_size: tuple[int, ...],
) -> Iterator[tuple[int, tuple, tuple]]:
    """Yield the index of each window position, with slices of the input and of the output."""
    for k, offset in enumerate(itertools.product(*map(range, ksize))):
        source, target = [], []
        for n, o, s, p, m in zip(in_size, offset, stride, pad, out_size):
            # The outputs whose input at this offset is inside the map.
            first = max(0, -(-(p - o) // s))
            last = min(m - 1, (n - 1 + p - o) // s)
            if last < first:
                break
            begin = first * s + o - p
            source.append(slice(begin, begin + (last - first) * s + 1, s))
            target.append(slice(first, last + 1))
        else:
            yield k, tuple(source), tuple(target)


@functools.lru_cache(maxsize=1)
def install() -> None:
    """Make Chainer's max pooling use this module for NumPy arrays.

    It supports windows of up to 256 positions on floating-point maps. Others use Chainer's
    version. Repeated calls have no effect.
    """
    from chainer.functions.pooling import max_pooling_nd
    from chainer.utils import conv

    cls: Any = max_pooling_nd.MaxPoolingND
    grad: Any = max_pooling_nd.MaxPoolingNDGrad

    def forward_cpu(self, inputs):
        (x,) = inputs
        if (
            self.ndim != 2
            or type(x) is not np.ndarray
            or self.return_indices
            or x.dtype not in (np.float16, np.float32, np.float64)
            or np.prod(self.ksize) > 256
        ):
            return None
        out_size = tuple(
            conv.get_conv_outsize(n, k, s, p, self.cover_all)
            for n, k, s, p in zip(x.shape[2:], self.ksize, self.stride, self.pad)
        )
        self._in_shape, self._in_dtype = x.shape, x.dtype
        y, self._max_indices = max_pooling(x, self.ksize, self.stride, self.pad, out_size)
        return (y,)

    def gradient_cpu(self, gy):
        indices = getattr(self.func, '_max_indices', None)
        if indices is None:
            return None
        return (
            max_pooling_gradient(
                gy[0],
                indices,
                self.func.ksize,
                self.func.stride,
                self.func.pad,
                self.func._in_shape[2:],
            ),
        )

    override(cls, 'forward_cpu', forward_cpu)
    override(grad, 'forward_cpu', gradient_cpu)
