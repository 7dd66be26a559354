"""The annotation index: the annotations of a split as memory-mapped columns.

``python -m pfdet.openimages.build_index`` compiles it from the files of Open Images. Opening an
index verifies its checksums, once per node and day, and needs only NumPy. All processes of a node
share one copy in memory.

The table lists the columns of an index of N images, sorted by id, with O objects that have L labels
in total. Offsets are int32, or int64 if necessary: entry ``i`` owns the positions from
``offsets[i]`` to ``offsets[i + 1] - 1``.

===================== ==================== =====================================================
column                shape, dtype         content
===================== ==================== =====================================================
id_offsets            (N + 1,)             offsets into ``id_bytes``, per image
id_bytes              (.,) uint8           image ids in UTF-8
image_size            (N, 2) int32         height and width in pixels; 0, 0 without a file
image_suffix          (N,) uint8           position in the header's list of file suffixes
object_offsets        (N + 1,)             offsets into ``bbox`` and ``flags``, per image
bbox                  (O, 4) float32       y_min, x_min, y_max, x_max in [0, 1]
flags                 (O,) uint8           bits of :mod:`pfdet.openimages.box_flags`: group-of is
                                           that of all labels of the object, the others are the
                                           union of those of its labels
label_offsets         (O + 1,)             offsets into ``label``, per object
label                 (L,) int16           class ids, ascending within an object
positive_offsets      (N + 1,)             offsets into ``positive``, per image
positive              (.,) int16           classes that are verified as present or have a box
negative_offsets      (N + 1,)             offsets into ``negative``, per image
negative              (.,) int16           classes that are verified as absent
===================== ==================== =====================================================

Further columns are present only where they are needed:

===================== ==================== =====================================================
order                 (L,) int16 or int32  rank of the first row with the object and label, among
                                           those of the image; of boxes that overlap a detection
                                           equally, the metric takes the first
n_row                 (L,) uint8 or int32  number of rows with the object and label, if any is
                                           repeated: for the metric, each row is an object
contradictory_offsets (N + 1,)             offsets into ``contradictory``, per image
contradictory         (.,) int16           classes in ``positive`` that are also verified as absent
image_folder          (N,) int16 or int32  position in the header's list of folders, if a file is
                                           not directly in the directory of the images
===================== ==================== =====================================================
"""

import functools
import os
from collections.abc import Mapping, Sequence
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


# Per column of offsets: the column it points into, and a column with one row per entry.
_OFFSETS = {
    'id_offsets': ('id_bytes', 'image_size'),
    'object_offsets': ('bbox', 'image_size'),
    'label_offsets': ('label', 'bbox'),
    'positive_offsets': ('positive', 'image_size'),
    'negative_offsets': ('negative', 'image_size'),
    'contradictory_offsets': ('contradictory', 'image_size'),
}
# Per column: another one of the same length.
_SAME_LENGTH = {
    'image_suffix': 'image_size',
    'image_folder': 'image_size',
    'flags': 'bbox',
    'order': 'label',
    'n_row': 'label',
}
_OPTIONAL = ('contradictory_offsets', 'image_folder', 'order', 'n_row')


class Annotation(NamedTuple):
    """The annotation of one image with R objects. Labels are not expanded up the hierarchy.

    Attributes:
        bbox (array): float32 ``(R, 4)``, ``(y_min, x_min, y_max, x_max)`` in [0, 1].
        label (array): bool ``(R, C)``, the label set of each object.
        flags (array): uint8 ``(R,)``, bits of :mod:`pfdet.openimages.box_flags`.
        positive (array): bool ``(C,)``, classes that are verified as present or have a box.
        negative (array): bool ``(C,)``, classes that are verified as absent.
    """

    bbox: np.ndarray
    label: np.ndarray
    flags: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


