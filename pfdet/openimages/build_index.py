"""Compile the annotation files of Open Images to an annotation index.

::

    python -m pfdet.openimages.build_index --boxes CSV --labels CSV --classes CSV \\
        --hierarchy JSON --images DIR --out INDEX
"""

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pfdet.errors import InputError, run_command
from pfdet.openimages.arrow_arrays import from_numbers, from_strings, string_buffers
from pfdet.openimages.classes import read_classes
from pfdet.openimages.csv_columns import Paths, as_paths
from pfdet.openimages.hierarchy import read_hierarchy
from pfdet.openimages.image_files import SUFFIXES, ImageFiles, find_image_files
from pfdet.openimages.index import distinct, write_index
from pfdet.openimages.tables import (
    BoxTable,
    ImageLabelTable,
    arrow_union_of_ids,
    describe_unknown,
    read_boxes,
    read_image_labels,
)


@dataclass
class BuildReport:
    """The result of :func:`build_index`.

    Attributes:
        counts (dict): In the index: ``images``, ``objects``, ``labels`` (of objects), and
            ``positive`` and ``negative`` (verified classes, summed over images). Counts of the
            tables, as ``box_*`` and ``image_label_*``. Image files that are ``missing`` or
            ``unreadable``. Classes verified both as present and as absent in one image
            (``contradictory``); they are taken as present.
        unknown (dict): Number of skipped rows per unknown mid.
        files (ImageFiles): The image files.
        size (int): Size of the index in bytes.
    """

    counts: dict[str, int]
    unknown: dict[str, int]
    files: ImageFiles
    size: int


def build_index(
    boxes: Paths,
    labels: Paths,
    classes: str | os.PathLike,
    hierarchy: str | os.PathLike,
    images: str | os.PathLike,
    out: str | os.PathLike,
    keep_missing: bool = False,
    n_thread: int = 8,
) -> BuildReport:
    """Compile annotation files to an index file.

    The index contains the images of the box and label tables that have a readable image file.

    Args:
        boxes (path or paths): Box CSVs, plain or gzip.
        labels (path or paths): Image-level label CSVs, plain or gzip.
        classes (path): Class descriptions, ``mid,name``, of at most 32,767 classes.
        hierarchy (path): Hierarchy JSON.
        images (path): Directory of the files ``{image id}.jpg``, or with another of
            :data:`SUFFIXES`.
        out (path): The index file. It is replaced when the new one is complete.
        keep_missing (bool): Keep images without a readable file, with size 0.
        n_thread (int): Threads that read image sizes.

    Returns:
        BuildReport: Counts, unknown classes and image files.

    Raises:
        InputError: If an input file cannot be read or is malformed, there are too many classes,
            no image has a readable file (unless ``keep_missing``), no box is usable, or ``out``
            cannot be written.
    """
    label_space = read_classes(classes)
    if len(label_space) > np.iinfo(np.int16).max:
        raise InputError(
            f'{classes}: {len(label_space)} classes; expected at most {np.iinfo(np.int16).max}'
        )
    tree = read_hierarchy(hierarchy, label_space)
    box_table = read_boxes(boxes, label_space)
    label_table = read_image_labels(labels, label_space)
    if not len(box_table.image):
        raise InputError(
            f'{", ".join(map(str, as_paths(boxes)))}: no usable box; expected '
            'XMin < XMax and YMin < YMax in [0, 1]'
        )
    ids, (box_positions, label_positions) = arrow_union_of_ids([box_table, label_table])
    image_ids = ids.to_pylist()
    files = find_image_files(images, image_ids, n_thread)
    found = files.size[:, 0] > 0
    if not found.any() and not keep_missing:
        raise InputError(
            f'{images}: none of the {len(image_ids)} images in the tables was found; '
            f'expected files such as {image_ids[0]}.jpg'
        )
    kept = np.ones_like(found) if keep_missing else found
    box_table.image = box_positions[box_table.image]
    label_table.image = label_positions[label_table.image]
    columns, contradictory = annotation_columns(box_table, label_table, kept, len(label_space))
    if not kept.all():
        ids = ids.take(from_numbers(np.flatnonzero(kept).astype(np.int32)))
    columns.update(id_columns(ids))
    columns['image_size'] = files.size[kept]
    columns['image_suffix'] = files.suffix[kept]
    counts = {
        'images': int(kept.sum()),
        'objects': len(columns['bbox']),
        'labels': len(columns['label']),
        'positive': len(columns['positive']),
        'negative': len(columns['negative']),
        'contradictory': contradictory,
        'missing': len(files.missing),
        'unreadable': len(files.unreadable),
        **{f'box_{name}': n for name, n in box_table.counts.items()},
        **{f'image_label_{name}': n for name, n in label_table.counts.items()},
    }
    try:
        size = write_index(out, columns, label_space, tree, images, SUFFIXES, counts)
    except OSError as e:
        raise InputError(f'{out}: cannot write the index: {e.strerror or e}') from e
    unknown = dict(box_table.unknown)
    for mid, n in label_table.unknown.items():
        unknown[mid] = unknown.get(mid, 0) + n
    return BuildReport(counts, unknown, files, size)


