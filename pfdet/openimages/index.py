"""The annotation index: a split's annotations as memory-mapped columns.

``python -m pfdet.openimages.build_index`` makes it from Open Images' files. Opening it reads
nothing but a header, with NumPy alone, and all processes of a node share one copy in memory.

The columns, for N images sorted by id, O objects and L labels of objects. Offsets are int32 or,
where that is too small, int64; ``x_offsets[i]:x_offsets[i + 1]`` are the positions that belong
to ``i``.

===================== ==================== =====================================================
column                shape, dtype         what
===================== ==================== =====================================================
id_offsets            (N + 1,)             of image ids
id_bytes              (.,) uint8           image ids in UTF-8
image_size            (N, 2) int32         height and width; 0, 0 where there was no file
image_suffix          (N,) uint8           position in the header's list of file suffixes
object_offsets        (N + 1,)             of objects
bbox                  (O, 4) float32       y_min, x_min, y_max, x_max in [0, 1]
flags                 (O,) uint8           see :mod:`pfdet.openimages.tables`
label_offsets         (O + 1,)             of labels
label                 (L,) int16           class ids, ascending in an object
positive_offsets      (N + 1,)             of ``positive``
positive              (.,) int16           classes verified to be in the image, or boxed there
negative_offsets      (N + 1,)             of ``negative``
negative              (.,) int16           classes verified to be absent
===================== ==================== =====================================================
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes
from pfdet.openimages.column_file import (
    find_root,
    map_columns,
    relative_root,
    verify_columns,
    write_columns,
)
from pfdet.openimages.hierarchy import Hierarchy

_KIND = 'annotation index'


# Which column each column of offsets divides, and which column it has an entry for every row of.
_OFFSETS = {
    'id_offsets': ('id_bytes', 'image_size'),
    'object_offsets': ('bbox', 'image_size'),
    'label_offsets': ('label', 'bbox'),
    'positive_offsets': ('positive', 'image_size'),
    'negative_offsets': ('negative', 'image_size'),
}


class Annotation(NamedTuple):
    """The annotation of one image with R objects, as annotated: nothing is expanded.

    Attributes:
        bbox (array): float32 ``(R, 4)``, ``(y_min, x_min, y_max, x_max)`` in [0, 1].
        label (array): bool ``(R, C)``, the label set of every object.
        flags (array): uint8 ``(R,)``.
        positive (array): bool ``(C,)``, classes verified to be in the image, or boxed there.
        negative (array): bool ``(C,)``, classes verified to be absent.
    """

    bbox: np.ndarray
    label: np.ndarray
    flags: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


class AnnotationIndex:
    """A split's annotations. Open it with :meth:`AnnotationIndex.open`.

    It can be pickled, which sends the path: the other process maps the same file.

    Attributes:
        path (pathlib.Path): The index file.
        images (pathlib.Path): The directory of the image files.
        classes (Classes): The label space.
        hierarchy (Hierarchy): Over ``classes``.
        columns (mapping): Read-only arrays by name; the module's docstring lists them.
        counts (mapping): The counts of the build's report.
    """

    def __init__(
        self,
        path: Path,
        images: Path | None,
        columns: dict[str, np.ndarray],
        header: Mapping[str, Any],
    ) -> None:
        self.path = path
        self.images = images if images is not None else find_root(header['images'], path)
        self.classes = Classes(tuple(header['mids']), tuple(header['names']))
        self.columns = columns
        self.counts = header['counts']
        self._images = images
        self._header = header
        self._id_offsets = columns['id_offsets']
        self._id_bytes = columns['id_bytes']
        self._object_offsets = columns['object_offsets']
        self._bbox = columns['bbox']
        self._flags = columns['flags']
        self._label_offsets = columns['label_offsets']
        self._label = columns['label']

    @functools.cached_property
    def hierarchy(self) -> Hierarchy:
        # Made when asked for, since its matrices are a part of what a process needs of its own.
        ancestors = np.zeros((len(self.classes),) * 2, bool)
        pairs = np.array(self._header['ancestors'], np.intp).reshape(-1, 2)
        ancestors[pairs[:, 0], pairs[:, 1]] = True
        return Hierarchy(ancestors)

    @classmethod
    def open(
        cls, path: str | os.PathLike, images: str | os.PathLike | None = None
    ) -> 'AnnotationIndex':
        """Open an index.

        Args:
            path (path): The file ``build_index`` wrote.
            images (path): The directory of the same image files, if they have moved. By default
                they are looked for where they were relative to the index, then where they were.

        Raises:
            InputError: If the file is missing, truncated, no index, of another format version,
                or its header is damaged. Damage elsewhere is for :meth:`verify` to find.
        """
        path = Path(os.path.abspath(path))
        columns, header = map_columns(path, _KIND)
        try:
            _check(columns)
            return cls(path, None if images is None else Path(images), columns, header)
        except (KeyError, TypeError, ValueError) as e:
            raise InputError(
                f'{path}: the columns do not fit together ({type(e).__name__}: {e}); '
                f'expected a complete {_KIND} of pfdet'
            ) from e

    def __reduce__(self) -> tuple:
        return AnnotationIndex.open, (self.path, self._images)

    def __len__(self) -> int:
        return len(self._id_offsets) - 1

    def _position(self, i: int) -> int:
        n_image = len(self._id_offsets) - 1
        if not -n_image <= i < n_image:
            raise IndexError(f'image {i} of an index of {n_image} images')
        return i + n_image if i < 0 else i

    def verify(self) -> None:
        """Compare the checksums of all columns, which :meth:`open` does not read.

        Raises:
            InputError: If a column is damaged.
        """
        verify_columns(self.path, self.columns, self._header)

    def image_id(self, i: int) -> str:
        """Return the id of image ``i``."""
        i = self._position(i)
        return self._id_bytes[self._id_offsets[i] : self._id_offsets[i + 1]].tobytes().decode()

    def find(self, image_id: str) -> int:
        """Return the position of an image id.

        Raises:
            KeyError: If the index has no such image.
        """
        wanted = image_id.encode()
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            at = self._id_offsets[middle : middle + 2]
            if self._id_bytes[at[0] : at[1]].tobytes() < wanted:
                low = middle + 1
            else:
                high = middle
        if low == len(self) or self.image_id(low) != image_id:
            raise KeyError(image_id)
        return low

    def image_path(self, i: int) -> Path:
        """Return the path of image ``i``; of one without a file, where it should have been."""
        suffix = self._header['suffixes'][self.columns['image_suffix'][self._position(i)]]
        return self.images / (self.image_id(i) + suffix)

    def image_size(self, i: int) -> tuple[int, int]:
        """Return ``(H, W)`` of image ``i`` in pixels; ``(0, 0)`` if there was no file."""
        height, width = self.columns['image_size'][self._position(i)]
        return int(height), int(width)

    def annotation(self, i: int) -> Annotation:
        """Return the annotation of image ``i``, as arrays of its own.

        Raises:
            IndexError: If there is no image ``i``.
        """
        i = self._position(i)
        first, last = self._object_offsets[i], self._object_offsets[i + 1]
        bounds = self._label_offsets[first : last + 1]
        n_object = int(last - first)
        label = np.zeros((n_object, len(self.classes)), bool)
        if n_object:
            row = np.repeat(np.arange(n_object), bounds[1:] - bounds[:-1])
            label[row, self._label[bounds[0] : bounds[-1]]] = True
        return Annotation(
            self._bbox[first:last].copy(),
            label,
            self._flags[first:last].copy(),
            self._verified('positive', i),
            self._verified('negative', i),
        )

    def _verified(self, name: str, i: int) -> np.ndarray:
        offsets = self.columns[name + '_offsets']
        verified = np.zeros(len(self.classes), bool)
        verified[self.columns[name][offsets[i] : offsets[i + 1]]] = True
        return verified

    def image_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the classes that have a box, per image, as annotated.

        Returns:
            tuple: int64 offsets ``(N + 1,)`` and int16 class ids, ascending and without
            repetition in an image: image ``i`` has ``ids[offsets[i]:offsets[i + 1]]``.
        """
        n_class = len(self.classes)
        image = np.repeat(np.arange(len(self)), np.diff(self._label_offsets[self._object_offsets]))
        key = distinct(image * n_class + self._label)
        offsets = np.searchsorted(key, np.arange(len(self) + 1) * n_class)
        return offsets, (key % n_class).astype(np.int16)


