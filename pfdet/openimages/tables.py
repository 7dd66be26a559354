"""Read the annotation CSVs of Open Images into columns: boxes and image-level labels."""

import functools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pfdet.errors import InputError
from pfdet.openimages.arrow_arrays import numbers
from pfdet.openimages.box_flags import DEPICTION, GROUP_OF, INSIDE, OCCLUDED, TRUNCATED
from pfdet.openimages.classes import Classes
from pfdet.openimages.csv_columns import Paths, as_paths, map_batches, n_rewritten
from pfdet.openimages.image_ids import sorted_distinct

FLAGS = {
    'IsOccluded': OCCLUDED,
    'IsTruncated': TRUNCATED,
    'IsGroupOf': GROUP_OF,
    'IsDepiction': DEPICTION,
    'IsInside': INSIDE,
}
_CORNERS = ('YMin', 'XMin', 'YMax', 'XMax')
#: Sources of image-level labels that annotators drew, or verified as present or absent. Open Images
#: also has ``machine``, a classifier. A file without sources contains labels of annotators.
HUMAN_SOURCES = frozenset(
    ('verification', 'crowdsource-verification', 'human', 'xclick', 'freeform', 'activemil', '')
)


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
        image_ids (array): object ``(N,)`` of str. The distinct image ids in the files, sorted,
            including images without a usable row.
        ids (pyarrow.Array): The same as an Arrow array of large strings.
        image (array): int32 ``(B,)``, positions in ``image_ids``.
        label (array): int32 ``(B,)``, class ids.
        bbox (array): float32 ``(B, 4)``, ``(y_min, x_min, y_max, x_max)`` relative to the image,
            in [0, 1], with positive height and width. In pixels, see :func:`read_boxes`.
        flags (array): uint8 ``(B,)``, the sum of :data:`OCCLUDED` 1, :data:`TRUNCATED` 2,
            :data:`GROUP_OF` 4, :data:`DEPICTION` 8 and :data:`INSIDE` 16.
        counts (dict): ``rows`` in the files; ``boxes`` that are kept and how many of these are
            ``clipped``; skipped rows of an ``unknown_class`` or of zero area (``degenerate``);
            values that were not in normal form, such as ``1.0`` for a flag (``rewritten``).
        unknown (dict): Number of skipped rows per unknown mid.
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
        ids (pyarrow.Array): The same as an Arrow array of large strings.
        image (array): int32 ``(L,)``, positions in ``image_ids``.
        label (array): int32 ``(L,)``, class ids.
        positive (array): bool ``(L,)``. True if the class is verified as present, false if it is
            verified as absent.
        counts (dict): ``rows`` in the files; ``labels`` that are kept; skipped rows of an
            ``unknown_class``, of another source than annotators (``machine``), or with a
            confidence between 0 and 1 (``unverified``); values that were not in normal form
            (``rewritten``).
        unknown (dict): Number of skipped rows per unknown mid.
        sources (dict): Number of skipped rows per source that is not among
            :data:`HUMAN_SOURCES`.
    """

    ids: pa.Array
    image: np.ndarray
    label: np.ndarray
    positive: np.ndarray
    counts: dict[str, int]
    unknown: dict[str, int]
    sources: dict[str, int] = field(default_factory=dict)


def read_boxes(paths: Paths, classes: Classes, pixels: bool = False) -> BoxTable:
    """Read box annotations of Open Images V4 to V7 or of its challenges.

    Columns are identified by name. ``ImageID, LabelName, XMin, XMax, YMin, YMax`` are required and
    the five flags optional; others are ignored. A flag of -1 or an empty one means unknown and is
    read as 0. Coordinates outside of [0, 1] are clipped, if they are less than the size of the
    image away from it.

    Args:
        paths (path or sequence of paths): CSV files with a header, plain or gzip.
        classes (Classes): The label space. Rows of other classes are skipped and counted.
        pixels (bool): Whether coordinates are in pixels. They are then neither clipped nor checked:
            see :func:`pfdet.openimages.pixels.relative_boxes`.

    Returns:
        BoxTable: The usable rows.

    Raises:
        InputError: If a file cannot be read or has no rows, a row is malformed, or no row has a
            class of ``classes``. The message names the file and the line. Also if coordinates are
            in pixels and ``pixels`` is false, or the reverse.
    """
    kinds = {
        'ImageID': 'id',
        'LabelName': 'class',
        **dict.fromkeys(('XMin', 'XMax', 'YMin', 'YMax'), 'pixel' if pixels else 'coordinate'),
    }
    optional = dict.fromkeys(FLAGS, 'flag')
    read = functools.partial(_read_box_batch, classes, pixels)
    batches = list(map_batches(read, paths, kinds, optional))
    counts, unknown = _sum_counts(batches, paths, classes)
    ids, image = _index_ids(batches)
    return BoxTable(
        ids,
        image,
        *(np.concatenate([batch.columns[k] for batch in batches]) for k in range(3)),
        counts,
        unknown,
    )


def _read_box_batch(classes: Classes, pixels: bool, batch: pa.RecordBatch) -> '_Batch':
    ids = batch.column('ImageID')
    label, unknown = _encode_mids(batch.column('LabelName'), classes)
    bbox = np.empty((batch.num_rows, 4), np.float32)
    for k, name in enumerate(_CORNERS):
        bbox[:, k] = numbers(batch.column(name))
    flags = np.zeros(batch.num_rows, np.uint8)
    for name, bit in FLAGS.items():
        if name in batch.schema.names:
            flags |= (numbers(batch.column(name)) == 1) * np.uint8(bit)
    known = label >= 0
    outside = np.zeros(batch.num_rows, bool)
    keep = known
    if not pixels:
        outside, nonempty = clip_boxes(bbox)
        keep = known & nonempty
    counts = {
        'rows': batch.num_rows,
        'boxes': int(keep.sum()),
        'clipped': int((outside & keep).sum()),
        'unknown_class': int((~known).sum()),
        'degenerate': int((known & ~keep).sum()),
        'rewritten': n_rewritten(batch),
    }
    image = numbers(ids.indices)
    if not keep.all():
        image, label, bbox, flags = image[keep], label[keep], bbox[keep], flags[keep]
    return _Batch(ids.dictionary, image, (label, bbox, flags), counts, unknown)


def clip_boxes(bbox: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes to the image, in place.

    Args:
        bbox (array): float32 ``(B, 4)``, relative to the image.

    Returns:
        tuple: bool ``(B,)`` each: whether a box exceeded the image, and whether the clipped box
        has a height and a width.
    """
    outside = ((bbox < 0) | (bbox > 1)).any(axis=1)
    np.clip(bbox, 0, 1, out=bbox)
    bbox += 0  # turns -0.0 into 0.0, since boxes are compared by their bits
    return outside, (bbox[:, 0] < bbox[:, 2]) & (bbox[:, 1] < bbox[:, 3])


