"""Read the annotation files of a split: what the index and the ground truth of the metric share."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pfdet.errors import InputError
from pfdet.flags import path_text
from pfdet.openimages.arrow_arrays import from_numbers
from pfdet.openimages.classes import Classes
from pfdet.openimages.csv_columns import Paths, as_paths
from pfdet.openimages.expanded_boxes import without_expansion
from pfdet.openimages.hierarchy import Hierarchy, flat_hierarchy
from pfdet.openimages.image_ids import contains, read_image_ids, union_of_ids
from pfdet.openimages.pixels import relative_boxes
from pfdet.openimages.tables import (
    BoxTable,
    ImageLabelTable,
    no_image_labels,
    read_boxes,
    read_image_labels,
)

Table = TypeVar('Table', BoxTable, ImageLabelTable)


@dataclass(frozen=True)
class ReadOptions:
    """How annotation files are read.

    Attributes:
        ids (path or paths): Lists of the images to use. By default, all.
        exclude_ids (path or paths): Lists of the images not to use.
        machine_labels (bool): Whether image-level labels of a classifier verify a class as well.
        exhaustive (bool): Whether the boxes are all objects of all classes. Then every class is
            verified in every image. Classes without a box are absent, except for descendants of
            the classes with a box: an object annotated as Fruit may be an apple.
        pixels (bool): Whether coordinates are in pixels.
    """

    ids: Paths | None = None
    exclude_ids: Paths | None = None
    machine_labels: bool = False
    exhaustive: bool = False
    pixels: bool = False


@dataclass
class AnnotationTables:
    """The annotations of a split of ``N`` images.

    Attributes:
        ids (pyarrow.Array): The image ids, large strings ``(N,)``, sorted.
        boxes (BoxTable): Boxes, with the same ``ids``. Labels are as annotated, not expanded.
        labels (ImageLabelTable): Image-level labels, with the same ``ids``.
        counts (dict): Those of :func:`~pfdet.openimages.expanded_boxes.without_expansion`; images
            ``listed`` in the files of ids, how many of these have no row (``listed_missing``), and
            images ``excluded`` by the lists.
        files (object): The result of ``find_files``.
    """

    ids: pa.Array
    boxes: BoxTable
    labels: ImageLabelTable
    counts: dict[str, int] = field(default_factory=dict)
    files: object = None

    @property
    def all_counts(self) -> dict[str, int]:
        """``counts``, and those of the tables as ``box_*`` and ``image_label_*``."""
        return {
            **self.counts,
            **{f'box_{name}': n for name, n in self.boxes.counts.items()},
            **{f'image_label_{name}': n for name, n in self.labels.counts.items()},
        }


def read_annotations(
    boxes: Paths,
    labels: Paths | None,
    classes: Classes,
    hierarchy: Hierarchy | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    find_files: Callable | None = None,
) -> AnnotationTables:
    """Read the annotation files of a split.

    Args:
        boxes (path or paths): Box CSVs.
        labels (path or paths): Image-level label CSVs. Without them, only the classes with a box
            are verified.
        classes (Classes): The label space.
        hierarchy (Hierarchy): The hierarchy of ``classes``. If given, boxes that an earlier
            expansion over the hierarchy has added are left out: see
            :mod:`pfdet.openimages.expanded_boxes`.
        options (ReadOptions): Further options.
        find_files (callable): From a list of image ids to an object with the attribute ``size``,
            int32 ``(N, 2)``, height and width in pixels. Needed for ``pixels``.

    Returns:
        AnnotationTables: The rows of the chosen images.

    Raises:
        InputError: If a file cannot be read or is malformed, no box is usable, or no image of the
            lists is in the tables.
    """
    names = ', '.join(map(str, as_paths(boxes)))
    box_table = read_boxes(boxes, classes, options.pixels)
    if not len(box_table.image):
        raise InputError(f'{names}: no usable box; expected XMin < XMax and YMin < YMax in [0, 1]')
    label_table = (
        no_image_labels(box_table.ids)
        if labels is None
        else read_image_labels(labels, classes, options.machine_labels)
    )
    tree = flat_hierarchy(len(classes)) if hierarchy is None else hierarchy
    if not options.pixels:
        box_table, counts = without_expansion(box_table, tree)
    ids, positions = union_of_ids([box_table, label_table])
    chosen, counts_of_lists = _chosen_images(ids, options)
    if not chosen.all():
        ids = ids.take(from_numbers(np.flatnonzero(chosen).astype(np.int32)))
    box_table = _restrict(box_table, ids, positions[0], chosen)
    label_table = _restrict(label_table, ids, positions[1], chosen)
    files = find_files(ids.to_pylist()) if find_files is not None else None
    if options.pixels:
        box_table = relative_boxes(box_table, files.size, names)
        box_table, counts = without_expansion(box_table, tree)
    if options.exhaustive:
        label_table = with_absent_classes(box_table, label_table, tree)
    return AnnotationTables(ids, box_table, label_table, {**counts, **counts_of_lists}, files)


def _chosen_images(ids: pa.Array, options: ReadOptions) -> tuple[np.ndarray, dict[str, int]]:
    chosen = np.ones(len(ids), bool)
    counts = {'listed': 0, 'listed_missing': 0, 'excluded': 0}
    for paths, is_chosen in ((options.ids, True), (options.exclude_ids, False)):
        if paths is None:
            continue
        listed = read_image_ids(paths)
        found = contains(ids, listed)
        if not found.any():
            files = ', '.join(map(str, as_paths(paths)))
            raise InputError(
                f'{files}: none of the {len(listed):,} images is in the tables; expected ids '
                f'such as {ids[0].as_py()!r}'
            )
        counts['listed'] += len(listed)
        counts['listed_missing'] += len(listed) - int(found.sum())
        chosen &= found == is_chosen
    counts['excluded'] = len(ids) - int(chosen.sum())
    if not chosen.any():
        raise InputError('--ids and --exclude-ids leave none of the images in the tables')
    return chosen, counts


def _restrict(table: Table, ids: pa.Array, positions: np.ndarray, chosen: np.ndarray) -> Table:
    """Return the rows of the chosen images; ``positions`` are those of the table's ids."""
    image = positions[table.image]
    if chosen.all():
        return dataclasses.replace(table, ids=ids, image=image)
    keep = chosen[image]
    number = np.cumsum(chosen, dtype=np.int32) - np.int32(1)
    rows = {
        f.name: getattr(table, f.name)[keep]
        for f in dataclasses.fields(table)
        if isinstance(getattr(table, f.name), np.ndarray)
    }
    return dataclasses.replace(table, **{**rows, 'ids': ids, 'image': number[image[keep]]})


