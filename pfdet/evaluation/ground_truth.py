"""What detections are scored against: boxes and verified classes, expanded over the hierarchy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class GroundTruth:
    """Annotations of a set of images, as the challenge's metric takes them.

    Attributes:
        image_ids (sequence of str): The :math:`I` images, each once.
        image (int32, :math:`(G,)`): Index into ``image_ids`` of each box.
        label (int32, :math:`(G,)`): Class of each box. An object of several classes, its
            ancestors among them, is one box per class.
        bbox (float32, :math:`(G, 4)`): ``(y_min, x_min, y_max, x_max)`` in [0, 1].
        group_of (bool, :math:`(G,)`): Whether a box surrounds a group of objects.
        verified (bool, :math:`(I, C)`): Whether an image has a label of a class at image
            level, positive or negative. Detections of other classes are not judged, unless
            there is a box of the class.
    """

    image_ids: Sequence[str]
    image: np.ndarray
    label: np.ndarray
    bbox: np.ndarray
    group_of: np.ndarray
    verified: np.ndarray
