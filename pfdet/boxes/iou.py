"""Overlap of boxes: intersection, intersection over union (IoU) and over area (IoA).

Functions that begin with ``matched`` compare boxes row by row, those that begin with ``pairwise``
every box of one array with every box of another. Boxes are ``(y_min, x_min, y_max, x_max)`` in any
unit, in NumPy or CuPy arrays. Boxes that do not overlap, and boxes without area, have overlap 0.
"""

from pfdet.boxes.pairs import array_module


def area(bbox):
    """Areas of boxes :math:`(..., 4)`; 0 where a maximum is below its minimum."""
    xp = array_module(bbox)
    return xp.maximum(bbox[..., 2] - bbox[..., 0], 0) * xp.maximum(bbox[..., 3] - bbox[..., 1], 0)


def matched_intersection(a, b):
    """Areas of intersection of boxes row by row.

    Args:
        a, b (array): Boxes :math:`(..., 4)`, broadcast against each other.

    Returns:
        array: :math:`(...)`.
    """
    xp = array_module(a)
    height = xp.minimum(a[..., 2], b[..., 2]) - xp.maximum(a[..., 0], b[..., 0])
    width = xp.minimum(a[..., 3], b[..., 3]) - xp.maximum(a[..., 1], b[..., 1])
    return xp.maximum(height, 0) * xp.maximum(width, 0)


def matched_iou(a, b):
    """Intersection over union row by row, as :func:`matched_intersection`."""
    inter = matched_intersection(a, b)
    union = area(a) + area(b) - inter
    return inter / (union + (union == 0))


def matched_ioa(a, b):
    """The share of the area of ``a`` that lies in ``b``, as :func:`matched_intersection`."""
    size = area(a)
    return matched_intersection(a, b) / (size + (size == 0))


def pairwise_iou(a, b):
    """Intersection over union of all pairs.

    Args:
        a (array): Boxes :math:`(..., K, 4)`.
        b (array): Boxes :math:`(..., G, 4)`.

    Returns:
        array: :math:`(..., K, G)`.
    """
    return matched_iou(a[..., :, None, :], b[..., None, :, :])


def pairwise_ioa(a, b):
    """The share of the area of each ``a`` that lies in each ``b``, as :func:`pairwise_iou`."""
    return matched_ioa(a[..., :, None, :], b[..., None, :, :])
