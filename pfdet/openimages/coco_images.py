"""The image files of a COCO annotation file, whose sizes must fit those in the JSON."""

import os

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.coco_json import Instances
from pfdet.openimages.image_files import ImageFiles, find_image_files


def find_coco_images(
    instances: Instances, root: str | os.PathLike, path: str | os.PathLike
) -> tuple[ImageFiles, np.ndarray, int]:
    """Find the image files, and compare their sizes with those in the JSON.

    Boxes are in pixels of the size in the JSON. A file may be larger or smaller, but not of
    another shape. That is most often an image that was annotated upright, as its EXIF orientation
    says, whereas pfdet uses the stored pixels.

    Args:
        instances (Instances): The content of the JSON.
        root (path): The directory of the image files.
        path (path): The JSON, for messages.

    Returns:
        tuple: The files; bool ``(N,)``, which are missing; and how many have another size of the
        same shape. ``size`` of missing files is that in the JSON, and of unreadable files 0.

    Raises:
        InputError: If a file has another shape. The message names the first such image.
    """
    files = find_image_files(
        root,
        instances.image_ids.tolist(),
        suffixes=instances.suffixes,
        suffix_of=instances.suffix,
    )
    files.suffix = instances.suffix
    readable = files.size[:, 0] > 0
    stored, stated = files.size.astype(np.float64), instances.size.astype(np.float64)
    # A resized image is rounded to whole pixels.
    scale = np.sqrt(np.prod(stored, axis=1) / np.prod(stated, axis=1))[:, None]
    same_shape = (np.abs(stored - stated * scale) <= np.maximum(1, scale)).all(axis=1)
    other = np.flatnonzero(readable & ~same_shape)
    if len(other):
        i = other[0]
        raise InputError(
            f'{os.path.join(root, instances.file_names[i])}: {_size(stored[i])} pixels, but '
            f'{_size(stated[i])} in {path}, as of {len(other):,} images; expected the same shape; '
            'if the image has an EXIF orientation, rotate the file or annotate the stored pixels'
        )
    resized = int((readable & (stored != stated).any(axis=1)).sum())
    missing = set(files.missing)
    is_missing = np.array([image_id in missing for image_id in instances.image_ids.tolist()], bool)
    files.size[is_missing] = instances.size[is_missing]
    return files, is_missing, resized


def _size(size: np.ndarray) -> str:
    return f'{size[1]:.0f} x {size[0]:.0f}'
