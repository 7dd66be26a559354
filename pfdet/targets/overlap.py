"""Overlaps of all boxes with all ground truth boxes, on NumPy and CuPy arrays."""

from chainer.backends import cuda


def area(bbox):
    """Areas of boxes :math:`(..., 4)`, zero where turned inside out."""
    xp = cuda.get_array_module(bbox)
    return xp.maximum(bbox[..., 2:] - bbox[..., :2], 0).prod(axis=-1)


def intersection(a, b):
    """Areas of intersection.

    Args:
        a (array): Boxes :math:`(..., K, 4)`.
        b (array): Boxes :math:`(..., G, 4)`.

    Returns:
        array: :math:`(..., K, G)`.
    """
    xp = cuda.get_array_module(a)
    a, b = a[..., :, None, :], b[..., None, :, :]
    height = xp.minimum(a[..., 2], b[..., 2]) - xp.maximum(a[..., 0], b[..., 0])
    width = xp.minimum(a[..., 3], b[..., 3]) - xp.maximum(a[..., 1], b[..., 1])
    return xp.maximum(height, 0) * xp.maximum(width, 0)


def iou(a, b):
    """Intersection over union, arguments and result as :func:`intersection`."""
    inter = intersection(a, b)
    union = area(a)[..., :, None] + area(b)[..., None, :] - inter
    return inter / (union + (union == 0))


def inside(a, b):
    """The share of the area of each ``a`` that lies in each ``b``, as :func:`intersection`."""
    size = area(a)[..., :, None]
    return intersection(a, b) / (size + (size == 0))
