"""Rows of the box table, sorted such that equal boxes of an image are adjacent."""

from collections.abc import Sequence

import numpy as np

from pfdet.openimages.tables import BoxTable


def sort_boxes(boxes: BoxTable, keys: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sort the rows by image, coordinates from ``y_min`` to ``x_max``, and further keys.

    Args:
        boxes (BoxTable): The rows.
        keys (sequence of arrays): Further keys, integers ``(B,)`` from 0 to 2^32 - 1. The sort is
            stable.

    Returns:
        tuple: The order, int64 ``(B,)``, and in that order bool masks ``(B,)``: which rows differ
        from the row before in the image or the coordinates, and after each of ``keys``, which
        differ in these or in a key up to this one.
    """
    # Coordinates are not negative, so their bit patterns sort like the numbers. Image and y_min
    # decide the order of most rows. Each further key sorts only the rows that are still tied, so
    # the later sorts are small.
    bits = np.ascontiguousarray(boxes.bbox).view(np.uint32)
    order = np.argsort(boxes.image.astype(np.uint64) << 32 | bits[:, 0], kind='stable')
    new = _changes((boxes.image.astype(np.uint64) << 32 | bits[:, 0])[order])
    masks = []
    for column in (bits[:, 1], bits[:, 2], bits[:, 3], *keys):
        tied = np.flatnonzero(~(new & np.append(new[1:], True)))
        rows = order[tied]
        key = np.cumsum(new[tied], dtype=np.uint64) << 32 | column[rows].astype(np.uint64)
        by_key = np.argsort(key, kind='stable')
        order[tied] = rows[by_key]
        new[tied] = _changes(key[by_key])
        masks.append(new.copy())
    return order, masks[2:]


def _changes(sorted_values: np.ndarray) -> np.ndarray:
    changes = np.ones(len(sorted_values), bool)
    np.not_equal(sorted_values[1:], sorted_values[:-1], out=changes[1:])
    return changes
