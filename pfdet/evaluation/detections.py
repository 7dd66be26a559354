"""Detections as columns, and their files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Detections:
    """Detections in a set of images.

    Attributes:
        image_ids (sequence of str): Every image predicted, each once, also those without a
            detection.
        image (int32, :math:`(D,)`): Index into ``image_ids``.
        label (int32, :math:`(D,)`): Class.
        score (float32, :math:`(D,)`): Higher is surer.
        bbox (float32, :math:`(D, 4)`): ``(y_min, x_min, y_max, x_max)`` in [0, 1].
    """

    image_ids: Sequence[str]
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    bbox: np.ndarray

    def __len__(self) -> int:
        return len(self.image)