def read_image_labels(
    paths: Paths, classes: Classes, machine_labels: bool = False
) -> ImageLabelTable:
    """Read human-verified image-level labels.

    The columns are ``ImageID``, ``LabelName``, ``Confidence`` and ``Source``. A confidence of 1
    means that the class is present, 0 that it is absent. Without a ``Confidence`` column all rows
    are positive, and without a ``Source`` column all are from annotators.

    Args:
        paths (path or sequence of paths): CSV files with a header, plain or gzip.
        classes (Classes): The label space. Rows of other classes are skipped and counted.
        machine_labels (bool): Whether rows of all sources verify a class, not only those of
            :data:`HUMAN_SOURCES`.

    Returns:
        ImageLabelTable: The usable rows.

    Raises:
        InputError: As in :func:`read_boxes`. Also if all usable rows are of other sources.
    """
    kinds = {'ImageID': 'id', 'LabelName': 'class'}
    batches = list(
        map_batches(
            functools.partial(_read_label_batch, classes, machine_labels),
            paths,
            kinds,
            {'Confidence': 'confidence', 'Source': 'text'},
        )
    )
    counts, unknown = _sum_counts(batches, paths, classes)
    sources = sum((batch.sources for batch in batches), Counter())
    if counts['machine'] and not counts['labels']:
        raise InputError(
            f'{", ".join(map(str, as_paths(paths)))}: no row of annotators, but of Source '
            f'{describe_unknown(sources)}; expected Source verification or '
            'crowdsource-verification, or --machine-labels'
        )
    ids, image = _index_ids(batches)
    return ImageLabelTable(
        ids,
        image,
        *(np.concatenate([batch.columns[k] for batch in batches]) for k in range(2)),
        counts,
        unknown,
        dict(sources),
    )


def no_image_labels(ids: pa.Array) -> ImageLabelTable:
    """Return a table without labels.

    Args:
        ids (pyarrow.Array): Sorted image ids, as in :class:`ImageLabelTable`.
    """
    names = ('rows', 'labels', 'unknown_class', 'machine', 'unverified', 'rewritten')
    return ImageLabelTable(
        ids,
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        np.zeros(0, bool),
        dict.fromkeys(names, 0),
        {},
    )


