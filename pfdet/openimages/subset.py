"""Write an annotation index of a subset of the images of another index."""

import os

import numpy as np

from pfdet.openimages.index import AnnotationIndex, write_index


def subset(index: AnnotationIndex, images: np.ndarray, out: str | os.PathLike) -> int:
    """Write an index of a subset of the images. It refers to the same image directory.

    Args:
        index (AnnotationIndex): The source index.
        images (array): Integers ``(n,)``, distinct positions in ``index``, in any order.
        out (path): The new index. The file appears when it is complete.

    Returns:
        int: The size of the file in bytes.

    Raises:
        ValueError: If an image is repeated or not in the index.
        OSError: If the file cannot be written.
    """
    images = np.sort(np.asarray(images, np.int64))
    if len(images) and not 0 <= images[0] <= images[-1] < len(index):
        raise ValueError(
            f'images {images[0]} to {images[-1]}: expected positions in an index of '
            f'{len(index)} images'
        )
    if (images[1:] == images[:-1]).any():
        raise ValueError('an image is repeated')
    old = index.columns
    of_images = [name for name in ('image_size', 'image_suffix', 'image_folder') if name in old]
    columns = {name: old[name][images] for name in of_images}
    columns['id_offsets'], positions = _gather(old['id_offsets'], images)
    columns['id_bytes'] = old['id_bytes'][positions]
    columns['object_offsets'], objects = _gather(old['object_offsets'], images)
    columns['bbox'], columns['flags'] = old['bbox'][objects], old['flags'][objects]
    columns['label_offsets'], positions = _gather(old['label_offsets'], objects)
    columns.update(
        {name: old[name][positions] for name in ('label', 'order', 'n_row') if name in old}
    )
    for name in ('positive', 'negative', 'contradictory'):
        if name in old:
            columns[name + '_offsets'], positions = _gather(old[name + '_offsets'], images)
            columns[name] = old[name][positions]
    counts = {
        'images': len(images),
        'objects': len(objects),
        'labels': len(columns['label']),
        'positive': len(columns['positive']),
        'negative': len(columns['negative']),
    }
    file_names = {
        image_id: name
        for image_id, name in index.file_names.items()
        if index.find(image_id) in images
    }
    some_classes = len(index.annotated) < len(index.classes)
    return write_index(
        out,
        columns,
        index.classes,
        index.hierarchy,
        index.images,
        index.suffixes,
        counts,
        index.annotated if some_classes else None,
        index.folders,
        file_names,
    )


def _gather(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets of some rows of ragged values, and the positions of their values."""
    lengths = np.diff(offsets)[rows]
    gathered = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=gathered[1:])
    positions = np.arange(gathered[-1]) + np.repeat(offsets[rows] - gathered[:-1], lengths)
    return gathered.astype(offsets.dtype), positions
