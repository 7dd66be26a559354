"""How well anchors fit the boxes of a data set.

The RPN learns an object from the anchors whose IoU with it is high enough. An object that no anchor
fits is learned from its best anchor only. So a data set of much smaller or longer boxes than those
of Open Images needs other anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.resizing import resized_size

#: Sizes that are compared, in pixels: factors of about the square root of 2.
SIZES = (4, 6, 8, 11, 16, 23, 32, 45, 64)
#: Aspect ratios that are compared: those at the start and at the end of PFDet's Table 1.
RATIOS = ((1 / 2, 1.0, 2.0), (1 / 3, 1 / 2, 1.0, 2.0, 3.0))


@dataclass(frozen=True)
class Objects:
    """Objects as the network sees them in training.

    Attributes:
        bbox (array): Boxes :math:`(R, 4)` in pixels of the resized images.
        size (array): Height and width :math:`(R, 2)` of their resized images.
    """

    bbox: np.ndarray
    size: np.ndarray


@dataclass(frozen=True)
class Coverage:
    """How well anchors fit objects.

    Attributes:
        anchor_size (int): Side in pixels of an anchor on the first level.
        anchor_ratios (tuple of float): Height over width.
        share (float): Share of the objects with an anchor of at least the IoU from which an anchor
            is positive.
        iou (float): IoU with the best anchor, on average over the objects.
    """

    anchor_size: int
    anchor_ratios: tuple[float, ...]
    share: float
    iou: float


def resized_objects(
    index: AnnotationIndex, min_size: tuple[int, int], max_size: int, n: int, seed: int = 0
) -> Objects:
    """Draw objects of a data set, each at a random size of its image.

    Args:
        index (AnnotationIndex): The data set. Group-of boxes and boxes of images without a file are
            left out.
        min_size (pair of int): Range of the shorter edge's length in training.
        max_size (int): Limit of the longer edge.
        n (int): Largest number of objects.
        seed (int): Seed of the choice of objects and lengths.

    Raises:
        InputError: There is no object.
    """
    columns = index.columns
    image = np.repeat(np.arange(len(index)), np.diff(columns['object_offsets']))
    usable = (columns['flags'] & GROUP_OF == 0) & (columns['image_size'][image] > 0).all(axis=1)
    chosen = np.flatnonzero(usable)
    if not len(chosen):
        raise InputError(
            f'{index.path}: expected at least one object that is not a group, in an image with a '
            'file'
        )
    rng = np.random.default_rng(seed)
    if len(chosen) > n:
        chosen = rng.choice(chosen, n, replace=False)
    edges = rng.integers(min_size[0], min_size[1] + 1, len(chosen))
    sizes = columns['image_size'][image[chosen]].tolist()
    size = np.array(
        [resized_size((h, w), int(e), max_size) for (h, w), e in zip(sizes, edges, strict=True)],
        np.float64,
    )
    return Objects(columns['bbox'][chosen] * np.tile(size, 2), size)


def best_iou(
    objects: Objects, anchor_size: float, anchor_ratios: Sequence[float], n_level: int
) -> np.ndarray:
    """IoU of each object with its best anchor.

    Of anchors of one shape, the best is that whose center is nearest: the overlap in each direction
    falls with the distance of the centers. So no other anchors are computed.

    Args:
        objects (Objects): The objects.
        anchor_size (float): Side in pixels of the square anchor on the first level.
        anchor_ratios (sequence of float): Height over width.
        n_level (int): Levels of the RPN, one more than feature maps of the top-down path. The
            first has a stride of 4.

    Returns:
        array: :math:`(R,)`.
    """
    corner, extent = objects.bbox[:, :2], objects.bbox[:, 2:] - objects.bbox[:, :2]
    best = np.zeros(len(extent))
    coarsest = 4 * 2 ** (n_level - 1)
    # Batches are padded to a multiple of the coarsest stride.
    padded = -(-objects.size // coarsest) * coarsest
    for level in range(n_level):
        stride = 4 * 2**level
        cell = np.clip(np.floor((corner + extent / 2) / stride), 0, padded / stride - 1)
        center = (cell + 0.5) * stride
        for ratio in anchor_ratios:
            side = anchor_size * 2**level * np.array([np.sqrt(ratio), 1 / np.sqrt(ratio)])
            low = np.maximum(corner, center - side / 2)
            high = np.minimum(corner + extent, center + side / 2)
            common = np.maximum(high - low, 0).prod(axis=1)
            best = np.maximum(best, common / (extent.prod(axis=1) + side.prod() - common))
    return best


def coverage(
    objects: Objects,
    anchor_size: int,
    anchor_ratios: Sequence[float],
    n_level: int,
    positive_iou: float,
) -> Coverage:
    """Describe how well anchors fit objects; see :func:`best_iou` for the arguments.

    Args:
        positive_iou (float): IoU from which an anchor is positive.
    """
    iou = best_iou(objects, anchor_size, anchor_ratios, n_level)
    return Coverage(
        anchor_size, tuple(anchor_ratios), float((iou >= positive_iou).mean()), float(iou.mean())
    )