def with_absent_classes(
    boxes: BoxTable, labels: ImageLabelTable, hierarchy: Hierarchy
) -> ImageLabelTable:
    """Verify all classes in all images, as :attr:`ReadOptions.exhaustive` describes.

    Args:
        boxes (BoxTable): Boxes.
        labels (ImageLabelTable): Image-level labels of the same images.
        hierarchy (Hierarchy): The hierarchy of the classes.

    Returns:
        ImageLabelTable: ``labels``, and a negative label of each absent class of each image.
    """
    related = hierarchy.closure | hierarchy.closure.T
    images, absent = [labels.image], [labels.label]
    is_present = np.zeros((len(boxes.ids), hierarchy.n_class), bool)
    is_present[boxes.image, boxes.label] = True
    is_present[labels.image[labels.positive], labels.label[labels.positive]] = True
    # In blocks, since the product of boolean matrices is that of floats.
    for start in range(0, len(is_present), 1 << 14):
        block = is_present[start : start + (1 << 14)].astype(np.float32)
        image, label = np.nonzero(block @ related.astype(np.float32) == 0)
        images.append((image + start).astype(np.int32))
        absent.append(label.astype(np.int32))
    n_new = sum(map(len, images)) - len(labels.image)
    return dataclasses.replace(
        labels,
        image=np.concatenate(images),
        label=np.concatenate(absent),
        positive=np.concatenate([labels.positive, np.zeros(n_new, bool)]),
    )


def add_read_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of :class:`ReadOptions` to a parser, without ``--pixels``."""
    add = parser.add_argument
    add(
        '--ids',
        nargs='+',
        type=path_text,
        metavar='CSV',
        help='use only the images in these lists: CSV with a column ImageID, or an id per line',
    )
    add(
        '--exclude-ids',
        nargs='+',
        type=path_text,
        metavar='CSV',
        help='do not use the images in these lists',
    )
    add(
        '--machine-labels',
        action='store_true',
        help='image-level labels of a classifier (Source machine) verify a class as well',
    )
    add(
        '--exhaustive',
        action='store_true',
        help='the boxes are all objects of all classes: classes without a box are absent',
    )


def read_options(args: argparse.Namespace, pixels: bool = False) -> ReadOptions:
    """Return the options that flags of :func:`add_read_options` give."""
    return ReadOptions(args.ids, args.exclude_ids, args.machine_labels, args.exhaustive, pixels)


def describe_reading(counts: Mapping[str, int]) -> list[str]:
    """Return lines about what is unusual in the files.

    Args:
        counts (mapping): :attr:`AnnotationTables.all_counts`.

    Returns:
        list of str: Lines without line ends; none for files as Open Images publishes them.
    """
    lines = []
    if counts['expanded']:
        lines.append(
            'the boxes are expanded over the hierarchy already: '
            f'{counts["expanded"]:,} boxes of ancestors left out, since they are added where needed'
        )
    if counts['expanded_in_part']:
        lines.append(
            f'warning: {counts["expanded_in_part"]} % of the boxes of classes with ancestors have '
            'a box of each ancestor, so the boxes may be expanded over another hierarchy than '
            '--hierarchy; taken as not expanded'
        )
    if counts['listed']:
        lines.append(
            f'images in the lists: {counts["listed"]:,}; of these, without a row: '
            f'{counts["listed_missing"]:,}; images not chosen by the lists: '
            f'{counts["excluded"]:,}'
        )
    n_rewritten = counts['box_rewritten'] + counts['image_label_rewritten']
    if n_rewritten:
        lines.append(
            'values in another form than Open Images writes, such as 1.0 for a flag, an empty '
            f'flag, or an id with a space before it: {n_rewritten:,}'
        )
    return lines
