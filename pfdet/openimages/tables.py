"""Open Images' annotation CSVs as columns: boxes and image-level labels."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfdet.errors import InputError
from pfdet.openimages.arrow_arrays import from_numbers, numbers
from pfdet.openimages.box_flags import DEPICTION, GROUP_OF, INSIDE, OCCLUDED, TRUNCATED
from pfdet.openimages.classes import Classes
from pfdet.openimages.csv_columns import Paths, as_paths, map_batches

FLAGS = {
    'IsOccluded': OCCLUDED,
    'IsTruncated': TRUNCATED,
    'IsGroupOf': GROUP_OF,
    'IsDepiction': DEPICTION,
    'IsInside': INSIDE,
}
_CORNERS = ('YMin', 'XMin', 'YMax', 'XMax')


class _Table:
    ids: pa.Array

    @functools.cached_property
    def image_ids(self) -> np.ndarray:
        image_ids = np.empty(len(self.ids), object)
        image_ids[:] = self.ids.to_pylist()
        return image_ids


@dataclass
class BoxTable(_Table):
    """The usable rows of box CSVs, in the order of the files.

    Attributes:
        image_ids (array): object ``(N,)`` of str. Every image id that occurs in the files, once,
            sorted; also those of which no row was usable.
        ids (pyarrow.Array): The same, as Arrow's large strings.
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

    ids: pa.Array
    image: np.ndarray
    label: np.ndarray
    bbox: np.ndarray
    flags: np.ndarray
    counts: dict[str, int]
    unknown: dict[str, int]


@dataclass
class ImageLabelTable(_Table):
    """The usable rows of image-level label CSVs, in the order of the files.

    Attributes:
        image_ids (array): object ``(N,)`` of str, as in :class:`BoxTable`.
        ids (pyarrow.Array): The same, as Arrow's large strings.
        image (array): int32 ``(L,)``, positions in ``image_ids``.
        label (array): int32 ``(L,)``, class ids.
        positive (array): bool ``(L,)``. The class was verified to be in the image; otherwise
            verified to be absent.
        counts (dict): ``rows`` in the files, ``labels`` kept; rows left out for an
            ``unknown_class`` or, with a confidence between 0 and 1 as machines give it, as
            ``unverified``.
        unknown (dict): Rows left out per unknown mid.
    """

    ids: pa.Array
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
    kinds = {
        'ImageID': 'id',
        'LabelName': 'class',
        **dict.fromkeys(('XMin', 'XMax', 'YMin', 'YMax'), 'coordinate'),
    }
    optional = dict.fromkeys(FLAGS, 'flag')
    parts = list(map_batches(functools.partial(_box_part, classes), paths, kinds, optional))
    counts, unknown = _total(parts, paths, classes)
    ids, image = _number_ids(parts)
    return BoxTable(
        ids,
        image,
        *(np.concatenate([part.columns[k] for part in parts]) for k in range(3)),
        counts,
        unknown,
    )


def _box_part(classes: Classes, batch: pa.RecordBatch) -> '_Part':
    ids = batch.column('ImageID')
    label, unknown = _encode_mids(batch.column('LabelName'), classes)
    bbox = np.empty((batch.num_rows, 4), np.float32)
    for k, name in enumerate(_CORNERS):
        bbox[:, k] = numbers(batch.column(name))
    flags = np.zeros(batch.num_rows, np.uint8)
    for name, bit in FLAGS.items():
        if name in batch.schema.names:
            flags |= (numbers(batch.column(name)) == 1) * np.uint8(bit)
    outside = ((bbox < 0) | (bbox > 1)).any(axis=1)
    np.clip(bbox, 0, 1, out=bbox)
    bbox += 0  # turns a negative zero, which would differ in its bits, into zero
    known = label >= 0
    solid = (bbox[:, 0] < bbox[:, 2]) & (bbox[:, 1] < bbox[:, 3])
    keep = known & solid
    counts = {
        'rows': batch.num_rows,
        'boxes': int(keep.sum()),
        'clipped': int((outside & keep).sum()),
        'unknown_class': int((~known).sum()),
        'degenerate': int((known & ~solid).sum()),
    }
    image = numbers(ids.indices)
    if not keep.all():
        image, label, bbox, flags = image[keep], label[keep], bbox[keep], flags[keep]
    return _Part(ids.dictionary, image, (label, bbox, flags), counts, unknown)


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
    parts = list(
        map_batches(
            functools.partial(_label_part, classes), paths, kinds, {'Confidence': 'confidence'}
        )
    )
    counts, unknown = _total(parts, paths, classes)
    ids, image = _number_ids(parts)
    return ImageLabelTable(
        ids,
        image,
        *(np.concatenate([part.columns[k] for part in parts]) for k in range(2)),
        counts,
        unknown,
    )