def annotation_columns(
    boxes: BoxTable, labels: ImageLabelTable, kept: np.ndarray, n_class: int
) -> tuple[dict[str, np.ndarray], int]:
    """Group the rows of the tables by image and object.

    Boxes of an image with equal float32 coordinates become one object. It has the labels of all of
    them and the union of their flags. The result does not depend on the order of the rows.

    Args:
        boxes (BoxTable): Boxes. ``image`` refers to all ``N`` images of the split.
        labels (ImageLabelTable): Image-level labels. ``image`` refers to the same images.
        kept (array): bool ``(N,)``. Rows of other images are skipped.
        n_class (int): The number of classes.

    Returns:
        tuple: The columns of objects, labels and verified classes, as listed in
        :mod:`pfdet.openimages.index`, and the number of contradictions: pairs of an image and a
        class that is verified both as present and as absent there.
    """
    n_image = int(kept.sum())
    number = np.cumsum(kept, dtype=np.int32) - 1
    with ThreadPoolExecutor(2) as pool:
        objects = pool.submit(_object_columns, boxes, kept, number, n_image)
        verified, contradictory = _verified_columns(boxes, labels, kept, number, n_image, n_class)
        return {**objects.result(), **verified}, contradictory


def _verified_columns(
    boxes: BoxTable,
    labels: ImageLabelTable,
    kept: np.ndarray,
    number: np.ndarray,
    n_image: int,
    n_class: int,
) -> tuple[dict[str, np.ndarray], int]:
    # A pair of image and class is encoded as one integer.
    columns = {}
    boxed = number[boxes.image].astype(np.int64) * n_class + boxes.label
    boxed = boxed[kept[boxes.image]]
    verified = number[labels.image].astype(np.int64) * n_class + labels.label
    of_kept = kept[labels.image]
    positive = distinct(np.concatenate([boxed, verified[of_kept & labels.positive]]))
    negative = distinct(verified[of_kept & ~labels.positive])
    # Both are sorted, so a binary search is faster than numpy.isin, which sorts them again.
    position = np.searchsorted(positive, negative)
    clash = position < len(positive)
    clash[clash] = positive[position[clash]] == negative[clash]
    for name, key in (('positive', positive), ('negative', negative[~clash])):
        columns[name + '_offsets'] = _offsets(np.bincount(key // n_class, minlength=n_image))
        columns[name] = (key % n_class).astype(np.int16)
    return columns, int(clash.sum())


def _object_columns(
    boxes: BoxTable, kept: np.ndarray, number: np.ndarray, n_image: int
) -> dict[str, np.ndarray]:
    order, new_object, new_label = _group_boxes(boxes)
    if not kept.all():
        # Images are kept or dropped as a whole, so the first rows of objects and labels remain
        # first rows.
        keep = kept[boxes.image[order]]
        order, new_object, new_label = order[keep], new_object[keep], new_label[keep]
    first = np.flatnonzero(new_object)
    n_label = np.bincount(
        (np.cumsum(new_object, dtype=np.int32) - 1)[new_label], minlength=len(first)
    )
    flags = (
        np.bitwise_or.reduceat(boxes.flags[order], first) if len(first) else np.zeros(0, np.uint8)
    )
    rows = order[first]
    image = number[boxes.image[rows]]
    return {
        'object_offsets': _offsets(np.bincount(image, minlength=n_image)),
        'bbox': boxes.bbox.take(rows, axis=0),
        'flags': flags,
        'label_offsets': _offsets(n_label),
        'label': boxes.label[order[new_label]].astype(np.int16),
    }


def _group_boxes(boxes: BoxTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the rows by image, coordinates from ``y_min`` to ``x_max``, and label.

    Returns:
        tuple: The order, and in that order, which rows are the first of an object and which are
        the first of a label.
    """
    # Coordinates are not negative, so their bit patterns sort like the numbers. Image and y_min
    # decide the order of most rows. Each further key sorts only the rows that are still tied, so
    # the later sorts are small.
    bits = np.ascontiguousarray(boxes.bbox).view(np.uint32)
    key = boxes.image.astype(np.uint64) << 32 | bits[:, 0]
    order = np.argsort(key, kind='stable')
    new = _changes(key[order])
    for column in (bits[:, 1], bits[:, 2], bits[:, 3], boxes.label):
        if column is boxes.label:
            new_object = new.copy()
        tied = np.flatnonzero(~(new & np.append(new[1:], True)))
        rows = order[tied]
        key = np.cumsum(new[tied], dtype=np.uint64) << 32 | column[rows].astype(np.uint64)
        by_key = np.argsort(key, kind='stable')
        order[tied] = rows[by_key]
        new[tied] = _changes(key[by_key])
    return order, new_object, new


def _changes(sorted_values: np.ndarray) -> np.ndarray:
    changes = np.ones(len(sorted_values), bool)
    np.not_equal(sorted_values[1:], sorted_values[:-1], out=changes[1:])
    return changes


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return _narrow(offsets)


def _narrow(offsets: np.ndarray) -> np.ndarray:
    return offsets.astype(np.int32) if offsets[-1] <= np.iinfo(np.int32).max else offsets


def id_columns(image_ids: Sequence[str] | pa.Array) -> dict[str, np.ndarray]:
    """Return the columns of the image ids.

    Args:
        image_ids (sequence of str or pyarrow.Array): ``(N,)``, sorted.

    Returns:
        dict: ``id_offsets``, int32 or int64 ``(N + 1,)``, and ``id_bytes``, uint8.
    """
    strings = image_ids if isinstance(image_ids, pa.Array) else from_strings(image_ids)
    offsets, text = string_buffers(strings)
    return {'id_offsets': _narrow(offsets), 'id_bytes': text}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see ``--help``.

    Raises:
        InputError: If an argument or an input is invalid.
    """
    parser = argparse.ArgumentParser(
        prog='python -m pfdet.openimages.build_index',
        description='Compile Open Images annotation files to an annotation index.',
    )
    parser.add_argument(
        '--boxes', nargs='+', required=True, metavar='CSV', help='box annotations, plain or gzip'
    )
    parser.add_argument(
        '--labels',
        nargs='+',
        required=True,
        metavar='CSV',
        help='human-verified image-level labels, plain or gzip',
    )
    parser.add_argument(
        '--classes', required=True, metavar='CSV', help='class descriptions: mid,name'
    )
    parser.add_argument('--hierarchy', required=True, metavar='JSON', help='class hierarchy')
    parser.add_argument(
        '--images',
        required=True,
        metavar='DIR',
        help='directory of the image files, which are named by image id',
    )
    parser.add_argument('--out', required=True, metavar='INDEX', help='the index to write')
    parser.add_argument(
        '--keep-missing',
        action='store_true',
        help='keep images without a readable file, with size 0',
    )
    parser.add_argument(
        '--threads',
        type=int,
        default=8,
        metavar='N',
        help='threads that read image sizes; use more for a disk with a high latency '
        '(default: %(default)s)',
    )
    args = parser.parse_args(argv)
    if args.threads < 1:
        raise InputError(f'--threads {args.threads}: expected 1 or more')
    start = time.perf_counter()
    report = build_index(
        args.boxes,
        args.labels,
        args.classes,
        args.hierarchy,
        args.images,
        args.out,
        args.keep_missing,
        args.threads,
    )
    for line in describe_report(report, args.keep_missing):
        print(line)
    print(f'{args.out}: {report.size / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s')


def describe_report(report: BuildReport, keep_missing: bool = False) -> list[str]:
    """Return the lines that the command prints about a build.

    Args:
        report (BuildReport): From :func:`build_index`.
        keep_missing (bool): As given to :func:`build_index`.

    Returns:
        list of str: Lines without line ends.
    """
    c = report.counts
    lines = [
        f'images: {c["images"]:,}; objects: {c["objects"]:,} with {c["labels"]:,} labels, from '
        f'{c["box_boxes"]:,} boxes in {c["box_rows"]:,} rows',
        f'verified classes: {c["positive"]:,} positive, {c["negative"]:,} negative, from '
        f'{c["image_label_labels"]:,} labels in {c["image_label_rows"]:,} rows',
        f'boxes clipped: {c["box_clipped"]:,}; of zero area, skipped: '
        f'{c["box_degenerate"]:,}; of unknown classes, skipped: {c["box_unknown_class"]:,}',
        f'image labels of unknown classes, skipped: {c["image_label_unknown_class"]:,}; '
        f'unverified, skipped: {c["image_label_unverified"]:,}; contradictory, taken as '
        f'positive: {c["contradictory"]:,}',
    ]
    if report.unknown:
        lines.append(f'unknown classes: {describe_unknown(report.unknown)}')
    action = 'kept' if keep_missing else 'skipped'
    missing, unreadable = report.files.missing, report.files.unreadable
    lines.append(f'images without a file, {action}: {len(missing):,}{_examples(missing)}')
    if unreadable:
        lines.append(
            f'image files that cannot be read, {action}: {len(unreadable):,}{_examples(unreadable)}'
        )
    return lines


def _examples(names: list[str], n: int = 5) -> str:
    return f' ({"; ".join(names[:n])}{"; ..." if len(names) > n else ""})' if names else ''


if __name__ == '__main__':
    run_command(main)
