"""The columns of an annotation index, from tables of boxes and image-level labels."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from pfdet.openimages.arrow_arrays import from_strings, string_buffers
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.box_groups import sort_boxes
from pfdet.openimages.image_files import ImageFiles
from pfdet.openimages.index import distinct
from pfdet.openimages.tables import BoxTable, ImageLabelTable


def annotation_columns(
    boxes: BoxTable, labels: ImageLabelTable, kept: np.ndarray, n_class: int
) -> tuple[dict[str, np.ndarray], int]:
    """Group the rows of the tables by image and object.

    Boxes of an image with equal float32 coordinates and the same group-of flag become one object.
    It has the labels of all of them and the union of their flags. Only ``order`` depends on the
    order of the rows.

    Args:
        boxes (BoxTable): Boxes. ``image`` refers to all ``N`` images of the split.
        labels (ImageLabelTable): Image-level labels. ``image`` refers to the same images.
        kept (array): bool ``(N,)``. Rows of other images are skipped.
        n_class (int): The number of classes.

    Returns:
        tuple: The columns of objects, labels and verified classes, as listed in
        :mod:`pfdet.openimages.index`, and the number of contradictions: pairs of an image and a
        class that is verified both as present and as absent there.
    """
    n_image = int(kept.sum())
    number = np.cumsum(kept, dtype=np.int32) - 1
    with ThreadPoolExecutor(2) as pool:
        objects = pool.submit(_object_columns, boxes, kept, number, n_image)
        verified, contradictory = _verified_columns(boxes, labels, kept, number, n_image, n_class)
        return {**objects.result(), **verified}, contradictory


def _verified_columns(
    boxes: BoxTable,
    labels: ImageLabelTable,
    kept: np.ndarray,
    number: np.ndarray,
    n_image: int,
    n_class: int,
) -> tuple[dict[str, np.ndarray], int]:
    # A pair of image and class is encoded as one integer.
    columns = {}
    boxed = number[boxes.image].astype(np.int64) * n_class + boxes.label
    boxed = boxed[kept[boxes.image]]
    verified = number[labels.image].astype(np.int64) * n_class + labels.label
    of_kept = kept[labels.image]
    positive = distinct(np.concatenate([boxed, verified[of_kept & labels.positive]]))
    negative = distinct(verified[of_kept & ~labels.positive])
    # Both are sorted, so a binary search is faster than numpy.isin, which sorts them again.
    position = np.searchsorted(positive, negative)
    clash = position < len(positive)
    clash[clash] = positive[position[clash]] == negative[clash]
    parts = {'positive': positive, 'negative': negative[~clash]}
    if clash.any():
        parts['contradictory'] = negative[clash]
    for name, key in parts.items():
        columns[name + '_offsets'] = _offsets(np.bincount(key // n_class, minlength=n_image))
        columns[name] = (key % n_class).astype(np.int16)
    return columns, int(clash.sum())


def _object_columns(
    boxes: BoxTable, kept: np.ndarray, number: np.ndarray, n_image: int
) -> dict[str, np.ndarray]:
    group_of = (boxes.flags & GROUP_OF) > 0
    order, (_, new_object, new_label) = sort_boxes(boxes, [group_of, boxes.label])
    if not kept.all():
        # Images are kept or dropped as a whole, so the first rows of objects and labels remain
        # first rows.
        keep = kept[boxes.image[order]]
        order, new_object, new_label = order[keep], new_object[keep], new_label[keep]
    first = np.flatnonzero(new_object)
    n_label = np.bincount(
        (np.cumsum(new_object, dtype=np.int32) - 1)[new_label], minlength=len(first)
    )
    flags = (
        np.bitwise_or.reduceat(boxes.flags[order], first) if len(first) else np.zeros(0, np.uint8)
    )
    rows = order[first]
    image = number[boxes.image[rows]]
    first_of_label = np.flatnonzero(new_label)
    # The sort is stable, so this is the first row of the object with the label.
    row_of_label = order[first_of_label]
    columns = {
        'object_offsets': _offsets(np.bincount(image, minlength=n_image)),
        'bbox': boxes.bbox.take(rows, axis=0),
        'flags': flags,
        'label_offsets': _offsets(n_label),
        'label': boxes.label[row_of_label].astype(np.int16),
        'order': _order_in_image(boxes.image, row_of_label),
    }
    n_row = np.diff(np.append(first_of_label, len(order)))
    if (n_row > 1).any():
        columns['n_row'] = _smallest(n_row, np.uint8)
    return columns


def _order_in_image(image_of_row: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return the rank of each row among the given rows of the same image.

    Args:
        image_of_row (array): int32 ``(B,)``, the image of all rows.
        row (array): int64 ``(L,)``, distinct rows, in ascending order of their images.
    """
    if (image_of_row[1:] >= image_of_row[:-1]).all():
        # As in the files of Open Images.
        is_given = np.zeros(len(image_of_row), bool)
        is_given[row] = True
        rank = np.cumsum(is_given)[row] - 1
    else:
        by_row = np.lexsort((row, image_of_row[row]))
        rank = np.empty(len(row), np.int64)
        rank[by_row] = np.arange(len(row))
    image = image_of_row[row]
    start = np.flatnonzero(np.append(True, image[1:] != image[:-1])) if len(row) else row
    order = rank - np.repeat(start, np.diff(np.append(start, len(row))))
    return _smallest(order, np.int16)


def _smallest(values: np.ndarray, dtype: type) -> np.ndarray:
    """Return values as ``dtype`` if it can hold them, and otherwise as int32."""
    return values.astype(dtype if values.max(initial=0) <= np.iinfo(dtype).max else np.int32)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return _narrow(offsets)


def _narrow(offsets: np.ndarray) -> np.ndarray:
    return offsets.astype(np.int32) if offsets[-1] <= np.iinfo(np.int32).max else offsets


def id_columns(image_ids: Sequence[str] | pa.Array) -> dict[str, np.ndarray]:
    """Return the columns of the image ids.

    Args:
        image_ids (sequence of str or pyarrow.Array): ``(N,)``, sorted.

    Returns:
        dict: ``id_offsets``, int32 or int64 ``(N + 1,)``, and ``id_bytes``, uint8.
    """
    strings = image_ids if isinstance(image_ids, pa.Array) else from_strings(image_ids)
    offsets, text = string_buffers(strings)
    return {'id_offsets': _narrow(offsets), 'id_bytes': text}


def file_columns(files: ImageFiles, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of the image files.

    Args:
        files (ImageFiles): The files of ``N`` images.
        kept (array): bool ``(N,)``. Other images are skipped.

    Returns:
        dict: ``image_size``, ``image_suffix``, and ``image_folder`` if a file is in a folder.
    """
    columns = {'image_size': files.size[kept], 'image_suffix': files.suffix[kept]}
    if files.folder.any():
        columns['image_folder'] = _smallest(files.folder[kept], np.int16)
    return columns
