"""RoIAlign, on the CPU as a sparse matrix product."""

from collections.abc import Sequence

import chainer
import chainer.functions as F
import numpy as np
from chainer.backends import cuda

from pfdet.boxes.arrays import Array
from pfdet.cpu.sparse_rows import SparseRows


class PyramidROIAlign(chainer.FunctionNode):
    """Average RoIAlign on NumPy arrays, with a feature map per box.

    Every output bin is a fixed weighted sum of at most ``4 * ratio**2`` positions of one feature
    map. The weights of a map form a sparse matrix ``(R * outh * outw, N * H * W)``. The forward
    pass multiplies it with the map as ``(N * H * W, C)``. The backward pass multiplies its
    transpose with the gradient. The boxes get no gradient.

    Args:
        rois, roi_indices, level, outsize, spatial_scales, sampling_ratio: As in
            :func:`pyramid_roi_align`.
    """

    def __init__(
        self,
        rois: Array,
        roi_indices: Array,
        level: Array,
        outsize: tuple[int, int],
        spatial_scales: Sequence[float],
        sampling_ratio: tuple[int, int],
    ):
        self.rois = rois
        self.roi_indices = roi_indices
        self.level = level
        self.outsize = outsize
        self.spatial_scales = spatial_scales
        self.sampling_ratio = sampling_ratio

    def forward_cpu(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Pool each box from its feature map."""
        C, dtype = inputs[0].shape[1], inputs[0].dtype
        y = np.empty((len(self.rois), *self.outsize, C), dtype)
        # Box indices, weights and shape of each map.
        self.maps: list[tuple] = []
        for i, (x, scale) in enumerate(zip(inputs, self.spatial_scales)):
            N, _, H, W = x.shape
            index = np.flatnonzero(self.level == i)
            weights = _sampling_matrix(
                self.rois[index],
                self.roi_indices[index],
                (N, H, W),
                self.outsize,
                scale,
                self.sampling_ratio,
                dtype,
            )
            features = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(N * H * W, C)
            y[index] = weights.product(features).reshape(-1, *self.outsize, C)
            self.maps.append((index, weights, x.shape))
        return (y.transpose(0, 3, 1, 2),)

    def backward(
        self, indexes: tuple[int, ...], grad_outputs: tuple[chainer.Variable, ...]
    ) -> tuple[chainer.Variable, ...]:
        """Return the gradients of the feature maps."""
        return PyramidROIAlignGrad(self.maps).apply(grad_outputs)


class PyramidROIAlignGrad(chainer.FunctionNode):
    """Gradient of :class:`PyramidROIAlign`; not differentiable.

    Args:
        maps (list of tuples): Box indices, sparse weights and shape of each feature map.
    """

    def __init__(self, maps: list[tuple]):
        self.maps = maps

    def forward_cpu(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Multiply the transposed weights of each map with the gradient of the output."""
        gy = inputs[0].transpose(0, 2, 3, 1)
        gxs = []
        for index, weights, (N, C, H, W) in self.maps:
            gx = weights.transposed_product(gy[index].reshape(-1, C))
            gxs.append(gx.reshape(N, H, W, C).transpose(0, 3, 1, 2))
        return tuple(gxs)


def roi_average_align_2d(
    x: chainer.Variable | Array,
    rois: Array,
    roi_indices: Array,
    outsize: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int | tuple[int, int] = 2,
) -> chainer.Variable:
    """Average RoIAlign (He et al., Mask R-CNN, section 3).

    On the GPU this is :func:`chainer.functions.roi_average_align_2d`, computed in float32. On the
    CPU one sparse matrix product replaces Chainer's Python loop and gives the same result.

    Args:
        x (variable or array): Feature maps :math:`(N, C, H, W)`.
        rois (array): Boxes :math:`(R, 4)`, ``(y_min, x_min, y_max, x_max)`` in pixels of the
            network's input.
        roi_indices (int32 array): Image index of each box, :math:`(R,)`.
        outsize (int or pair of int): Number of bins by height and width.
        spatial_scale (float): Feature map positions per pixel, for example 1 / 4.
        sampling_ratio (int or pair of int): Samples per bin by height and width.

    Returns:
        chainer.Variable: Features :math:`(R, C, outh, outw)`.
    """
    if cuda.get_array_module(x) is not np:
        return _on_gpu(x, rois, roi_indices, outsize, spatial_scale, sampling_ratio)
    level = np.zeros(len(rois), np.int32)
    return pyramid_roi_align(
        [x], rois, roi_indices, level, outsize, [spatial_scale], sampling_ratio
    )


def pyramid_roi_align(
    xs: Sequence,
    rois: Array,
    roi_indices: Array,
    level: Array,
    outsize: int | tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int | tuple[int, int] = 2,
) -> chainer.Variable:
    """Average RoIAlign over a feature pyramid, with a level per box.

    Args:
        xs (sequence of variables or arrays): Feature maps of the levels,
            :math:`(N, C, H_l, W_l)`.
        rois, roi_indices, outsize, sampling_ratio: As in :func:`roi_average_align_2d`.
        level (int array): Index in ``xs`` for each box, :math:`(R,)`.
        spatial_scales (sequence of float): Feature map positions per pixel, by level.

    Returns:
        chainer.Variable: Features :math:`(R, C, outh, outw)` in the order of ``rois``.
    """
    xp = cuda.get_array_module(rois)
    if xs[0].dtype == np.float16 and xp is np:
        # Averages are computed in float32, as on the GPU.
        average = pyramid_roi_align(
            [F.cast(x, np.float32) for x in xs],
            rois,
            roi_indices,
            level,
            outsize,
            spatial_scales,
            sampling_ratio,
        )
        return F.cast(average, np.float16)
    if xp is np:
        node = PyramidROIAlign(
            rois, roi_indices, level, _pair(outsize), tuple(spatial_scales), _pair(sampling_ratio)
        )
        return node.apply(xs)[0]
    # Only the number of boxes per level is copied to the host.
    order = xp.argsort(level)
    n_each = (level[:, None] == xp.arange(len(xs))).sum(axis=0)
    ends = np.cumsum(cuda.to_cpu(n_each)).tolist()
    pooled = [
        _on_gpu(x, rois[index], roi_indices[index], outsize, scale, sampling_ratio)
        for x, scale, index in zip(
            xs, spatial_scales, (order[b:e] for b, e in zip([0, *ends], ends))
        )
        if len(index)
    ]
    if len(pooled) == 1:
        # With a single level, the stable sort has kept the order.
        return pooled[0]
    return F.concat(pooled, axis=0)[xp.argsort(order)]


def _on_gpu(
    x: chainer.Variable | Array,
    rois: Array,
    roi_indices: Array,
    outsize: int | tuple[int, int],
    scale: float,
    sampling_ratio: int | tuple[int, int],
) -> chainer.Variable:
    # Chainer's kernel supports float32 only.
    y = F.roi_average_align_2d(
        F.cast(x, np.float32),
        rois.astype(np.float32, copy=False),
        roi_indices,
        outsize,
        scale,
        sampling_ratio,
    )
    return F.cast(y, x.dtype)


def _pair(n: int | tuple[int, int]) -> tuple[int, int]:
    return (n[0], n[1]) if isinstance(n, Sequence) else (n, n)


def _sampling_matrix(
    rois: np.ndarray,
    roi_indices: np.ndarray,
    shape: tuple[int, int, int],
    outsize: tuple[int, int],
    scale: float,
    ratio: tuple[int, int],
    dtype: np.dtype,
) -> SparseRows:
    """Compute the sparse weights ``(R * outh * outw, N * H * W)``."""
    N, H, W = shape
    rows, row_weights = _axis_samples(rois[:, 0], rois[:, 2], H, outsize[0], scale, ratio[0])
    cols, col_weights = _axis_samples(rois[:, 1], rois[:, 3], W, outsize[1], scale, ratio[1])
    start = roi_indices.astype(np.int64) * (H * W)
    # axes: RoI, bin row, bin column, sample row, sample column
    index = (
        start[:, None, None, None, None] + rows[:, :, None, :, None] * W + cols[:, None, :, None, :]
    )
    weight = row_weights[:, :, None, :, None] * col_weights[:, None, :, None, :]
    n_sample = index.shape[3] * index.shape[4]
    n_bin = len(rois) * outsize[0] * outsize[1]
    index_type = np.int32 if N * H * W < 2**31 else np.int64
    return SparseRows(
        weight.astype(dtype).reshape(n_bin, n_sample),
        index.astype(index_type).reshape(n_bin, n_sample),
        N * H * W,
    )


def _axis_samples(
    low: np.ndarray, high: np.ndarray, limit: int, n_bin: int, scale: float, ratio: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute positions and weights along one axis, ``(R, n_bin, 2 * ratio)`` each.

    Linear interpolation at ``ratio`` samples per bin. As in Chainer, a sample up to one position
    outside the map takes the value at the border, and a sample further out is zero.
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
