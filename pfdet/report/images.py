"""Photographs with boxes, ready for a page: whole images and crops around a box."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pfdet.boxes.iou import matched_iou


@dataclass
class Example:
    """A validation image to show in the report.

    Boxes are ``(y_min, x_min, y_max, x_max)`` relative to the image, in [0, 1].

    Attributes:
        image_id (str): The caption.
        img (array): Shape :math:`(3, H, W)`, RGB in [0, 255], any dtype, as ChainerCV has it.
        gt_bbox (array): Shape :math:`(R, 4)`. An object of several classes may be several
            equal boxes.
        gt_name (sequence of str): The class name of each.
        bbox (array): Shape :math:`(D, 4)`, the detections.
        name (sequence of str): The class name of each.
        score (array): Shape :math:`(D,)`.
        expanded (pair): Boxes and class names that are not drawn but right as well: those of the
            objects' ancestors.
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
    """A part of a photograph, with the box it is about and what it is related to.

    Attributes:
        url (str): A ``data:`` URL of a JPEG.
        width, height (int): In pixels.
        box (DrawnBox): What the crop is about; may reach beyond the crop.
        related (DrawnBox): Another box that explains it, or :obj:`None`.
        title, detail (str): What to write below.
        image_id (str): Of the photograph.
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
    """A box to draw: its corner and size in percent of the image, and its captions."""

    x: float
    y: float
    width: float
    height: float
    names: list[str] = field(default_factory=list)
    hue: int = 0
    agrees: bool = True


def photograph(img: np.ndarray, longest: int = 560, quality: int = 85) -> tuple[str, int, int]:
    """Encode an image for a page.

    Args:
        img (array): Shape :math:`(3, H, W)`, RGB in [0, 255].
        longest (int): Its longer side is made at most this many pixels.
        quality (int): Of the JPEG, 1 to 95.

    Returns:
        tuple: A ``data:`` URL of a JPEG, its width and its height in pixels.
    """
    pixels = np.clip(np.round(img), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((longest, longest))
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
    longest: int = 128,
    margin: float = 0.3,
    least: int = 32,
) -> Crop:
    """Cut a square around a box out of an image; where the image ends, it is less than a square.

    Args:
        img (array): Shape :math:`(3, H, W)`, RGB in [0, 255].
        bbox (array): ``(y_min, x_min, y_max, x_max)`` in [0, 1].
        related (array): Another box, drawn as far as it is in the crop.
        title, detail, image_id (str): See :class:`Crop`.
        longest (int): The crop's longer side has at most this many pixels.
        margin (float): What is left around the box, as a share of its longer side.
        least (int): Pixels of the image that the square's side has at least.
    """
    size = np.array(img.shape[1:], np.float64)
    low, high = bbox[:2] * size, bbox[2:] * size
    side = max((high - low).max() * (1 + 2 * margin), least)
    # A square that would leave the image is moved into it.
    begin = np.clip((low + high - side) / 2, 0, np.maximum(size - side, 0)).astype(int)
    end = np.maximum(np.minimum(np.ceil(begin + side), size).astype(int), begin + 1)
    url, width, height = photograph(
        img[:, begin[0] : end[0], begin[1] : end[1]], longest, quality=78
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
    agree_with: tuple[np.ndarray, Sequence[str]] | None = None,
    same: float = 0.8,
) -> list[DrawnBox]:
    """Choose what to draw: boxes of one object become one box with several names.

    Args:
        bbox (array): Shape :math:`(N, 4)`, in [0, 1].
        name (sequence of str): Class names.
        hues (dict): From class name to the hue of its boxes in degrees.
        score (array): Shape :math:`(N,)`, or :obj:`None` for annotations.
        score_thresh (float): Boxes with a lower score are not drawn.
        agree_with (tuple): Annotated boxes and names. A drawn box agrees if all its names are
            annotated with an IoU of at least 0.5.
        same (float): Boxes with at least this IoU are the same object.

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
    for i in chosen:
        caption = name[i] if score is None else f'{name[i]} {score[i]:.2f}'
        agrees = agree_with is None or any(
            other == name[i] and matched_iou(bbox[i], b) >= 0.5 for b, other in zip(*agree_with)
        )
        for leader, box in zip(leaders, drawn):
            if matched_iou(bbox[i], bbox[leader]) >= same:
                if caption not in box.names:
                    box.names.append(caption)
                box.agrees &= agrees
                break
        else:
            y_min, x_min, y_max, x_max = bbox[i] * 100
            leaders.append(i)
            drawn.append(
                DrawnBox(
                    x_min, y_min, x_max - x_min, y_max - y_min, [caption], hues[name[i]], agrees
                )
            )
    return sorted(drawn, key=lambda box: -box.width * box.height)