def _check(columns: Mapping[str, np.ndarray]) -> None:
    # Lengths alone: looking at every number is left to the checksums.
    for name, (divided, counted) in _OFFSETS.items():
        offsets = columns[name]
        if len(offsets) != len(columns[counted]) + 1 or offsets[-1] != len(columns[divided]):
            raise ValueError(f'{name} does not fit {divided} and {counted}')
    for name, like in (('image_suffix', 'image_size'), ('flags', 'bbox')):
        if len(columns[name]) != len(columns[like]):
            raise ValueError(f'{name} does not fit {like}')


def distinct(values: np.ndarray) -> np.ndarray:
    """Return the distinct values, ascending: :func:`numpy.unique`, faster on millions of integers.

    Args:
        values (array): Integers ``(N,)``.
    """
    values = np.sort(values)
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return values[new]


def write_index(
    path: str | os.PathLike,
    columns: Mapping[str, np.ndarray],
    classes: Classes,
    hierarchy: Hierarchy,
    images: str | os.PathLike,
    suffixes: list[str],
    counts: Mapping[str, int],
) -> int:
    """Write an index; the file appears when it is complete.

    Args:
        path (path): The index file.
        columns (mapping): As the module's docstring lists them.
        classes (Classes): The label space, of at most 32,767 classes.
        hierarchy (Hierarchy): Over ``classes``.
        images (path): The directory of the image files.
        suffixes (list of str): What ``image_suffix`` refers to, such as ``'.jpg'``.
        counts (mapping): For the reader to ask.

    Returns:
        int: The size of the file in bytes.

    Raises:
        OSError: If the file cannot be written.
    """
    header = {
        'mids': classes.mids,
        'names': classes.names,
        'ancestors': np.argwhere(hierarchy.ancestors).tolist(),
        'images': relative_root(images, path),
        'suffixes': suffixes,
        'counts': dict(counts),
    }
    return write_columns(path, _KIND, columns, header)