class AnnotationIndex:
    """The annotations of a split. Open it with :meth:`AnnotationIndex.open`.

    Pickling an index stores its path, so another process maps the same file.

    Attributes:
        path (pathlib.Path): The index file.
        images (pathlib.Path): The directory of the image files.
        classes (Classes): The label space, of ``C`` classes.
        hierarchy (Hierarchy): The hierarchy of ``classes``.
        annotated (array): Ids of the classes that the data set annotates, ascending. Other classes
            have no labels of their own. All classes, unless another data set was compiled with the
            classes of Open Images.
        columns (mapping): Read-only arrays by name, as listed in the module's docstring.
        counts (mapping): Counts of the build, see
            :class:`~pfdet.openimages.build_index.BuildReport`.
        suffixes (list of str): File suffixes that ``image_suffix`` refers to, such as ``'.jpg'``.
        folders (list of str): Folders below ``images`` that ``image_folder`` refers to.
        file_names (mapping): From image id to path below ``images``, of the files whose names are
            in another Unicode normalization than the ids.
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
        annotated = header.get('annotated', range(len(self.classes)))
        self.annotated = np.array(annotated, np.int64)
        self.columns = columns
        self.counts = header['counts']
        self.suffixes: list[str] = header['suffixes']
        self.folders: list[str] = header.get('folders', [''])
        self.file_names: Mapping[str, str] = header.get('file_names', {})
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
        # Built on first use: unlike the columns, its matrices are not shared between processes.
        ancestors = np.zeros((len(self.classes),) * 2, bool)
        pairs = np.array(self._header['ancestors'], np.intp).reshape(-1, 2)
        ancestors[pairs[:, 0], pairs[:, 1]] = True
        return Hierarchy(ancestors)

    @property
    def checksums(self) -> dict[str, int]:
        """CRC-32 of each column."""
        return {name: entry['crc32'] for name, entry in self._header['columns'].items()}

    @classmethod
    def open(
        cls, path: str | os.PathLike, images: str | os.PathLike | None = None
    ) -> 'AnnotationIndex':
        """Open an index.

        Args:
            path (path): A file written by ``build_index``.
            images (path): The directory of the image files. By default, the directory given when
                the index was built: first at the same location relative to the index, then at
                the same absolute location.

        Returns:
            AnnotationIndex: The index.

        Raises:
            InputError: If the file is missing, truncated, damaged, not an index, or of another
                format version. Large indexes are read once per node and day, see
                :mod:`pfdet.files.verified_files`.
        """
        path = Path(os.path.abspath(path))
        columns, header = map_columns(path, _KIND)
        try:
            _check(columns)
            return cls(path, None if images is None else Path(images), columns, header)
        except (KeyError, TypeError, ValueError) as e:
            raise InputError(
                f'{path}: the columns do not match each other ({type(e).__name__}: {e}); '
                f'expected a complete {_KIND} of pfdet'
            ) from e

    def __reduce__(self) -> tuple:
        return AnnotationIndex.open, (self.path, self._images)

    def __len__(self) -> int:
        return len(self._id_offsets) - 1

    def _position(self, i: int) -> int:
        n_image = len(self._id_offsets) - 1
        if not -n_image <= i < n_image:
            raise IndexError(f'image {i} is out of range for an index of {n_image} images')
        return i + n_image if i < 0 else i

    def verify(self) -> None:
        """Verify the checksums of all columns, whether or not :meth:`open` has done so.

        Raises:
            InputError: If a column is damaged. The message names it.
        """
        verify_columns(self.path, self.columns, self._header)

    def image_id(self, i: int) -> str:
        """Return the id of image ``i``.

        Raises:
            IndexError: If there is no image ``i``.
        """
        i = self._position(i)
        return self._id_bytes[self._id_offsets[i] : self._id_offsets[i + 1]].tobytes().decode()

    def find(self, image_id: str) -> int:
        """Return the position of an image id, by binary search.

        Raises:
            KeyError: If the index has no such image.
        """
        target = image_id.encode()
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            bounds = self._id_offsets[middle : middle + 2]
            if self._id_bytes[bounds[0] : bounds[1]].tobytes() < target:
                low = middle + 1
            else:
                high = middle
        if low == len(self) or self.image_id(low) != image_id:
            raise KeyError(image_id)
        return low

    def image_path(self, i: int) -> Path:
        """Return the path of image ``i``, or where its file was expected if it had none.

        Raises:
            IndexError: If there is no image ``i``.
        """
        i, image_id = self._position(i), self.image_id(i)
        if image_id in self.file_names:
            return self.images / self.file_names[image_id]
        name = image_id + self.suffixes[self.columns['image_suffix'][i]]
        if 'image_folder' in self.columns:
            return self.images / self.folders[self.columns['image_folder'][i]] / name
        return self.images / name

    def image_size(self, i: int) -> tuple[int, int]:
        """Return ``(H, W)`` of image ``i`` in pixels, or ``(0, 0)`` if it had no file.

        Raises:
            IndexError: If there is no image ``i``.
        """
        height, width = self.columns['image_size'][self._position(i)]
        return int(height), int(width)

    def annotation(self, i: int) -> Annotation:
        """Return the annotation of image ``i``. The arrays are copies.

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
        """Return the boxed classes of each image, as annotated.

        Returns:
            tuple: int64 offsets ``(N + 1,)`` and int16 class ids. Image ``i`` has the classes
            ``ids[offsets[i]:offsets[i + 1]]``, distinct and ascending.
        """
        n_class = len(self.classes)
        image = np.repeat(np.arange(len(self)), np.diff(self._label_offsets[self._object_offsets]))
        key = distinct(image * n_class + self._label)
        offsets = np.searchsorted(key, np.arange(len(self) + 1) * n_class)
        return offsets, (key % n_class).astype(np.int16)


