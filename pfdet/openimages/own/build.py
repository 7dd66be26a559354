"""Compile annotations with own classes to an index: what all formats share."""

import os
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc

from pfdet.errors import InputError
from pfdet.files.memory import check_memory
from pfdet.openimages.annotation_files import with_absent_classes
from pfdet.openimages.annotation_set import AnnotationSet, box_table
from pfdet.openimages.arrow_arrays import from_strings, numbers
from pfdet.openimages.classes import Classes
from pfdet.openimages.csv_columns import Paths, as_paths
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.image_ids import contains, read_image_ids
from pfdet.openimages.own.label_space import OwnLabelSpace, own_label_space
from pfdet.openimages.own.source import FOUND, Source
from pfdet.openimages.set_images import SetImages, find_set_images
from pfdet.openimages.set_index import write_set_index
from pfdet.openimages.tables import BoxTable, ImageLabelTable, read_image_labels
from pfdet.printable import printable

# Memory per pair of an image and a class that is verified there.
_PAIR = 32


@dataclass(frozen=True)
class Options:
    """How annotations become an index.

    Attributes:
        classes (Classes): See :func:`~pfdet.openimages.own.label_space.own_label_space`, and so are
            the next two.
        hierarchy (path or Hierarchy): The hierarchy of ``classes``.
        rename (dict): From annotated names to others.
        ids (path or paths): Lists of the images to use. By default, all.
        negatives (bool): Whether all classes are verified in every image, so that those without an
            annotation are absent.
        labels (path or paths): Image-level label CSVs, which say instead what is verified.
        keep_missing (bool): Keep images without a file.
    """

    classes: Classes | None = None
    hierarchy: str | os.PathLike | Hierarchy | None = None
    rename: dict[str, str] | None = None
    ids: Paths | None = None
    negatives: bool = True
    labels: Paths | None = None
    keep_missing: bool = False


@dataclass(frozen=True)
class OwnReport:
    """The result of :func:`build_own_index`.

    Attributes:
        counts (dict): Those of :func:`~pfdet.openimages.set_index.write_set_index`,
            :func:`~pfdet.openimages.annotation_set.box_table` and the format
            (:data:`~pfdet.openimages.own.source.FOUND`); images ``not_listed`` in the lists.
        classes (Classes): The classes of the index.
        empty (list of str): Names of the classes without a box.
        unmapped (dict): Number of skipped annotations per name that is not among the classes.
        missing (list of str): Images without a file.
        listed (list of str): Files in lists of the format that do not exist, with the places.
        unreadable (list of str): One message per file that cannot be read.
        size (int): Size of the index in bytes.
    """

    counts: dict[str, int]
    classes: Classes
    empty: list[str]
    unmapped: dict[str, int]
    missing: list[str]
    listed: list[str]
    unreadable: list[str]
    size: int


def build_own_index(
    source: Source,
    out: str | os.PathLike,
    options: Options = Options(),  # noqa: B008
) -> OwnReport:
    """Compile annotations with own classes to an index.

    Args:
        source (Source): From the reader of a format.
        out (path): The index file. It is replaced when the new one is complete.
        options (Options): The classes, the images, and what is verified.

    Returns:
        OwnReport: Counts and classes.

    Raises:
        InputError: If the classes do not fit, no image has a file (unless ``keep_missing``), a file
            has another shape than annotated, a box is outside of its image, or ``out`` cannot be
            written.
    """
    annotations = source.annotations
    space = own_label_space(
        annotations.source,
        annotations.names,
        options.classes,
        options.hierarchy,
        options.rename,
    )
    if options.ids is not None:
        annotations = _listed(annotations, options.ids)
    found = find_set_images(annotations, source.images, options.keep_missing)
    _check_sizes(annotations, found)
    label = space.class_of[annotations.category]
    boxes = box_table(annotations, label, found.annotated_size, refuse_outside=True)
    labels = _verified(annotations, boxes, label, space, options)
    counts, size = write_set_index(
        out,
        annotations,
        source.images,
        found,
        boxes,
        labels,
        space.classes,
        space.hierarchy,
        {
            **boxes.counts,
            **source.counts,
            'not_listed': len(source.annotations) - len(annotations),
            'listed_missing': len(source.missing),
        },
    )
    n_box = np.bincount(boxes.label, minlength=len(space.classes))
    n_unmapped = np.bincount(annotations.category[label < 0], minlength=len(annotations.names))
    return OwnReport(
        counts,
        space.classes,
        [space.classes.names[c] for c in np.flatnonzero(n_box == 0)],
        {annotations.names[k]: int(n_unmapped[k]) for k in np.flatnonzero(space.class_of < 0)},
        found.files.missing,
        list(source.missing),
        found.files.unreadable,
        size,
    )


