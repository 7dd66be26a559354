"""Encoding of boxes as offsets from base boxes, and decoding, on NumPy and CuPy arrays."""

import numpy as np
from chainer.backends import cuda

from pfdet.boxes.arrays import Array

# A box is at most 1000 pixels wide for an anchor of 16 pixels, as in Detectron.
MAX_LOG_SCALE = float(np.log(1000 / 16))


def encode(bbox: Array, base: Array, std: tuple[float, float] = (1.0, 1.0)) -> Array:
    """Encode boxes as offsets from base boxes (Girshick et al., R-CNN, appendix C).

    Args:
        bbox (array): Boxes :math:`(..., 4)`, ``(y_min, x_min, y_max, x_max)``.
        base (array): Base boxes :math:`(..., 4)` with positive height and width.
        std (pair of float): Divisors of the centre offsets and of the size offsets.

    Returns:
        array: Offsets :math:`(..., 4)`, ``(d_y, d_x, log d_height, log d_width)``.
    """
    xp = cuda.get_array_module(bbox)
    base_size = base[..., 2:] - base[..., :2]
    size = bbox[..., 2:] - bbox[..., :2]
    shift = (bbox[..., :2] + bbox[..., 2:] - base[..., :2] - base[..., 2:]) / 2
    return xp.concatenate([shift / base_size / std[0], xp.log(size / base_size) / std[1]], axis=-1)


def decode(offset: Array, base: Array, std: tuple[float, float] = (1.0, 1.0)) -> Array:
    """Decode offsets to boxes, the inverse of :func:`encode`.

    Height and width grow by at most a factor of ``exp(MAX_LOG_SCALE)``.

    Args:
        offset (array): Offsets :math:`(..., 4)`.
        base (array): Base boxes :math:`(..., 4)`, broadcast against ``offset``.
        std (pair of float): As in :func:`encode`.

    Returns:
        array: Boxes :math:`(..., 4)`.
    """
    xp = cuda.get_array_module(offset)
    bbox = xp.empty(
        np.broadcast_shapes(offset.shape, base.shape), np.result_type(offset.dtype, base.dtype)
    )
    # One axis at a time: several times faster in NumPy than operations along an axis of length 2.
    for low, high in (0, 2), (1, 3):
        base_size = base[..., high] - base[..., low]
        centre = offset[..., low] * std[0] * base_size + (base[..., low] + base[..., high]) / 2
        half = xp.exp(xp.minimum(offset[..., high] * std[1], MAX_LOG_SCALE)) * (base_size / 2)
        xp.subtract(centre, half, out=bbox[..., low])
        xp.add(centre, half, out=bbox[..., high])
    return bbox


def clip(bbox: Array, size: Array | tuple[float, float]) -> Array:
    """Clip boxes to the image.

    Args:
        bbox (array): Boxes :math:`(..., 4)` in pixels.
        size (array): Height and width of the image, :math:`(2,)` or broadcastable to
            :math:`(..., 2)`.

    Returns:
        array: Clipped boxes :math:`(..., 4)`.
    """
    xp = cuda.get_array_module(bbox)
    size = xp.asarray(size, dtype=bbox.dtype)
    clipped = xp.empty_like(bbox)
    for k in range(4):
        xp.minimum(xp.maximum(bbox[..., k], 0), size[..., k % 2], out=clipped[..., k])
    return clipped