def _label_part(classes: Classes, batch: pa.RecordBatch) -> '_Part':
    ids = batch.column('ImageID')
    label, unknown = _encode_mids(batch.column('LabelName'), classes)
    if 'Confidence' in batch.schema.names:
        confidence = numbers(batch.column('Confidence'))
    else:
        confidence = np.ones(batch.num_rows, np.float32)
    known = label >= 0
    verified = (confidence == 0) | (confidence == 1)
    keep = known & verified
    counts = {
        'rows': batch.num_rows,
        'labels': int(keep.sum()),
        'unknown_class': int((~known).sum()),
        'unverified': int((known & ~verified).sum()),
    }
    return _Part(
        ids.dictionary,
        numbers(ids.indices)[keep],
        (label[keep], confidence[keep] == 1),
        counts,
        unknown,
    )


@dataclass
class _Part:
    """The usable rows of a batch."""

    ids: pa.Array
    image: np.ndarray
    columns: tuple[np.ndarray, ...]
    counts: dict[str, int]
    unknown: Counter[str]


def _encode_mids(column: pa.DictionaryArray, classes: Classes) -> tuple[np.ndarray, Counter[str]]:
    """Turn mids into class ids, -1 for the unknown, which are counted by name."""
    mids = column.dictionary.to_pylist()
    of_code = np.array([classes.ids.get(mid, -1) for mid in mids], np.int32)
    codes = numbers(column.indices)
    unknown = Counter()
    if (of_code < 0).any():
        n_row = np.bincount(codes, minlength=len(mids))
        unknown.update({mids[code]: int(n_row[code]) for code in np.flatnonzero(of_code < 0)})
    return of_code[codes], unknown


def _total(
    parts: list[_Part], paths: Paths, classes: Classes
) -> tuple[dict[str, int], dict[str, int]]:
    counts = {name: sum(part.counts[name] for part in parts) for name in parts[0].counts}
    unknown = sum((part.unknown for part in parts), Counter())
    if counts['unknown_class'] == counts['rows']:
        files = ', '.join(str(path) for path in as_paths(paths))
        named = ', '.join(mid for mid, _ in unknown.most_common(5))
        raise InputError(
            f'{files}: none of the {counts["rows"]} rows has one of the {len(classes)} classes; '
            f'expected LabelName such as {classes.mids[0]}, found {named}; '
            'is this the right class file?'
        )
    return counts, dict(unknown)


def _number_ids(parts: list[_Part]) -> tuple[pa.Array, np.ndarray]:
    """Number the image ids of all parts in sorted order."""
    # All parts at once: every look-up of its own would build the table of the union anew.
    joined = pa.concat_arrays([part.ids.cast(pa.large_string()) for part in parts])
    union, places = _sorted_distinct(joined)
    places = np.split(places, np.cumsum([len(part.ids) for part in parts])[:-1])
    return union, np.concatenate([place[part.image] for place, part in zip(places, parts)])


def _sorted_distinct(strings: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return the distinct strings, sorted by code point, and the place of each string."""
    before, after = strings[:-1], strings[1:]
    if pc.all(pc.less_equal(before, after)).as_py() is not False:
        # Open Images' files are sorted by image: equal ids are neighbours.
        new = np.ones(len(strings), np.int8)
        new[1:] = numbers(pc.not_equal(before, after).cast(pa.int8()))
        first = np.flatnonzero(new).astype(np.int32)
        return strings.take(from_numbers(first)), np.cumsum(new, dtype=np.int32) - np.int32(1)
    distinct = pc.unique(strings)
    distinct = distinct.take(pc.array_sort_indices(distinct))
    return distinct, numbers(pc.index_in(strings, value_set=distinct))


def union_of_ids(
    tables: Sequence[BoxTable | ImageLabelTable],
) -> tuple[list[str], list[np.ndarray]]:
    """Join the image ids of several tables.

    Args:
        tables (sequence of tables): The tables.

    Returns:
        tuple: The ids of all tables, sorted, and for every table an int32 array that maps its
        positions to positions in the union.
    """
    ids, places = arrow_union_of_ids(tables)
    return ids.to_pylist(), places


def arrow_union_of_ids(
    tables: Sequence[BoxTable | ImageLabelTable],
) -> tuple[pa.Array, list[np.ndarray]]:
    """Do as :func:`union_of_ids`; the ids are Arrow's large strings."""
    union = tables[0].ids
    found = [pc.index_in(table.ids, value_set=union) for table in tables]
    if any(places.null_count for places in found):
        union, _ = _sorted_distinct(pa.concat_arrays([table.ids for table in tables]))
        found = [pc.index_in(table.ids, value_set=union) for table in tables]
    return union, [numbers(places) for places in found]


def describe_unknown(unknown: dict[str, int], n_named: int = 5) -> str:
    """Return one phrase on the unknown classes, the most frequent by name.

    Args:
        unknown (dict): Rows per mid, from a table.
        n_named (int): How many to name.
    """
    most = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
    named = ', '.join(f'{mid} ({n})' for mid, n in most[:n_named])
    return named + (f' and {len(most) - n_named} more' if len(most) > n_named else '')
