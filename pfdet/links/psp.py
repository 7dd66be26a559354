"""Pyramid spatial pooling of a feature map of any size."""

from collections.abc import Sequence

import chainer
import chainer.functions as F
import numpy as np
from chainercv.links import Conv2DBNActiv


class PyramidSpatialPooling(chainer.Chain):
    """Context from the whole image beside every place (Zhao et al., PSPNet, section 3.2).

    The map is averaged over grids of a few bins; each grid's averages go through a 1x1 convolution
    with batch normalization and ReLU, are interpolated back to the map's size, and are put beside
    the map. PFDet, section 2.1, adds it to the backbone: here on C5, before its lateral
    connection, whose 1x1 convolution then takes the part of PSPNet's final one.

    Args:
        in_channel (int): Channels of the map; a multiple of the number of grids.
        bins (sequence of int): Bins by height and by width of each grid.
    """

    def __init__(self, in_channel: int, bins: Sequence[int] = (1, 2, 3, 6)):
        super().__init__()
        self.bins = tuple(bins)
        self.out_channel = 2 * in_channel
        with self.init_scope():
            self.convs = chainer.ChainList(
                *[Conv2DBNActiv(in_channel, in_channel // len(bins), 1) for _ in bins]
            )

    def forward(self, x) -> chainer.Variable:
        """The map with its context.

        Args:
            x (variable): :math:`(N, C, H, W)`.

        Returns:
            chainer.Variable: :math:`(N, 2C, H, W)`.
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
    """Averages over bins of an axis, ``(n_bin, size)``.

    Bin ``i`` reaches from ``floor(i * size / n_bin)`` to ``ceil((i + 1) * size / n_bin)``, so that
    bins overlap where the size is not a multiple, and none is empty.
    """
    matrix = np.zeros((n_bin, size))
    for i in range(n_bin):
        begin, end = i * size // n_bin, -(-(i + 1) * size // n_bin)
        matrix[i, begin:end] = 1 / (end - begin)
    return matrix


def interpolation_matrix(n_bin: int, size: int) -> np.ndarray:
    """Linear interpolation of bins' centres to the places of an axis, ``(size, n_bin)``.

    Beyond the first and last centre their value holds.
    """
    at = np.clip((np.arange(size) + 0.5) * n_bin / size - 0.5, 0, n_bin - 1)
    low = np.minimum(at.astype(int), max(n_bin - 2, 0))
    matrix = np.zeros((size, n_bin))
    matrix[np.arange(size), low] += 1 - (at - low)
    matrix[np.arange(size), np.minimum(low + 1, n_bin - 1)] += at - low
    return matrix
