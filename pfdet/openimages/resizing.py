"""The size at which the network sees an image."""

import cv2
import numpy as np


def resize(img: np.ndarray, min_size: int, max_size: int) -> tuple[np.ndarray, float]:
    """Resize so that the shorter edge is ``min_size``, or the longer one ``max_size`` if less.

    Args:
        img (uint8 array): :math:`(H, W, 3)`.
        min_size, max_size (int): Pixels.

    Returns:
        tuple: uint8 :math:`(H', W', 3)`, and the scale from old to new coordinates.
    """
    H, W = img.shape[:2]
    scale = min(min_size / min(H, W), max_size / max(H, W))
    size = max(1, round(W * scale)), max(1, round(H * scale))
    # Averaging over areas keeps thin things when shrinking, and is meant for nothing else.
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(img, size, interpolation=how), scale
