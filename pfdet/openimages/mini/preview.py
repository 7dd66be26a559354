"""A contact sheet of images with their annotated boxes and class names."""

from collections.abc import Sequence

import cv2
import numpy as np

from pfdet.openimages.mini.annotation import BoxRow
from pfdet.openimages.mini.classes import mini_classes
from pfdet.openimages.mini.scene import GROUP_OF


def contact_sheet(
    images: Sequence[np.ndarray],
    boxes: Sequence[Sequence[BoxRow]],
    columns: int = 6,
    cell: int = 384,
) -> np.ndarray:
    """Arrange images in a grid and draw their boxes.

    Args:
        images (sequence of arrays): Images, uint8 :math:`(H, W, 3)`, BGR.
        boxes (sequence): For each image, its boxes.
        columns (int): Images per row.
        cell (int): Side of a grid cell in pixels.

    Returns:
        array: The sheet, uint8 :math:`(H', W', 3)`, BGR.
    """
    rows = -(-len(images) // columns)
    sheet = np.full((rows * cell, columns * cell, 3), 28, np.uint8)
    for k, (image, image_boxes) in enumerate(zip(images, boxes, strict=True)):
        height, width = image.shape[:2]
        scale = (cell - 8) / max(height, width)
        size = (round(width * scale), round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        _draw_boxes(image, image_boxes)
        y, x = (
            (k // columns) * cell + (cell - size[1]) // 2,
            (k % columns) * cell + (cell - size[0]) // 2,
        )
        sheet[y : y + size[1], x : x + size[0]] = image
    return sheet


def _draw_boxes(image: np.ndarray, boxes: Sequence[BoxRow]) -> None:
    height, width = image.shape[:2]
    names = list(mini_classes())
    last_line: dict[tuple[int, int], int] = {}  # the names of a box are stacked
    for row in boxes:
        hue = np.uint8([[[names.index(row.name) * 67 % 180, 220, 255]]])
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
        x0, y0, x1, y1 = (round(v * s) for v, s in zip(row.bbox, (width, height) * 2, strict=True))
        cv2.rectangle(
            image, (x0, y0), (x1 - 1, y1 - 1), colour, 2 if row.flags & GROUP_OF else 1, cv2.LINE_AA
        )
        text = row.name + (' (group)' if row.flags & GROUP_OF else '')
        (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.34, 1)
        corner = (x0 // 12, y0 // 12)
        line = last_line[corner] = last_line.get(corner, -1) + 1
        x = max(0, min(x0, width - w - 2))
        y = y0 - (line + 1) * (h + 5) if y0 > 2 * (h + 5) else y0 + line * (h + 5)
        cv2.rectangle(image, (x, y), (x + w + 2, y + h + 4), colour, -1)
        cv2.putText(
            image,
            text,
            (x + 1, y + h + 1),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.34,
            (0, 0, 0),
            1,
            cv2.LINE_AA,
        )
