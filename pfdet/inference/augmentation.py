"""Test-time augmentation: the outputs for several sizes of an image, and for its mirror image.

PFDet, section 3: "we augmented outputs at the test-time by concatenating outputs from inputs of
multiple scales with and without horizontal flip".
"""

from collections.abc import Sequence

import numpy as np


def flip_bbox(bbox: np.ndarray) -> np.ndarray:
    """Boxes of a mirror image as boxes of the image, and the other way round.

    Args:
        bbox (array): :math:`(..., 4)`, ``(y_min, x_min, y_max, x_max)`` in [0, 1].

    Returns:
        array: Of the same shape.
    """
    flipped = bbox.copy()
    flipped[..., 1] = 1 - bbox[..., 3]
    flipped[..., 3] = 1 - bbox[..., 1]
    return flipped


def augmented_outputs(
    detector, imgs: Sequence[Sequence[np.ndarray]], flip: bool, score_thresh: float = 0.0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A detector's outputs for images in several sizes, concatenated.

    Args:
        detector (FasterRCNN): The network.
        imgs (sequence of sequences of arrays): For each image its sizes, each an RGB image
            :math:`(3, H, W)` in [0, 255].
        flip (bool): Look at the mirror images, too.
        score_thresh (float): Boxes of lower scores are of no interest, and may be anything.

    Returns:
        list of pairs of arrays: For each image boxes :math:`(K, B, 4)` in [0, 1] and scores
        :math:`(K, C)`, as :meth:`~pfdet.links.faster_rcnn.FasterRCNN.predict` returns them: those
        of the first size, then of its mirror image, then of the next size.
    """
    found = [[] for _ in imgs]
    for alike in zip(*imgs, strict=True):
        outputs = detector.predict(list(alike), score_thresh)
        for output, of_image in zip(outputs, found, strict=True):
            of_image.append(output)
        if flip:
            outputs = detector.predict([img[:, :, ::-1] for img in alike], score_thresh)
            for (bbox, score), of_image in zip(outputs, found, strict=True):
                of_image.append((flip_bbox(bbox), score))
    return [tuple(map(np.concatenate, zip(*of_image, strict=True))) for of_image in found]