def _check(columns: Mapping[str, np.ndarray]) -> None:
    # Checks lengths only. The checksums cover the values.
    for name, (values, rows) in _OFFSETS.items():
        if name in _OPTIONAL and name not in columns:
            continue
        offsets = columns[name]
        if len(offsets) != len(columns[rows]) + 1 or offsets[-1] != len(columns[values]):
            raise ValueError(f'{name} does not match {values} and {rows}')
    for name, rows in _SAME_LENGTH.items():
        if name in _OPTIONAL and name not in columns:
            continue
        if len(columns[name]) != len(columns[rows]):
            raise ValueError(f'{name} does not match {rows}')


def distinct(values: np.ndarray) -> np.ndarray:
    """Return the distinct values in ascending order.

    This is :func:`numpy.unique`, but faster on millions of integers.

    Args:
        values (array): Integers ``(N,)``.

    Returns:
        array: Of the same dtype.
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
    annotated: np.ndarray | None = None,
    folders: Sequence[str] = ('',),
    file_names: Mapping[str, str] | None = None,
) -> int:
    """Write an index. The file appears when it is complete.

    Args:
        path (path): The index file.
        columns (mapping): Arrays by name, as listed in the module's docstring.
        classes (Classes): The label space, of at most 32,767 classes.
        hierarchy (Hierarchy): The hierarchy of ``classes``.
        images (path): The directory of the image files.
        suffixes (list of str): File suffixes that ``image_suffix`` refers to, such as ``'.jpg'``.
        counts (mapping): Stored as :attr:`AnnotationIndex.counts`.
        annotated (array): See :attr:`AnnotationIndex.annotated`. By default all classes.
        folders (sequence of str): Stored as :attr:`AnnotationIndex.folders`.
        file_names (mapping): Stored as :attr:`AnnotationIndex.file_names`.

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
        'folders': list(folders),
        'file_names': dict(file_names or {}),
    }
    if annotated is not None:
        header['annotated'] = np.asarray(annotated).tolist()
    return write_columns(path, _KIND, columns, header)
