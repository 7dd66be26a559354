"""Overlap of boxes: intersection, intersection over union (IoU) and over area (IoA).

``matched_*`` functions compare boxes row by row. ``pairwise_*`` functions compare every box of one
array with every box of another. Boxes are ``(y_min, x_min, y_max, x_max)`` in any unit, in NumPy or
CuPy arrays. The overlap is 0 for boxes that do not intersect and for boxes without area.
"""

from pfdet.boxes.arrays import Array, array_module


def area(bbox: Array) -> Array:
    """Compute the areas of boxes.

    Args:
        bbox (array): Boxes :math:`(..., 4)`.

    Returns:
        array: Areas :math:`(...)`; 0 where a maximum is below its minimum.
    """
    xp = array_module(bbox)
    return xp.maximum(bbox[..., 2] - bbox[..., 0], 0) * xp.maximum(bbox[..., 3] - bbox[..., 1], 0)


def matched_intersection(a: Array, b: Array) -> Array:
    """Compute the areas of intersection row by row.

    Args:
        a, b (array): Boxes :math:`(..., 4)`, broadcast against each other.

    Returns:
        array: Areas :math:`(...)`.
    """
    xp = array_module(a)
    height = xp.minimum(a[..., 2], b[..., 2]) - xp.maximum(a[..., 0], b[..., 0])
    width = xp.minimum(a[..., 3], b[..., 3]) - xp.maximum(a[..., 1], b[..., 1])
    return xp.maximum(height, 0) * xp.maximum(width, 0)


def matched_iou(a: Array, b: Array) -> Array:
    """Compute the IoU row by row.

    Args:
        a, b (array): Boxes :math:`(..., 4)`, broadcast against each other.

    Returns:
        array: IoU :math:`(...)`.
    """
    inter = matched_intersection(a, b)
    union = area(a) + area(b) - inter
    return inter / (union + (union == 0))


def matched_ioa(a: Array, b: Array) -> Array:
    """Compute the fraction of the area of ``a`` that lies in ``b``, row by row.

    Args:
        a, b (array): Boxes :math:`(..., 4)`, broadcast against each other.

    Returns:
        array: IoA :math:`(...)`.
    """
    size = area(a)
    return matched_intersection(a, b) / (size + (size == 0))


def pairwise_iou(a: Array, b: Array) -> Array:
    """Compute the IoU of all pairs.

    Args:
        a (array): Boxes :math:`(..., K, 4)`.
        b (array): Boxes :math:`(..., G, 4)`.

    Returns:
        array: IoU :math:`(..., K, G)`.
    """
    return matched_iou(a[..., :, None, :], b[..., None, :, :])


def pairwise_ioa(a: Array, b: Array) -> Array:
    """Compute the fraction of the area of each ``a`` that lies in each ``b``.

    Args:
        a (array): Boxes :math:`(..., K, 4)`.
        b (array): Boxes :math:`(..., G, 4)`.

    Returns:
        array: IoA :math:`(..., K, G)`.
    """
    return matched_ioa(a[..., :, None, :], b[..., None, :, :])
