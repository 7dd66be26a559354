"""The images of each class, in a file that the processes of a node share."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pfdet.errors import InputError
from pfdet.files.cache import cache_directory
from pfdet.openimages.column_file import map_columns, write_columns
from pfdet.openimages.index import AnnotationIndex

_KIND = 'list of images by class'


@dataclass(frozen=True, eq=False)
class ClassImages:
    """The images of each class.

    If the arrays are mapped from a file, pickling stores only its path.

    Attributes:
        offsets (int64 array): :math:`(C + 1,)`. The images of class :math:`c` are
            ``images[offsets[c]:offsets[c + 1]]``.
        images (int32 array): Images of all classes, ascending within a class.
        n_image (int): Number of images in the data set, with or without a class.
        path (pathlib.Path): File from which the arrays are mapped, or :obj:`None`.
    """

    offsets: np.ndarray
    images: np.ndarray
    n_image: int
    path: Path | None = None

    @property
    def count(self) -> np.ndarray:
        """Number of images of each class, :math:`n_i`, :math:`(C,)`."""
        return np.diff(self.offsets)

    def __reduce__(self) -> tuple:
        if self.path is not None:
            return _open, (self.path,)
        return ClassImages, (self.offsets, self.images, self.n_image)


def class_images(index: AnnotationIndex, expand: bool = False) -> ClassImages:
    """Find the images with a box of each class.

    Args:
        index (AnnotationIndex): The training set.
        expand (bool): Whether the images of a class are also images of its ancestors. The paper
            counts "images containing objects of the i-th class" and does not say. By default,
            labels count as annotated: the long tail is in these. After expansion, a parent such as
            Clothing has most images of the data set, which are already drawn through their own
            classes.

    Raises:
        InputError: If no image has a box.
    """
    n_class = len(index.classes)
    offsets, label = index.image_classes()
    if not len(label):
        raise InputError(f'{index.path}: no image has a box; expected images of some class')
    image = np.repeat(np.arange(len(index), dtype=np.int32), np.diff(offsets))
    image = image[np.argsort(label, kind='stable')]
    count = np.bincount(label, minlength=n_class)
    if expand:
        lists = np.split(image, np.cumsum(count)[:-1])
        lists = [_union(lists, index.hierarchy.closure[:, c], len(index)) for c in range(n_class)]
        image = np.concatenate(lists)
        count = np.array([len(images) for images in lists])
    return ClassImages(np.append(0, np.cumsum(count)), image, len(index))


def _union(lists: list[np.ndarray], chosen: np.ndarray, n_image: int) -> np.ndarray:
    """Images in any of the chosen lists, ascending."""
    found = np.zeros(n_image, bool)
    for c in np.flatnonzero(chosen):
        found[lists[c]] = True
    return np.flatnonzero(found).astype(np.int32)


def shared_class_images(index: AnnotationIndex, expand: bool = False) -> ClassImages:
    """Find the images with a box of each class, in a file that processes share.

    The result of :func:`class_images` is mapped from a file: ``INDEX.class-images`` beside the
    index, or, where that cannot be written, a file in the cache directory of the user
    (:mod:`pfdet.files.cache`). It is written if it is missing, damaged or belongs to another index.
    If neither can be written, the arrays are private to this process. Several processes may call
    this at the same time. It is cheaper if one process writes the file first.

    Args:
        index (AnnotationIndex): The training set.
        expand (bool): See :func:`class_images`.

    Raises:
        InputError: If no image has a box.
    """
    # The checksums identify the index that the file belongs to.
    source: dict = {
        name: index.checksums[name] for name in ('object_offsets', 'label_offsets', 'label')
    }
    if expand:
        source['ancestors'] = np.argwhere(index.hierarchy.ancestors).tolist()
    paths = list(_paths(index.path, 'class-images-expanded' if expand else 'class-images'))
    for path in paths:
        with contextlib.suppress(InputError):
            return _open(path, source)
    classes = class_images(index, expand)
    for path in paths:
        # The file system may be read-only or full.
        with contextlib.suppress(InputError, OSError):
            write_columns(
                path,
                _KIND,
                {'offsets': classes.offsets, 'images': classes.images},
                {'n_image': classes.n_image, 'made_of': source},
            )
            return _open(path, source)
    return classes


def _paths(index: Path, suffix: str) -> Iterator[Path]:
    """Where the file may be: beside the index, or in the cache directory."""
    yield Path(f'{index}.{suffix}')
    name = hashlib.sha256(os.path.realpath(index).encode()).hexdigest()
    with contextlib.suppress(OSError):
        yield cache_directory() / 'class-images' / f'{name[:32]}.{suffix}'


def _open(path: Path, source: dict | None = None) -> ClassImages:
    columns, header = map_columns(path, _KIND)
    if source is not None and header.get('made_of') != source:
        raise InputError(f'{path}: belongs to another index')
    return ClassImages(columns['offsets'], columns['images'], header['n_image'], path)