def _listed(annotations: AnnotationSet, lists: Paths) -> AnnotationSet:
    chosen = contains(from_strings(annotations.image_ids.tolist()), read_image_ids(lists))
    if not chosen.any():
        raise InputError(
            f'{", ".join(map(str, as_paths(lists)))}: none of its images is in '
            f'{annotations.source}; expected ids such as {annotations.image_ids[0]!r}'
        )
    return annotations.pick(chosen)


def _check_sizes(annotations: AnnotationSet, found: SetImages) -> None:
    """Refuse boxes in pixels of an unknown size, which ``keep_missing`` would keep."""
    if annotations.is_relative:
        return
    unknown = found.kept & (found.annotated_size == 0).any(axis=1)
    bad = np.flatnonzero(unknown[annotations.image])
    if len(bad):
        a = int(bad[0])
        image_id = annotations.image_ids[annotations.image[a]]
        raise InputError(
            f'{annotations.place(a)}: a box in pixels, but neither a size of image {image_id!r} '
            'nor its file; expected one of them'
        )


def _verified(
    annotations: AnnotationSet,
    boxes: BoxTable,
    label: np.ndarray,
    space: OwnLabelSpace,
    options: Options,
) -> ImageLabelTable:
    known = label >= 0
    table = ImageLabelTable(
        boxes.ids, annotations.image[known], label[known], np.ones(known.sum(), bool), {}, {}
    )
    if options.labels is not None:
        return _with_labels(table, options.labels, space.classes)
    if options.negatives:
        n_pair = len(annotations) * len(space.classes)
        check_memory(annotations.source, _PAIR * n_pair, 'the list of absent classes')
        table = with_absent_classes(boxes, table, space.hierarchy)
    if annotations.left_out is None:
        return table
    # The first rows are those of the annotations.
    keep = np.ones(len(table.image), bool)
    keep[: known.sum()] = ~annotations.left_out[known]
    return replace(
        table, image=table.image[keep], label=table.label[keep], positive=table.positive[keep]
    )


def _with_labels(table: ImageLabelTable, paths: Paths, classes: Classes) -> ImageLabelTable:
    given = read_image_labels(paths, classes)
    position = pc.index_in(given.ids, value_set=table.ids)
    if position.null_count == len(position):
        raise InputError(
            f'{", ".join(map(str, as_paths(paths)))}: none of its images is in the annotations; '
            f'expected ids such as {table.ids[0].as_py()!r}'
        )
    image = numbers(position.fill_null(-1))[given.image]
    keep = image >= 0
    return replace(
        table,
        image=np.concatenate([table.image, image[keep]]),
        label=np.concatenate([table.label, given.label[keep]]),
        positive=np.concatenate([table.positive, given.positive[keep]]),
    )


def describe_own(report: OwnReport, keep_missing: bool = False) -> list[str]:
    """Return the lines that the command prints about a build.

    Args:
        report (OwnReport): From :func:`build_own_index`.
        keep_missing (bool): As in the options.

    Returns:
        list of str: Lines without line ends.
    """
    c = report.counts
    kept = 'kept' if keep_missing else 'skipped'
    lines = [
        f'images: {c["images"]:,}; objects: {c["objects"]:,} with {c["labels"]:,} labels, from '
        f'{c["annotations"]:,} boxes; clipped: {c["clipped"]:,}; of zero area, skipped: '
        f'{c["degenerate"]:,}; group-of: {c["group_of"]:,}',
        f'verified classes: {c["positive"]:,} positive, {c["negative"]:,} negative',
        f'classes: {len(report.classes)}: {_few(report.classes.names, 20)}',
    ]
    if report.empty:
        lines.append(f'classes without a box: {len(report.empty)}: {_few(report.empty)}')
    if report.unmapped:
        n = sum(report.unmapped.values())
        lines.append(
            f'annotated classes that are not among these, {n:,} boxes, skipped: '
            f'{_few([f"{name} ({k:,})" for name, k in report.unmapped.items()])}'
        )
    lines += [f'{text}: {c[name]:,}' for name, text in FOUND.items() if c.get(name)]
    if c['not_listed']:
        lines.append(f'images that are not in the lists, left out: {c["not_listed"]:,}')
    if c['resized']:
        lines.append(f'files of another size than annotated: {c["resized"]:,}')
    for names, what in (
        (report.missing, f'images without a file, {kept}'),
        (report.listed, 'listed images that do not exist, skipped'),
        (report.unreadable, f'image files that cannot be read, {kept}'),
    ):
        if names:
            lines.append(f'{what}: {len(names):,} ({_few(names)})')
    return lines


def _few(names: list[str] | tuple[str, ...], n: int = 5) -> str:
    return printable('; '.join(names[:n]) + ('; ...' if len(names) > n else ''))