def _read_label_batch(classes: Classes, machine_labels: bool, batch: pa.RecordBatch) -> '_Batch':
    ids = batch.column('ImageID')
    label, unknown = _encode_mids(batch.column('LabelName'), classes)
    if 'Confidence' in batch.schema.names:
        confidence = numbers(batch.column('Confidence'))
    else:
        confidence = np.ones(batch.num_rows, np.float32)
    known = label >= 0
    verified = (confidence == 0) | (confidence == 1)
    human, sources = _human_rows(batch, known)
    if machine_labels:
        human, sources = np.ones(batch.num_rows, bool), Counter()
    keep = known & human & verified
    counts = {
        'rows': batch.num_rows,
        'labels': int(keep.sum()),
        'unknown_class': int((~known).sum()),
        'machine': int((known & ~human).sum()),
        'unverified': int((known & human & ~verified).sum()),
        'rewritten': n_rewritten(batch),
    }
    return _Batch(
        ids.dictionary,
        numbers(ids.indices)[keep],
        (label[keep], confidence[keep] == 1),
        counts,
        unknown,
        sources,
    )


def _human_rows(batch: pa.RecordBatch, known: np.ndarray) -> tuple[np.ndarray, Counter[str]]:
    """Return which rows are from annotators, and the number of known rows per other source."""
    if 'Source' not in batch.schema.names:
        return np.ones(batch.num_rows, bool), Counter()
    column = batch.column('Source')
    names = [
        text.decode('utf-8', 'backslashreplace').strip().casefold()
        for text in column.dictionary.to_pylist()
    ]
    codes = numbers(column.indices)
    n_row = np.bincount(codes[known], minlength=len(names)).tolist()
    sources = Counter()
    for name, n in zip(names, n_row):
        if name not in HUMAN_SOURCES and n:
            sources[name] += n
    return np.array([name in HUMAN_SOURCES for name in names], bool)[codes], sources


@dataclass
class _Batch:
    """The usable rows of a batch."""

    ids: pa.Array
    image: np.ndarray
    columns: tuple[np.ndarray, ...]
    counts: dict[str, int]
    unknown: Counter[str]
    sources: Counter[str] = field(default_factory=Counter)


def _encode_mids(column: pa.DictionaryArray, classes: Classes) -> tuple[np.ndarray, Counter[str]]:
    """Return class ids, -1 for unknown mids, and the number of rows per unknown mid."""
    mids = column.dictionary.to_pylist()
    label_of_code = np.array([classes.ids.get(mid, -1) for mid in mids], np.int32)
    codes = numbers(column.indices)
    unknown = Counter()
    if (label_of_code < 0).any():
        n_row = np.bincount(codes, minlength=len(mids))
        unknown.update({mids[code]: int(n_row[code]) for code in np.flatnonzero(label_of_code < 0)})
    return label_of_code[codes], unknown


def _sum_counts(
    batches: list[_Batch], paths: Paths, classes: Classes
) -> tuple[dict[str, int], dict[str, int]]:
    counts = {name: sum(batch.counts[name] for batch in batches) for name in batches[0].counts}
    unknown: Counter[str] = sum((batch.unknown for batch in batches), Counter())
    if counts['unknown_class'] == counts['rows']:
        files = ', '.join(str(path) for path in as_paths(paths))
        named = ', '.join(mid for mid, _ in unknown.most_common(5))
        raise InputError(
            f'{files}: none of the {counts["rows"]} rows has one of the {len(classes)} classes; '
            f'expected LabelName such as {classes.mids[0]}, got {named}; '
            'is this the right class file?'
        )
    return counts, dict(unknown)


def _index_ids(batches: list[_Batch]) -> tuple[pa.Array, np.ndarray]:
    """Return the sorted image ids of all batches, and the position of each row's image id."""
    # One look-up for all batches: each look-up builds a hash table of the union.
    joined = pa.concat_arrays([batch.ids.cast(pa.large_string()) for batch in batches])
    union, positions = sorted_distinct(joined)
    positions = np.split(positions, np.cumsum([len(batch.ids) for batch in batches])[:-1])
    return union, np.concatenate(
        [position[batch.image] for position, batch in zip(positions, batches)]
    )


def describe_unknown(unknown: dict[str, int], n_named: int = 5) -> str:
    """Return the most frequent unknown classes as text, such as ``'/m/x (5), /m/y (2)'``.

    Args:
        unknown (dict): Rows per mid, from a table.
        n_named (int): Maximum number of classes to list.

    Returns:
        str: Mids with their numbers of rows, and the number of classes that are not listed.
    """
    by_frequency = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
    named = ', '.join(f'{mid} ({n})' for mid, n in by_frequency[:n_named])
    n_more = len(by_frequency) - n_named
    return named + (f' and {n_more} more' if n_more > 0 else '')
