"""Images and crops for an HTML page, encoded as JPEG, with the boxes to draw on them."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pfdet.boxes.iou import matched_iou


@dataclass
class Example:
    """A validation image with its ground truth and detections.

    Boxes are ``(y_min, x_min, y_max, x_max)`` relative to the image, in [0, 1].

    Attributes:
        image_id (str): Id of the image, used as its caption.
        img (array): RGB image :math:`(3, H, W)` in [0, 255], any dtype.
        gt_bbox (array): Annotated boxes :math:`(R, 4)`. An object with several classes has one box
            for each.
        gt_name (sequence of str): Class name of each annotated box.
        bbox (array): Detected boxes :math:`(D, 4)`.
        name (sequence of str): Class name of each detection.
        score (array): Score of each detection, :math:`(D,)`.
        expanded (pair): Boxes and class names that are correct, but not drawn: those of the
            ancestors of annotated classes.
    """

    image_id: str
    img: np.ndarray
    gt_bbox: np.ndarray
    gt_name: Sequence[str]
    bbox: np.ndarray
    name: Sequence[str]
    score: np.ndarray
    expanded: tuple[np.ndarray, Sequence[str]] = field(
        default_factory=lambda: (np.zeros((0, 4)), ())
    )


@dataclass
class Crop:
    """A crop of an image around a box.

    Attributes:
        url (str): JPEG as a ``data:`` URL.
        width, height (int): Size in pixels.
        box (DrawnBox): The box that is shown; it may extend beyond the crop.
        related (DrawnBox): Another box that explains the error, or :obj:`None`.
        title, detail (str): Caption.
        image_id (str): Id of the image.
    """

    url: str
    width: int
    height: int
    box: 'DrawnBox'
    related: 'DrawnBox | None'
    title: str
    detail: str
    image_id: str


@dataclass
class DrawnBox:
    """A box to draw.

    Attributes:
        x, y (float): Upper left corner in percent of the image size.
        width, height (float): Size in percent of the image size.
        names (list of str): Captions.
        hue (int): Hue of the colour in degrees.
        correct (bool): Whether all its classes are annotated there; always true for annotations.
    """

    x: float
    y: float
    width: float
    height: float
    names: list[str] = field(default_factory=list)
    hue: int = 0
    correct: bool = True


def encode_image(img: np.ndarray, max_size: int = 560, quality: int = 85) -> tuple[str, int, int]:
    """Resize an image and encode it as JPEG.

    Args:
        img (array): RGB image :math:`(3, H, W)` in [0, 255].
        max_size (int): Limit of the longer edge in pixels.
        quality (int): JPEG quality, 1 to 95.

    Returns:
        tuple: The JPEG as a ``data:`` URL, its width and its height in pixels.
    """
    pixels = np.clip(np.round(img), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((max_size, max_size))
    buffer = io.BytesIO()
    picture.save(buffer, 'JPEG', quality=quality)
    url = 'data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()).decode()
    return url, picture.width, picture.height


def crop(
    img: np.ndarray,
    bbox: np.ndarray,
    related: np.ndarray | None = None,
    *,
    title: str,
    detail: str = '',
    image_id: str = '',
    max_size: int = 128,
    margin: float = 0.3,
    min_side: int = 32,
) -> Crop:
    """Crop a square around a box. Where the image is smaller than the square, the crop is, too.

    Args:
        img (array): RGB image :math:`(3, H, W)` in [0, 255].
        bbox (array): ``(y_min, x_min, y_max, x_max)`` in [0, 1].
        related (array): Another box to draw.
        title, detail, image_id (str): See :class:`Crop`.
        max_size (int): Limit of the longer edge of the crop in pixels, after resizing.
        margin (float): Margin around the box, relative to its longer edge.
        min_side (int): Smallest side of the square in pixels of the image.

    Returns:
        Crop: The crop with its boxes.
    """
    size = np.array(img.shape[1:], np.float64)
    low, high = bbox[:2] * size, bbox[2:] * size
    side = max((high - low).max() * (1 + 2 * margin), min_side)
    # A square that extends beyond the image is shifted into it.
    begin = np.clip((low + high - side) / 2, 0, np.maximum(size - side, 0)).astype(int)
    end = np.maximum(np.minimum(np.ceil(begin + side), size).astype(int), begin + 1)
    url, width, height = encode_image(
        img[:, begin[0] : end[0], begin[1] : end[1]], max_size, quality=78
    )

    def in_crop(b: np.ndarray) -> DrawnBox:
        corner = 100 * (b[:2] * size - begin) / (end - begin)
        extent = 100 * (b[2:] - b[:2]) * size / (end - begin)
        return DrawnBox(corner[1], corner[0], extent[1], extent[0])

    return Crop(
        url,
        width,
        height,
        in_crop(bbox),
        None if related is None else in_crop(related),
        title,
        detail,
        image_id,
    )


def boxes_to_draw(
    bbox: np.ndarray,
    name: Sequence[str],
    hues: Mapping[str, int],
    score: np.ndarray | None = None,
    score_thresh: float = 0.0,
    annotated: tuple[Sequence[np.ndarray] | np.ndarray, Sequence[str]] | None = None,
    same_iou: float = 0.8,
) -> list[DrawnBox]:
    """Merge the boxes of each object into one box with several names.

    Args:
        bbox (array): Boxes :math:`(N, 4)` in [0, 1].
        name (sequence of str): Class name of each box.
        hues (dict): From class name to hue in degrees.
        score (array): Scores :math:`(N,)`, or :obj:`None` for annotations.
        score_thresh (float): Boxes with a lower score are not drawn.
        annotated (pair): Annotated boxes and class names. A drawn box is correct if each of its
            names is annotated with an IoU of at least 0.5.
        same_iou (float): Boxes with at least this IoU belong to the same object.

    Returns:
        list of DrawnBox: Larger boxes first, so that they do not cover smaller ones.
    """
    bbox = np.asarray(bbox, np.float64).reshape(-1, 4)
    chosen = np.arange(len(bbox))
    if score is not None:
        score = np.asarray(score)
        chosen = np.flatnonzero(score >= score_thresh)
        chosen = chosen[np.argsort(-score[chosen], kind='stable')]
    leaders: list[int] = []
    drawn: list[DrawnBox] = []
    for i in chosen.tolist():
        caption = name[i] if score is None else f'{name[i]} {score[i]:.2f}'
        correct = annotated is None or any(
            other == name[i] and matched_iou(bbox[i], b) >= 0.5 for b, other in zip(*annotated)
        )
        for leader, box in zip(leaders, drawn):
            if matched_iou(bbox[i], bbox[leader]) >= same_iou:
                if caption not in box.names:
                    box.names.append(caption)
                box.correct &= correct
                break
        else:
            y_min, x_min, y_max, x_max = bbox[i] * 100
            leaders.append(i)
            drawn.append(
                DrawnBox(
                    x_min, y_min, x_max - x_min, y_max - y_min, [caption], hues[name[i]], correct
                )
            )
    return sorted(drawn, key=lambda box: -box.width * box.height)
