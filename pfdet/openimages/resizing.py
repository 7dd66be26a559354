"""Resize images to the input size of the network."""

import numpy as np


def resized_size(size: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """Return the size whose shorter edge is ``min_size``, or whose longer edge is ``max_size``.

    The smaller of the two sizes is returned. The aspect ratio is kept.

    Args:
        size (pair of int): Height and width in pixels.
        min_size (int): Length of the shorter edge in pixels.
        max_size (int): Maximum length of the longer edge in pixels.

    Returns:
        pair of int: Height and width in pixels.
    """
    scale = min(min_size / min(size), max_size / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(img: np.ndarray, min_size: int, max_size: int) -> np.ndarray:
    """Resize an image to the size of :func:`resized_size`.

    Args:
        img (array): uint8 :math:`(H, W, 3)`.
        min_size (int): Length of the shorter edge in pixels.
        max_size (int): Maximum length of the longer edge in pixels.

    Returns:
        array: uint8 :math:`(H', W', 3)`.
    """
    return resize_to(img, resized_size(img.shape[:2], min_size, max_size))


def resize_to(img: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image to a given size.

    Args:
        img (array): uint8 :math:`(H, W, 3)`.
        size (pair of int): :math:`(H', W')` in pixels.

    Returns:
        array: uint8 :math:`(H', W', 3)`.
    """
    # Imported here because a dry run computes sizes only.
    import cv2

    H, W = size
    # Area averaging keeps thin structures when shrinking. It does not suit enlarging.
    shrinks = H <= img.shape[0] and W <= img.shape[1]
    return cv2.resize(img, (W, H), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
