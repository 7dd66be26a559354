"""The image files of a set of annotations, whose sizes must fit those in the annotations."""

import os
from dataclasses import dataclass

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.annotation_set import AnnotationSet
from pfdet.openimages.image_files import ImageFiles, find_image_files


@dataclass(frozen=True)
class SetImages:
    """The image files of a set of ``N`` images.

    Attributes:
        files (ImageFiles): The files. ``size`` of missing files is that in the annotations, and of
            unreadable files 0.
        suffixes (list of str): The suffixes that ``files.suffix`` refers to.
        annotated_size (array): int32 ``(N, 2)``, height and width in pixels that the annotations
            refer to: as annotated, or else those of the file.
        kept (array): bool ``(N,)``, the images that the index has.
        resized (int): How many files have another size of the same shape.
    """

    files: ImageFiles
    suffixes: list[str]
    annotated_size: np.ndarray
    kept: np.ndarray
    resized: int


def find_set_images(
    annotations: AnnotationSet, root: str | os.PathLike, keep_missing: bool = False
) -> SetImages:
    """Find the image files, and compare their sizes with those in the annotations.

    A file may be larger or smaller than annotated, but not of another shape. That is most often an
    image that was annotated upright, as its EXIF orientation says, whereas pfdet uses the stored
    pixels.

    Args:
        annotations (AnnotationSet): The annotations.
        root (path): The directory of the image files.
        keep_missing (bool): Keep images without a readable file.

    Returns:
        SetImages: The files.

    Raises:
        InputError: If a file has another shape, or no image has a readable file (unless
            ``keep_missing``). The message names the first such image.
    """
    files = find_image_files(
        root,
        annotations.image_ids.tolist(),
        suffixes=annotations.suffixes,
        suffix_of=annotations.suffix,
    )
    suffixes = annotations.suffixes
    if annotations.suffix is None:
        suffixes = _only_used_suffixes(files, suffixes)
    else:
        files.suffix = annotations.suffix
    resized = _compare_sizes(annotations, files, root, suffixes)
    missing = set(files.missing)
    ids = annotations.image_ids.tolist()
    is_missing = np.array([image_id in missing for image_id in ids], bool)
    stated = (annotations.size > 0).all(axis=1)
    annotated_size = np.where(stated[:, None], annotations.size, files.size)
    files.size[is_missing] = annotations.size[is_missing]
    found = (files.size[:, 0] > 0) & ~is_missing
    kept = np.full(len(found), True) if keep_missing else found
    if not kept.any():
        raise InputError(
            f'{root}: none of the {len(kept)} images in {annotations.source} was found; '
            f'expected files such as {annotations.example()}'
        )
    return SetImages(files, suffixes, annotated_size, kept, resized)


def _only_used_suffixes(files: ImageFiles, suffixes: list[str]) -> list[str]:
    """Drop the suffixes that no file has, as of formats that name the files."""
    used, files.suffix = np.unique(files.suffix, return_inverse=True)
    names = [suffixes[code] for code in used]
    order = sorted(range(len(names)), key=names.__getitem__)
    files.suffix = np.argsort(order)[files.suffix].astype(np.uint8)
    return [names[k] for k in order]


def _compare_sizes(
    annotations: AnnotationSet, files: ImageFiles, root: str | os.PathLike, suffixes: list[str]
) -> int:
    """Return how many files have another size of the same shape."""
    known = (files.size[:, 0] > 0) & (annotations.size > 0).all(axis=1)
    stored, stated = files.size.astype(np.float64), annotations.size.astype(np.float64)
    # A resized image is rounded to whole pixels.
    area = np.maximum(np.prod(stated, axis=1), 1)
    scale = np.sqrt(np.prod(stored, axis=1) / area)[:, None]
    same_shape = (np.abs(stored - stated * scale) <= np.maximum(1, scale)).all(axis=1)
    other = np.flatnonzero(known & ~same_shape)
    if len(other):
        i = int(other[0])
        name = annotations.image_ids[i] + suffixes[files.suffix[i]]
        raise InputError(
            f'{os.path.join(root, name)}: {_size(stored[i])} pixels, but {_size(stated[i])} in '
            f'{annotations.place_of_size(i)}, as of {len(other):,} images; expected the same '
            'shape; if the image has an EXIF orientation, rotate the file or annotate the stored '
            'pixels'
        )
    return int((known & (stored != stated).any(axis=1)).sum())


def _size(size: np.ndarray) -> str:
    return f'{size[1]:.0f} x {size[0]:.0f}'
