"""Random crops, rotations and colors of training images.

Peng et al. (2020), section 5.6, name "data augmentation" among the "other tricks" of Table 5 and do
not say which. PFDet flips and scales only. The methods here are those common for detectors and
classifiers. Each takes a random generator and is off by default.

A crop selects a part of the stored image before it is decoded and resized, so that the part has the
resolution of the network's input. Colors change on the resized part, and rotation comes last, so
that the area it leaves empty keeps its color.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pfdet.errors import InputError

#: Color of the area that a rotation leaves empty: the rounded mean of ImageNet. After preprocessing
#: it is close to zero, the value of padding.
FILL = (123, 116, 103)

# Range of the aspect ratio of a crop, relative to the image's, as in torchvision's
# RandomResizedCrop.
_ASPECT = (3 / 4, 4 / 3)
# Crops begin and end at multiples of it: a JPEG decoded at 1/2, 1/4 or 1/8 of its size has a border
# between two pixels there.
_GRID = 8
# Crops that keep no box are drawn again up to this number, as in torchvision.
_ATTEMPTS = 10
# From RGB to luma and the two chroma axes of YIQ (FCC NTSC).
_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float64
)
_YIQ_INVERSE = np.linalg.inv(_YIQ)


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the augmentations; the defaults change nothing.

    Attributes:
        color_jitter (float): Strength :math:`s` in [0, 1], see :func:`jitter_color`.
        crop (float): Smallest share of the area kept by a crop, in (0, 1]; 1 for no crops. See
            :func:`random_crop`.
        rotation (float): Largest angle in degrees, in [0, 180], see :func:`rotate`.
        min_visibility (float): Boxes of which a crop keeps a smaller share of the area are dropped,
            in [0, 1]. What remains of them is then background. So the share should be small, and
            Open Images' annotators draw the visible part of objects cut by the border, too. 0.1 is
            the default of YOLOv5. SSD and torchvision's RandomIoUCrop keep a box if the crop
            contains its centre.

    Raises:
        InputError: A value is out of range.
    """

    color_jitter: float = 0.0
    crop: float = 1.0
    rotation: float = 0.0
    min_visibility: float = 0.1

    def __post_init__(self):
        for name, most in (
            ('color_jitter', 1),
            ('crop', 1),
            ('rotation', 180),
            ('min_visibility', 1),
        ):
            value = getattr(self, name)
            if not 0 <= value <= most or (name == 'crop' and value == 0):
                least = 'more than 0, and at most' if name == 'crop' else '0 to'
                raise InputError(f'{name}={value}: expected {least} {most}')

    @property
    def moves_boxes(self) -> bool:
        """Whether there are crops or rotations."""
        return self.crop < 1 or self.rotation > 0


def random_crop(
    rng: np.random.Generator,
    size: tuple[int, int],
    bbox: np.ndarray,
    min_share: float,
    min_visibility: float,
) -> tuple[int, int, int, int]:
    """Draw a part of an image.

    The share of the area is uniform in [``min_share``, 1]. The aspect ratio relative to that of the
    image is log-uniform in [3/4, 4/3], as long as the part fits in the image. This is torchvision's
    RandomResizedCrop, except that the ratio is relative, so images stay wide or tall. Edges are
    then moved outward to multiples of 8 pixels. If an image has boxes, at least one is kept.

    Args:
        rng (numpy.random.Generator): Source of random numbers.
        size (pair of int): Height and width of the stored image.
        bbox (array): Boxes :math:`(R, 4)` in pixels of the stored image.
        min_share (float): Smallest share of the area.
        min_visibility (float): See :class:`Augmentation`.

    Returns:
        tuple of int: ``(y_min, x_min, y_max, x_max)`` in pixels of the stored image. If no attempt
        keeps a box, the whole image.
    """
    H, W = size
    for _ in range(_ATTEMPTS):
        share = rng.uniform(min_share, 1)
        ratio = math.exp(rng.uniform(*np.log(_ASPECT)))
        h, w = math.sqrt(share * ratio), math.sqrt(share / ratio)
        if h > 1:
            h, w = 1, share
        elif w > 1:
            h, w = share, 1
        top, left = rng.uniform(0, 1 - h), rng.uniform(0, 1 - w)
        part = (*_outward(top, h, H), *_outward(left, w, W))
        part = part[0], part[2], part[1], part[3]
        if len(bbox) == 0 or crop_boxes(bbox, part, min_visibility)[1].any():
            return part
    return 0, 0, H, W


def _outward(start: float, length: float, size: int) -> tuple[int, int]:
    """The smallest range of grid positions, or the whole, around a range relative to ``size``."""
    begin = math.floor(start * size / _GRID) * _GRID
    return begin, min(size, math.ceil((start + length) * size / _GRID) * _GRID)


