"""Draw detections into photographs."""

import colorsys
import functools
import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pfdet.printable import printable
from pfdet.report.images import DrawnBox, boxes_to_draw

# Multiples of the golden angle give distinct hues for any number of classes.
_GOLDEN_ANGLE = 137.508


def draw_detections(
    img: np.ndarray,
    bbox: np.ndarray,
    label: np.ndarray,
    score: np.ndarray,
    names: Sequence[str],
) -> Image.Image:
    """Draw boxes with names and scores into a photograph.

    Boxes of an object with several classes become one box with several names.

    Args:
        img (array): RGB image, uint8 :math:`(3, H, W)`.
        bbox (array): Boxes :math:`(R, 4)`, ``(y_min, x_min, y_max, x_max)`` in pixels.
        label (int array): Classes :math:`(R,)`.
        score (array): Scores :math:`(R,)`.
        names (sequence of str): Class names.

    Returns:
        PIL.Image.Image: The picture, of the same size.
    """
    picture = Image.fromarray(np.ascontiguousarray(img.transpose(1, 2, 0)))
    # Short lines of text stay readable in a picture that is shown at the size of a screen.
    scale = max(picture.size) / 1000
    font = _font(max(11, round(16 * scale)))
    width = max(2, round(3 * scale))
    shown = [printable(names[k]) for k in label.tolist()]
    hues = {printable(name): round(k * _GOLDEN_ANGLE) % 360 for k, name in enumerate(names)}
    relative = np.asarray(bbox, np.float64).reshape(-1, 4) / np.tile(img.shape[1:], 2)
    canvas = ImageDraw.Draw(picture)
    drawn = boxes_to_draw(relative, shown, hues, score)
    for box in drawn:
        canvas.rectangle(_corners(box, picture.size), outline=_colour(box.hue), width=width)
    for box in drawn:
        _draw_names(canvas, box, picture.size, font, width)
    return picture


def encode_jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    """Encode a picture as JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, 'JPEG', quality=quality)
    return buffer.getvalue()


def _corners(box: DrawnBox, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """``x_min, y_min, x_max, y_max`` of the outermost pixels of a box."""
    ends = (box.x, box.y, box.x + box.width, box.y + box.height)
    x_min, y_min, x_max, y_max = (round(e / 100 * n) for e, n in zip(ends, size * 2))
    return x_min, y_min, max(x_min, x_max - 1), max(y_min, y_max - 1)


def _draw_names(
    canvas: ImageDraw.ImageDraw,
    box: DrawnBox,
    size: tuple[int, int],
    font: ImageFont.ImageFont,
    margin: int,
) -> None:
    text = '\n'.join(box.names)
    left, top, right, bottom = canvas.multiline_textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x_min, y_min, _, _ = _corners(box, size)
    # Above the box, or inside it at the upper edge of the picture
    y = y_min - height if y_min >= height else y_min
    x, y = max(0, min(x_min, size[0] - width)), max(0, min(y, size[1] - height))
    colour = _colour(box.hue)
    canvas.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    brightness = np.dot(colour, (0.299, 0.587, 0.114))
    ink = (0, 0, 0) if brightness > 140 else (255, 255, 255)
    canvas.multiline_text((x + margin - left, y + margin - top), text, fill=ink, font=font)


def _colour(hue: int) -> tuple[int, int, int]:
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue / 360, 0.85, 0.95))


@functools.lru_cache(8)
def _font(size: int) -> ImageFont.ImageFont:
    """Matplotlib's font, which has Latin, Greek and Cyrillic letters, and more."""
    import matplotlib

    path = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(path, size)
