"""RoIAlign whose CPU path is one sparse matrix product."""

import chainer
import numpy as np
from chainer.backends import cuda


class ROIAverageAlign2D(chainer.FunctionNode):
    """Average RoIAlign on NumPy arrays.

    Every output bin is a fixed weighted sum of at most ``4 * ratio**2`` places of one feature map.
    The weights make a sparse matrix ``(R * outh * outw, N * H * W)``: the forward pass multiplies
    it with the feature map as ``(N * H * W, C)``, the backward pass multiplies its transpose with
    the gradient. No gradient goes to the boxes.
    """

    def __init__(self, outsize: tuple[int, int], spatial_scale: float,
                 sampling_ratio: tuple[int, int]):
        self.outsize = outsize
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward_cpu(self, inputs):
        x, rois, roi_indices = inputs
        N, C, H, W = self._x_shape = x.shape
        self._weights = _sampling_matrix(
            rois, roi_indices, (N, H, W), self.outsize, self.spatial_scale, self.sampling_ratio,
            x.dtype)
        places = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(N * H * W, C)
        y = (self._weights @ places).reshape(len(rois), *self.outsize, C)
        return y.transpose(0, 3, 1, 2),

    def backward(self, indexes, grad_outputs):
        gradient = ROIAverageAlign2DGrad(self._weights, self._x_shape)
        return gradient.apply(grad_outputs)[0], None, None


class ROIAverageAlign2DGrad(chainer.FunctionNode):
    """The transposed product of :class:`ROIAverageAlign2D`; not itself differentiable."""

    def __init__(self, weights, x_shape: tuple[int, ...]):
        self._weights = weights
        self._x_shape = x_shape

    def forward_cpu(self, inputs):
        gy, = inputs
        N, C, H, W = self._x_shape
        gy = np.ascontiguousarray(gy.transpose(0, 2, 3, 1)).reshape(-1, C)
        gx = (self._weights.T @ gy).reshape(N, H, W, C)
        return gx.transpose(0, 3, 1, 2),


def roi_average_align_2d(x, rois, roi_indices, outsize: int | tuple[int, int],
                         spatial_scale: float, sampling_ratio: int | tuple[int, int] = 2):
    """Average RoIAlign (He et al., Mask R-CNN, section 3).

    On the GPU this is :func:`chainer.functions.roi_average_align_2d`; on the CPU it computes the
    same from one sparse product instead of Chainer's Python loop.

    Args:
        x (variable or array): Feature maps, :math:`(N, C, H, W)`.
        rois (array): Boxes :math:`(R, 4)` as ``(y_min, x_min, y_max, x_max)`` in pixels of the
            network's input.
        roi_indices (array of int32): The image of each box, :math:`(R,)`.
        outsize (int or pair of int): Bins by height and width.
        spatial_scale (float): Feature map places per pixel, for example 1 / 4.
        sampling_ratio (int or pair of int): Samples in a bin by height and width.

    Returns:
        chainer.Variable: :math:`(R, C, outh, outw)`.
    """
    if cuda.get_array_module(x) is not np:
        return chainer.functions.roi_average_align_2d(
            x, rois, roi_indices, outsize, spatial_scale, sampling_ratio)
    node = ROIAverageAlign2D(_pair(outsize), float(spatial_scale), _pair(sampling_ratio))
    return node.apply((x, rois, roi_indices))[0]


def _pair(n: int | tuple[int, int]) -> tuple[int, int]:
    return (n, n) if np.isscalar(n) else tuple(n)


def _sampling_matrix(rois, roi_indices, shape, outsize, scale, ratio, dtype):
    """The sparse weights ``(R * outh * outw, N * H * W)``."""
    # SciPy's sparse matrices are a tenth of a second to import, so only where they are used.
    from scipy.sparse import csr_matrix

    N, H, W = shape
    rows, row_weights = _axis_samples(rois[:, 0], rois[:, 2], H, outsize[0], scale, ratio[0])
    cols, col_weights = _axis_samples(rois[:, 1], rois[:, 3], W, outsize[1], scale, ratio[1])
    start = roi_indices.astype(np.int64) * (H * W)
    # axes: RoI, bin row, bin column, sample row, sample column
    index = (start[:, None, None, None, None] + rows[:, :, None, :, None] * W
             + cols[:, None, :, None, :])
    weight = row_weights[:, :, None, :, None] * col_weights[:, None, :, None, :]
    n_sample = index.shape[3] * index.shape[4]
    n_bin = len(rois) * outsize[0] * outsize[1]
    index_type = np.int32 if N * H * W < 2 ** 31 else np.int64
    return csr_matrix(
        (weight.astype(dtype).ravel(), index.astype(index_type).ravel(),
         np.arange(0, n_bin * n_sample + 1, n_sample, dtype=index_type)),
        shape=(n_bin, N * H * W))


def _axis_samples(low, high, limit: int, n_bin: int, scale: float, ratio: int):
    """Places and weights along one axis, ``(R, n_bin, 2 * ratio)`` each.

    Bilinear interpolation of ``ratio`` samples a bin, with Chainer's rules at the border: a sample
    up to one place outside takes the border's value, one further out counts as zero.
    """
    dtype = low.dtype.type
    low = low * dtype(scale)
    size = np.maximum(high * dtype(scale) - low, dtype(1))
    steps = np.arange(n_bin * ratio, dtype=dtype).reshape(n_bin, ratio) + dtype(0.5)
    p = low[:, None, None] + steps * (size / dtype(n_bin * ratio))[:, None, None]
    inside = (p >= -1) & (p <= limit)
    p = np.clip(p, 0, limit - 1)
    before = np.minimum(np.floor(p).astype(np.int64), max(limit - 2, 0))
    after = np.minimum(before + 1, limit - 1)
    fraction = p - before
    weight = np.concatenate([1 - fraction, fraction], axis=2) * np.tile(inside, 2) / ratio
    return np.concatenate([before, after], axis=2), weight
