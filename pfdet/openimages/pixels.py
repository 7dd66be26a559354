"""Boxes in pixels, converted by the sizes of the images."""

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.tables import BoxTable, clip_boxes


def relative_boxes(boxes: BoxTable, size: np.ndarray, source: str) -> BoxTable:
    """Convert boxes from pixels to fractions of the image, and clip them.

    Args:
        boxes (BoxTable): From :func:`~pfdet.openimages.tables.read_boxes` with ``pixels``.
        size (array): int32 ``(N, 2)``, height and width of the images of ``boxes`` in pixels; 0 for
            images without a file. Their boxes are dropped.
        source (str): Names of the files, for messages.

    Returns:
        BoxTable: Without boxes of zero area, with the counts of clipped and dropped ones.

    Raises:
        InputError: If a box is more than twice as large as its image, or no coordinate is above 1.
    """
    if len(boxes.bbox) and boxes.bbox.max() <= 1:
        raise InputError(
            f'{source}: no coordinate is above 1; expected pixels, or no --pixels for a table with '
            'coordinates from 0 to 1'
        )
    known = (size > 0).all(axis=1)[boxes.image]
    extent = np.tile(np.maximum(size, 1), 2)[boxes.image]
    bbox = (boxes.bbox.astype(np.float64) / extent).astype(np.float32)
    far = np.flatnonzero(((bbox < -1) | (bbox > 2)).any(axis=1) & known)
    if len(far):
        y_min, x_min, y_max, x_max = boxes.bbox[far[0]].tolist()
        height, width = size[boxes.image[far[0]]].tolist()
        raise InputError(
            f'{source}: image {boxes.image_ids[boxes.image[far[0]]]!r} has {width} x {height} '
            f'pixels, but a box with XMin {x_min:g}, XMax {x_max:g}, YMin {y_min:g}, YMax '
            f'{y_max:g}; expected pixels of the image in --images'
        )
    outside, nonempty = clip_boxes(bbox)
    keep = known & nonempty
    counts = {
        **boxes.counts,
        'boxes': int(keep.sum()),
        'clipped': int((outside & keep).sum()),
        'degenerate': int((known & ~nonempty).sum()),
    }
    return BoxTable(
        boxes.ids,
        boxes.image[keep],
        boxes.label[keep],
        bbox[keep],
        boxes.flags[keep],
        counts,
        boxes.unknown,
    )
