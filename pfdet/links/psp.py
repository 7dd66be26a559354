"""Pyramid spatial pooling of a feature map of any size."""

from collections.abc import Sequence

import chainer
import chainer.functions as F
import numpy as np
from chainercv.links import Conv2DBNActiv

from pfdet.boxes.arrays import Array


class PyramidSpatialPooling(chainer.Chain):
    """Pyramid pooling module (Zhao et al., PSPNet, section 3.2).

    The feature map is average-pooled on several grids. A 1x1 convolution with batch normalization
    and ReLU follows on each grid. The results are interpolated linearly to the size of the map and
    concatenated with it. PFDet adds the module to the backbone (section 2.1). Here it is applied to
    C5, and the lateral convolution of the pyramid replaces PSPNet's final convolution.

    Args:
        in_channel (int): Channels of the map, a multiple of the number of grids.
        bins (sequence of int): Bins of each grid, by height and by width.
    """

    def __init__(self, in_channel: int, bins: Sequence[int] = (1, 2, 3, 6)):
        super().__init__()
        self.bins = tuple(bins)
        self.out_channel = 2 * in_channel
        with self.init_scope():
            self.convs = chainer.ChainList(
                *[Conv2DBNActiv(in_channel, in_channel // len(bins), 1) for _ in bins]
            )

    def forward(self, x: chainer.Variable | Array) -> chainer.Variable:
        """Concatenate the map and its pooled context.

        Args:
            x (variable or array): Feature map :math:`(N, C, H, W)`.

        Returns:
            chainer.Variable: Feature map :math:`(N, 2C, H, W)`.
        """
        N, C, H, W = x.shape
        rows = F.reshape(x, (N * C, H * W))
        hs = [x]
        for n_bin, conv in zip(self.bins, self.convs, strict=True):
            pool = np.kron(pooling_matrix(H, n_bin), pooling_matrix(W, n_bin))
            spread = np.kron(interpolation_matrix(n_bin, H), interpolation_matrix(n_bin, W))
            pool, spread = (self.xp.asarray(a, dtype=x.dtype) for a in (pool, spread))
            h = conv(F.reshape(F.linear(rows, pool), (N, C, n_bin, n_bin)))
            h = F.linear(F.reshape(h, (-1, n_bin * n_bin)), spread)
            hs.append(F.reshape(h, (N, -1, H, W)))
        return F.concat(hs, axis=1)


def pooling_matrix(size: int, n_bin: int) -> np.ndarray:
    """Compute the matrix that averages an axis over bins.

    Bin ``i`` extends from ``floor(i * size / n_bin)`` to ``ceil((i + 1) * size / n_bin)``. Bins
    overlap if the size is not a multiple of ``n_bin``. No bin is empty.

    Args:
        size (int): Length of the axis.
        n_bin (int): Number of bins.

    Returns:
        float64 array: Matrix ``(n_bin, size)``.
    """
    matrix = np.zeros((n_bin, size))
    for i in range(n_bin):
        begin, end = i * size // n_bin, -(-(i + 1) * size // n_bin)
        matrix[i, begin:end] = 1 / (end - begin)
    return matrix


def interpolation_matrix(n_bin: int, size: int) -> np.ndarray:
    """Compute the matrix that interpolates linearly from bin centres to the positions of an axis.

    Positions beyond the first or last centre take its value.

    Args:
        n_bin (int): Number of bins.
        size (int): Length of the axis.

    Returns:
        float64 array: Matrix ``(size, n_bin)``.
    """
    coordinate = np.clip((np.arange(size) + 0.5) * n_bin / size - 0.5, 0, n_bin - 1)
    low = np.minimum(coordinate.astype(int), max(n_bin - 2, 0))
    matrix = np.zeros((size, n_bin))
    matrix[np.arange(size), low] += 1 - (coordinate - low)
    matrix[np.arange(size), np.minimum(low + 1, n_bin - 1)] += coordinate - low
    return matrix
