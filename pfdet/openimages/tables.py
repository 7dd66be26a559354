"""Open Images' annotation CSVs as columns: boxes and image-level labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes
from pfdet.openimages.csv_columns import Paths, as_paths, read_batches

OCCLUDED = 1
TRUNCATED = 2
GROUP_OF = 4
DEPICTION = 8
INSIDE = 16

FLAGS = {'IsOccluded': OCCLUDED, 'IsTruncated': TRUNCATED, 'IsGroupOf': GROUP_OF,
         'IsDepiction': DEPICTION, 'IsInside': INSIDE}
_CORNERS = ('YMin', 'XMin', 'YMax', 'XMax')


@dataclass
class BoxTable:
    """The usable rows of box CSVs, in the order of the files.

    Attributes:
        image_ids (array): object ``(N,)`` of str. Every image id that occurs in the files, once,
            sorted; also those of which no row was usable.
        image (array): int32 ``(B,)``, positions in ``image_ids``.
        label (array): int32 ``(B,)``, class ids.
        bbox (array): float32 ``(B, 4)``, ``(y_min, x_min, y_max, x_max)`` relative to the image,
            in [0, 1], with positive height and width.
        flags (array): uint8 ``(B,)``, the sum of :data:`OCCLUDED` 1, :data:`TRUNCATED` 2,
            :data:`GROUP_OF` 4, :data:`DEPICTION` 8 and :data:`INSIDE` 16.
        counts (dict): ``rows`` in the files, ``boxes`` kept, of which ``clipped``; rows left out
            for an ``unknown_class`` or, with no height or width, as ``degenerate``.
        unknown (dict): Rows left out per unknown mid.
    """

    image_ids: np.ndarray
    image: np.ndarray
    label: np.ndarray
    bbox: np.ndarray
    flags: np.ndarray
    counts: dict[str, int]
    unknown: dict[str, int]


@dataclass
class ImageLabelTable:
    """The usable rows of image-level label CSVs, in the order of the files.

    Attributes:
        image_ids (array): object ``(N,)`` of str, as in :class:`BoxTable`.
        image (array): int32 ``(L,)``, positions in ``image_ids``.
        label (array): int32 ``(L,)``, class ids.
        positive (array): bool ``(L,)``. The class was verified to be in the image; otherwise
            verified to be absent.
        counts (dict): ``rows`` in the files, ``labels`` kept; rows left out for an
            ``unknown_class`` or, with a confidence between 0 and 1 as machines give it, as
            ``unverified``.
        unknown (dict): Rows left out per unknown mid.
    """

    image_ids: np.ndarray
    image: np.ndarray
    label: np.ndarray
    positive: np.ndarray
    counts: dict[str, int]
    unknown: dict[str, int]


def read_boxes(paths: Paths, classes: Classes) -> BoxTable:
    """Read box annotations of Open Images V4 to V7 or of its challenges.

    Columns go by name; those besides ``ImageID, LabelName, XMin, XMax, YMin, YMax`` and the
    five flags are ignored, and the flags may be absent. A flag of -1 is unknown and taken as
    off. Coordinates outside of [0, 1] are clipped.

    Args:
        paths (path or sequence of paths): CSV files with a header, plain or gzip.
        classes (Classes): Rows of other classes are left out and counted.

    Returns:
        BoxTable: The rows.

    Raises:
        InputError: If a file cannot be read or has no rows, a row is malformed (the message
            names file and line), or no row has a class of ``classes``.
    """
    kinds = {'ImageID': 'id', 'LabelName': 'class',
             **dict.fromkeys(('XMin', 'XMax', 'YMin', 'YMax'), 'coordinate')}
    optional = dict.fromkeys(FLAGS, 'flag')
    ids = _IdColumn()
    labels, boxes, flags = [], [], []
    mids = _MidColumn(classes)
    counts = Counter(rows=0, boxes=0, clipped=0, unknown_class=0, degenerate=0)
    for batch in read_batches(paths, kinds, optional):
        counts['rows'] += batch.num_rows
        image = ids.encode(batch.column('ImageID'))
        label = mids.encode(batch.column('LabelName'))
        bbox = np.stack([batch.column(name).to_numpy() for name in _CORNERS], axis=1)
        bits = np.zeros(batch.num_rows, np.uint8)
        for name, bit in FLAGS.items():
            if name in batch.schema.names:
                bits[batch.column(name).to_numpy() == 1] |= bit
        clipped = np.clip(bbox, 0, 1)
        known = label >= 0
        solid = (clipped[:, :2] < clipped[:, 2:]).all(axis=1)
        keep = known & solid
        counts['unknown_class'] += int((~known).sum())
        counts['degenerate'] += int((known & ~solid).sum())
        counts['clipped'] += int((clipped != bbox).any(axis=1)[keep].sum())
        ids.keep(image, keep)
        labels.append(label[keep])
        # The addition turns a negative zero, which would differ in its bits, into zero.
        boxes.append(clipped[keep] + np.float32(0))
        flags.append(bits[keep])
    mids.refuse_foreign(paths, counts['rows'])
    image_ids, image = ids.finish()
    counts['boxes'] = len(image)
    return BoxTable(image_ids, image, np.concatenate(labels), np.concatenate(boxes),
                    np.concatenate(flags), dict(counts), dict(mids.unknown))


def read_image_labels(paths: Paths, classes: Classes) -> ImageLabelTable:
    """Read image-level labels verified by people.

    The columns are ``ImageID, LabelName`` and ``Confidence``: 1 says that the class is in the
    image, 0 that it is not. Without a ``Confidence`` column every row is positive.

    Args:
        paths (path or sequence of paths): CSV files with a header, plain or gzip.
        classes (Classes): Rows of other classes are left out and counted.

    Returns:
        ImageLabelTable: The rows.

    Raises:
        InputError: As in :func:`read_boxes`.
    """
    kinds = {'ImageID': 'id', 'LabelName': 'class'}
    ids = _IdColumn()
    mids = _MidColumn(classes)
    labels, positives = [], []
    counts = Counter(rows=0, labels=0, unknown_class=0, unverified=0)
    for batch in read_batches(paths, kinds, {'Confidence': 'confidence'}):
        counts['rows'] += batch.num_rows
        image = ids.encode(batch.column('ImageID'))
        label = mids.encode(batch.column('LabelName'))
        if 'Confidence' in batch.schema.names:
            confidence = batch.column('Confidence').to_numpy()
        else:
            confidence = np.ones(batch.num_rows, np.float32)
        known = label >= 0
        verified = (confidence == 0) | (confidence == 1)
        keep = known & verified
        counts['unknown_class'] += int((~known).sum())
        counts['unverified'] += int((known & ~verified).sum())
        ids.keep(image, keep)
        labels.append(label[keep])
        positives.append(confidence[keep] == 1)
    mids.refuse_foreign(paths, counts['rows'])
    image_ids, image = ids.finish()
    counts['labels'] = len(image)
    return ImageLabelTable(image_ids, image, np.concatenate(labels),
                           np.concatenate(positives), dict(counts), dict(mids.unknown))


def union_of_ids(
        tables: Sequence[BoxTable | ImageLabelTable]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Join the image ids of several tables.

    Args:
        tables (sequence of tables): Each with sorted ``image_ids``.

    Returns:
        tuple: The ids of all tables, sorted, as object ``(N,)``, and for every table an int32
        array that maps its positions to positions in the union.
    """
    union, places = _sorted_union([pa.array(table.image_ids, pa.string()) for table in tables])
    return union.to_numpy(zero_copy_only=False), places


