"""Test-time augmentation with several image sizes and horizontal flips.

PFDet, section 3: "we augmented outputs at the test-time by concatenating outputs from inputs of
multiple scales with and without horizontal flip".
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pfdet.errors import NotFiniteError


def flip_bbox(bbox: np.ndarray) -> np.ndarray:
    """Flip boxes horizontally.

    Args:
        bbox (array): Boxes :math:`(..., 4)`, ``(y_min, x_min, y_max, x_max)`` in [0, 1].

    Returns:
        array: Flipped boxes :math:`(..., 4)`.
    """
    flipped = bbox.copy()
    flipped[..., 1] = 1 - bbox[..., 3]
    flipped[..., 3] = 1 - bbox[..., 1]
    return flipped


def augmented_outputs(
    detector: Any,
    imgs: Sequence[Sequence[np.ndarray | None]],
    flip: bool,
    score_thresh: float = 0.0,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Run a detector on several sizes of each image and concatenate the outputs.

    Args:
        detector (FasterRCNN): The network.
        imgs (sequence of sequences of arrays): For each image its resized versions, RGB,
            :math:`(3, H, W)`, in [0, 255]. :obj:`None` for a version that equals an earlier one of
            the image, so that no output counts twice.
        flip (bool): Also run the detector on the horizontally flipped images.
        score_thresh (float): Outputs below this score are not needed and may be wrong.

    Returns:
        list of pairs of arrays: For each image, boxes :math:`(K, B, 4)` in [0, 1] and scores
        :math:`(K, C)`, as returned by :meth:`~pfdet.links.faster_rcnn.FasterRCNN.predict`. The
        order is first size, first size flipped, second size, and so on.

    Raises:
        NotFiniteError: A proposal, box or score of an image is not finite.
    """
    bboxes: list[list[np.ndarray]] = [[] for _ in imgs]
    scores: list[list[np.ndarray]] = [[] for _ in imgs]
    for same_size in zip(*imgs, strict=True):
        present = [k for k, img in enumerate(same_size) if img is not None]
        batch = [img for img in same_size if img is not None]
        if not batch:
            continue
        for k, bbox, score in _predict(detector, batch, present, score_thresh):
            bboxes[k].append(bbox)
            scores[k].append(score)
        if flip:
            flipped = [img[:, :, ::-1] for img in batch]
            for k, bbox, score in _predict(detector, flipped, present, score_thresh):
                bboxes[k].append(flip_bbox(bbox))
                scores[k].append(score)
    return [
        (np.concatenate(image_bbox), np.concatenate(image_score))
        for image_bbox, image_score in zip(bboxes, scores, strict=True)
    ]


def _predict(
    detector: Any, batch: Sequence[np.ndarray], images: Sequence[int], score_thresh: float
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The outputs for a batch of the images at these positions, with the positions."""
    try:
        outputs = detector.predict(batch, score_thresh)
    except NotFiniteError as e:
        raise NotFiniteError(e.what, images[e.image]) from e
    for k, (bbox, score) in zip(images, outputs, strict=True):
        for what, array in ('scores', score), ('boxes', bbox):
            if not np.isfinite(array).all():
                raise NotFiniteError(what, k)
        yield k, bbox, score