def crop_boxes(
    bbox: np.ndarray, part: tuple[int, int, int, int], min_visibility: float
) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes to a part of the image.

    Args:
        bbox (array): Boxes :math:`(R, 4)` in pixels of the image.
        part (tuple of int): ``(y_min, x_min, y_max, x_max)`` in pixels of the image.
        min_visibility (float): See :class:`Augmentation`.

    Returns:
        tuple of arrays: Boxes :math:`(R, 4)` in pixels of the part, and bool :math:`(R,)`, whether
        a box is kept. A kept box has an area.
    """
    bbox = np.asarray(bbox, np.float64)
    origin = np.array(part[:2], np.float64)
    limit = np.array(part[2:], np.float64)
    corners = np.clip(bbox.reshape(-1, 2, 2), origin, limit)
    extent = corners[:, 1] - corners[:, 0]
    area = (bbox[:, 2:] - bbox[:, :2]).prod(axis=1)
    kept = (extent > 0).all(axis=1) & (extent.prod(axis=1) >= min_visibility * area)
    return (corners - origin).reshape(-1, 4), kept


def rotated_size(size: tuple[float, float], angle: float) -> tuple[float, float]:
    """Height and width of the bounding box of a rotated image.

    Args:
        size (pair of float): Height and width of the image.
        angle (float): Angle in degrees.

    Returns:
        pair of float: Height and width.
    """
    cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    return size[0] * cos + size[1] * sin, size[0] * sin + size[1] * cos


def rotate(
    img: np.ndarray, bbox: np.ndarray, angle: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Rotate an image and its boxes about its centre, which becomes the centre of the result.

    Nothing is cut off if the result has at least :func:`rotated_size`, as in Detectron2's
    RandomRotation. The area left empty has the color :data:`FILL`. A box becomes the bounding box
    of the rotated box, which is larger than that of the object; so large angles make loose boxes.

    Args:
        img (array): uint8 :math:`(H, W, 3)`.
        bbox (array): Boxes :math:`(R, 4)` in pixels.
        angle (float): Angle in degrees, counter-clockwise.
        size (pair of int): Height and width of the result.

    Returns:
        tuple of arrays: Image uint8 :math:`(H', W', 3)`, and boxes :math:`(R, 4)` within it.
    """
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # Of (x, y). The y axis points down, so a counter-clockwise rotation moves +x towards -y.
    rotation = np.array([[cos, sin], [-sin, cos]])
    centre = np.array(img.shape[1::-1]) / 2
    new_centre = np.array(size[::-1]) / 2
    # OpenCV's coordinates of pixel centres are integers, those of boxes are integers plus 1/2.
    shift = new_centre - 0.5 - rotation @ (centre - 0.5)
    img = cv2.warpAffine(
        img,
        np.column_stack([rotation, shift]),
        size[::-1],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=FILL,
    )
    corners = bbox[:, [[1, 0], [1, 2], [3, 0], [3, 2]]]
    corners = (corners - centre) @ rotation.T + new_centre
    low, high = (np.clip(a[:, ::-1], 0, size) for a in (corners.min(axis=1), corners.max(axis=1)))
    return img, np.concatenate([low, high], axis=1)


def jitter_color(rng: np.random.Generator, img: np.ndarray, strength: float) -> np.ndarray:
    """Change brightness, contrast, saturation and hue at random.

    The factors of brightness, contrast and saturation are uniform in :math:`[1 - s, 1 + s]`, and
    the hue turns by up to :math:`s / 4` of the color circle. These are the proportions of SimCLR
    (appendix A) and MoCo v2. See :func:`color_matrix`.

    Args:
        rng (numpy.random.Generator): Source of random numbers.
        img (array): uint8 :math:`(H, W, 3)`, RGB.
        strength (float): :math:`s` in [0, 1].

    Returns:
        array: uint8 :math:`(H, W, 3)`.
    """
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    hue = rng.uniform(-strength / 4, strength / 4)
    mean = np.array(cv2.mean(img)[:3])
    return cv2.transform(img, color_matrix(mean, brightness, contrast, saturation, hue))


def color_matrix(
    mean: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float
) -> np.ndarray:
    """Compute the map of colors that changes brightness, contrast, saturation and hue.

    Brightness, contrast and saturation are those of torchvision's ColorJitter: a weighted sum of
    the image and black, the mean luma of the image, and its luma. torchvision turns the hue of HSV.
    Here the chroma plane of YIQ is rotated by the same angle, as in TensorFlow Addons'
    ``adjust_hsv_in_yiq``. All four keep or scale luma, so their order does not matter, and one
    matrix does all. Values are rounded and clipped once. torchvision draws an order, because it
    clips after each.

    Args:
        mean (array): Mean of R, G and B over the image, :math:`(3,)`.
        brightness, contrast, saturation (float): Factors; 1 changes nothing.
        hue (float): Share of the color circle, positive from red to green; 0 changes nothing.

    Returns:
        float64 array: Matrix :math:`(3, 4)` that maps :math:`(R, G, B, 1)` to :math:`(R, G, B)`.
    """
    cos, sin = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue)
    # In the plane of I and Q, the way from red to green is clockwise.
    chroma = saturation * np.array([[cos, sin], [-sin, cos]])
    linear = np.eye(3)
    linear[1:, 1:] = chroma
    linear = brightness * contrast * (_YIQ_INVERSE @ linear @ _YIQ)
    offset = (1 - contrast) * brightness * (_YIQ[0] @ mean)
    return np.column_stack([linear, np.full(3, offset)])