def _sorted_union(chunks: list[pa.Array]) -> tuple[pa.Array, list[np.ndarray]]:
    """Return the distinct strings of all chunks, sorted by code point, and each one's place."""
    # All chunks at once: every look-up of its own would build the table of the union anew.
    joined = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in chunks])
    union = pc.unique(joined)
    union = union.take(pc.array_sort_indices(union))
    places = pc.index_in(joined, value_set=union).to_numpy()
    return union, np.split(places, np.cumsum([len(chunk) for chunk in chunks])[:-1])


class _IdColumn:
    """Image ids gathered batch by batch, and numbered in sorted order at the end."""

    def __init__(self) -> None:
        self._dictionaries: list[pa.Array] = []
        self._codes: list[np.ndarray] = []

    def encode(self, column: pa.Array) -> np.ndarray:
        encoded = column.dictionary_encode()
        self._dictionaries.append(encoded.dictionary)
        return encoded.indices.to_numpy()

    def keep(self, codes: np.ndarray, keep: np.ndarray) -> None:
        self._codes.append(codes[keep])

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        union, places = _sorted_union(self._dictionaries)
        image = [place[codes] for place, codes in zip(places, self._codes)]
        return union.to_numpy(zero_copy_only=False), np.concatenate(image)


class _MidColumn:
    """Mids turned into class ids, -1 for the unknown, which are counted by name."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self.unknown: Counter[str] = Counter()

    def encode(self, column: pa.Array) -> np.ndarray:
        encoded = column.dictionary_encode()
        mids = encoded.dictionary.to_pylist()
        codes = encoded.indices.to_numpy()
        of_code = np.array([self._classes.ids.get(mid, -1) for mid in mids], np.int32)
        for code in np.flatnonzero(of_code < 0):
            self.unknown[mids[code]] += int((codes == code).sum())
        return of_code[codes]

    def refuse_foreign(self, paths: Paths, n_row: int) -> None:
        if n_row and sum(self.unknown.values()) == n_row:
            files = ', '.join(str(path) for path in as_paths(paths))
            named = ', '.join(mid for mid, _ in self.unknown.most_common(5))
            raise InputError(
                f'{files}: none of the {n_row} rows has one of the {len(self._classes)} classes; '
                f'expected LabelName such as {self._classes.mids[0]}, found {named}; '
                'is this the right class file?')


def describe_unknown(unknown: dict[str, int], n_named: int = 5) -> str:
    """Return one phrase on the unknown classes, the most frequent by name.

    Args:
        unknown (dict): Rows per mid, from a table.
        n_named (int): How many to name.
    """
    most = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
    named = ', '.join(f'{mid} ({n})' for mid, n in most[:n_named])
    return named + (f' and {len(most) - n_named} more' if len(most) > n_named else '')
