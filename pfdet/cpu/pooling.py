"""Max pooling on the CPU over slices of channels-last memory.

Chainer gathers every window. Here the maximum is taken over one shifted slice of the whole map a
place of the window, image by image in threads.

:func:`install` puts this in place of the CPU path of Chainer's two-dimensional max pooling. Its GPU
path stays as it is.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from pfdet.cpu.threads import for_each


def max_pooling(
    x: np.ndarray,
    ksize: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    out_size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """The largest value of each window, and where in the window it is.

    Args:
        x (array): :math:`(N, C, H, W)`.
        ksize, stride, pad (pairs of int): By height and width.
        out_size (pair of int): Height and width of the output.

    Returns:
        tuple of arrays: Maxima :math:`(N, C, H', W')`, and their places in the windows, row by
        row, uint8 of the same shape. Of equal values the first. Channels last in memory.
    """
    places = x.transpose(0, 2, 3, 1)
    y = np.full((len(x), *out_size, x.shape[1]), -np.inf, x.dtype)
    where = np.zeros(y.shape, np.uint8)

    def pool(n: int) -> None:
        for k, source, target in _shifts(places.shape[1:3], ksize, stride, pad, out_size):
            larger = places[n][source] > y[n][target]
            where[n][target][larger] = k
            # Unlike a copy of what is larger, it keeps NaN, which someone should see.
            np.maximum(y[n][target], places[n][source], out=y[n][target])

    for_each(pool, range(len(x)))
    return y.transpose(0, 3, 1, 2), where.transpose(0, 3, 1, 2)


def max_pooling_gradient(
    gy: np.ndarray,
    where: np.ndarray,
    ksize: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    in_size: tuple[int, int],
) -> np.ndarray:
    """Gradient of :func:`max_pooling` with respect to its input.

    Args:
        gy (array): Gradient of the output, :math:`(N, C, H', W')`.
        where (array): As :func:`max_pooling` returned it.
        ksize, stride, pad (pairs of int): As in the forward pass.
        in_size (pair of int): Height and width of the input.

    Returns:
        array: :math:`(N, C, H, W)`, channels last in memory.
    """
    gy, where = gy.transpose(0, 2, 3, 1), where.transpose(0, 2, 3, 1)
    gx = np.zeros((len(gy), *in_size, gy.shape[3]), gy.dtype)

    def spread(n: int) -> None:
        for k, source, target in _shifts(in_size, ksize, stride, pad, gy.shape[1:3]):
            gx[n][source] += gy[n][target] * (where[n][target] == k)

    for_each(spread, range(len(gy)))
    return gx.transpose(0, 3, 1, 2)


def _shifts(in_size, ksize, stride, pad, out_size) -> Iterator[tuple[int, tuple, tuple]]:
    """For each place of the window: its number, and slices of the input and of the output."""
    for k, offset in enumerate(itertools.product(*map(range, ksize))):
        source, target = [], []
        for n, o, s, p, m in zip(in_size, offset, stride, pad, out_size):
            # The outputs whose input at this offset lies on the map.
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
    """Make Chainer's max pooling use this module on NumPy arrays.

    Windows of up to 256 places over float32 or float64 maps. Calling it again changes nothing.
    """
    from chainer.functions.pooling import max_pooling_nd
    from chainer.utils import conv

    cls, grad = max_pooling_nd.MaxPoolingND, max_pooling_nd.MaxPoolingNDGrad
    chainer_forward, chainer_gradient = cls.forward_cpu, grad.forward_cpu

    @functools.wraps(chainer_forward)
    def forward_cpu(self, inputs):
        (x,) = inputs
        if (
            self.ndim != 2
            or type(x) is not np.ndarray
            or self.return_indices
            or x.dtype not in (np.float32, np.float64)
            or np.prod(self.ksize) > 256
        ):
            return chainer_forward(self, inputs)
        out_size = tuple(
            conv.get_conv_outsize(n, k, s, p, self.cover_all)
            for n, k, s, p in zip(x.shape[2:], self.ksize, self.stride, self.pad)
        )
        self._in_shape, self._in_dtype = x.shape, x.dtype
        y, self._where = max_pooling(x, self.ksize, self.stride, self.pad, out_size)
        return (y,)

    @functools.wraps(chainer_gradient)
    def gradient_cpu(self, gy):
        where = getattr(self.func, '_where', None)
        if where is None:
            return chainer_gradient(self, gy)
        return (
            max_pooling_gradient(
                gy[0],
                where,
                self.func.ksize,
                self.func.stride,
                self.func.pad,
                self.func._in_shape[2:],
            ),
        )

    cls.forward_cpu = forward_cpu
    grad.forward_cpu = gradient_cpu
