"""The size at which the network sees an image."""

import numpy as np


def resized_size(size: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """The size that makes the shorter edge ``min_size``, or the longer one ``max_size`` if less.

    Args:
        size (pair of int): Height and width in pixels.
        min_size, max_size (int): Pixels.

    Returns:
        pair of int: Height and width in pixels.
    """
    scale = min(min_size / min(size), max_size / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(img: np.ndarray, min_size: int, max_size: int) -> np.ndarray:
    """Resize an image as :func:`resized_size` says.

    Args:
        img (uint8 array): :math:`(H, W, 3)`.
        min_size, max_size (int): Pixels.

    Returns:
        uint8 array: :math:`(H', W', 3)`.
    """
    return resize_to(img, resized_size(img.shape[:2], min_size, max_size))


def resize_to(img: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image to a height and a width.

    Args:
        img (uint8 array): :math:`(H, W, 3)`.
        size (pair of int): :math:`(H', W')`.

    Returns:
        uint8 array: :math:`(H', W', 3)`.
    """
    # Only here: a dry run asks for sizes alone.
    import cv2

    H, W = size
    # Averaging over areas keeps thin things when shrinking, and is meant for nothing else.
    shrinks = H <= img.shape[0] and W <= img.shape[1]
    return cv2.resize(img, (W, H), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
