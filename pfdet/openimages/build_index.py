"""Compile the annotation files of Open Images to an annotation index.

::

    python -m pfdet.openimages.build_index --boxes CSV --labels CSV --classes CSV \\
        --hierarchy JSON --images DIR --out INDEX [--ids CSV] [--exclude-ids CSV]
    python -m pfdet.openimages.build_index --model RUN --images DIR --out INDEX

The second form makes an index of images without annotations, for prediction.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pfdet.errors import InputError, run_command
from pfdet.files.locks import output_lock
from pfdet.flags import Parser, integer, path_text
from pfdet.openimages.annotation_columns import annotation_columns, file_columns, id_columns
from pfdet.openimages.annotation_files import (
    ReadOptions,
    add_read_options,
    describe_reading,
    read_annotations,
    read_options,
)
from pfdet.openimages.arrow_arrays import from_numbers
from pfdet.openimages.classes import Classes, read_classes
from pfdet.openimages.csv_columns import Paths
from pfdet.openimages.hierarchy import Hierarchy, read_hierarchy
from pfdet.openimages.image_files import (
    SUFFIXES,
    ImageFiles,
    check_image_directory,
    find_image_files,
)
from pfdet.openimages.index import write_index
from pfdet.openimages.label_space import label_space_of_run
from pfdet.openimages.tables import describe_unknown
from pfdet.openimages.unannotated import unannotated_images
from pfdet.printable import printable


@dataclass
class BuildReport:
    """The result of :func:`build_index`.

    Attributes:
        counts (dict): In the index: ``images``, ``objects``, ``labels`` (of objects), and
            ``positive`` and ``negative`` (verified classes, summed over images). Counts of the
            tables, as ``box_*`` and ``image_label_*``, and of the choice of images, see
            :class:`~pfdet.openimages.annotation_files.AnnotationTables`. Image files that are
            ``missing`` or ``unreadable``, and images with files in several folders
            (``repeated``). Classes verified both as present and as absent in one image
            (``contradictory``); they are taken as present.
        unknown (dict): Number of skipped rows per unknown mid.
        sources (dict): Number of skipped image labels per source.
        files (ImageFiles): The image files.
        size (int): Size of the index in bytes.
    """

    counts: dict[str, int]
    unknown: dict[str, int]
    sources: dict[str, int]
    files: ImageFiles
    size: int


def build_index(
    boxes: Paths | None,
    labels: Paths | None,
    classes: str | os.PathLike | Classes,
    hierarchy: str | os.PathLike | Hierarchy,
    images: str | os.PathLike,
    out: str | os.PathLike,
    keep_missing: bool = False,
    n_thread: int = 8,
    options: ReadOptions = ReadOptions(),  # noqa: B008
) -> BuildReport:
    """Compile annotation files to an index file.

    The index contains the images of the box and label tables that have a readable image file.

    Args:
        boxes (path or paths): Box CSVs, plain or gzip. Without them, the index contains all images
            in the directory, without annotations: see :mod:`pfdet.openimages.unannotated`.
        labels (path or paths): Image-level label CSVs, plain or gzip. Without them, only the
            classes with a box are verified.
        classes (path or Classes): Class descriptions, ``mid,name``, of at most 32,767 classes.
        hierarchy (path or Hierarchy): Hierarchy JSON.
        images (path): Directory of the files ``{image id}.jpg``, or with another of
            :data:`SUFFIXES`, which may be in folders.
        out (path): The index file. It is replaced when the new one is complete.
        keep_missing (bool): Keep images without a readable file, with size 0.
        n_thread (int): Threads that read image sizes.
        options (ReadOptions): Which images and labels are used, and the unit of coordinates.

    Returns:
        BuildReport: Counts, unknown classes and image files.

    Raises:
        InputError: If an input file cannot be read or is malformed, there are too many classes,
            no image has a readable file (unless ``keep_missing``), no box is usable, or ``out``
            cannot be written.
    """
    label_space = classes if isinstance(classes, Classes) else read_classes(classes)
    if len(label_space) > np.iinfo(np.int16).max:
        raise InputError(
            f'{classes}: {len(label_space)} classes; expected at most {np.iinfo(np.int16).max}'
        )
    is_tree = isinstance(hierarchy, Hierarchy)
    tree = hierarchy if is_tree else read_hierarchy(hierarchy, label_space)

    def find_files(image_ids: list[str]) -> ImageFiles:
        return find_image_files(images, image_ids, n_thread)

    if boxes is None:
        if labels is not None:
            raise InputError('--labels: needs --boxes; without both, the index has no annotations')
        tables = unannotated_images(images, options, find_files)
    else:
        tables = read_annotations(boxes, labels, label_space, tree, options, find_files)
    ids, files = tables.ids, tables.files
    box_table, label_table = tables.boxes, tables.labels
    found = files.size[:, 0] > 0
    if not found.any() and not keep_missing:
        raise InputError(
            f'{images}: none of the {len(ids)} images in the '
            f'{"lists" if boxes is None else "tables"} was found; '
            f'expected files such as {ids[0].as_py()}.jpg'
        )
    kept = np.ones_like(found) if keep_missing else found
    if options.pixels and not found[kept].all():
        first = ids[int(np.flatnonzero(~found)[0])].as_py()
        raise InputError(
            f'{images}: no readable file of image {first!r}; expected all files for boxes in '
            'pixels, or no --keep-missing'
        )
    columns, contradictory = annotation_columns(box_table, label_table, kept, len(label_space))
    if not kept.all():
        ids = ids.take(from_numbers(np.flatnonzero(kept).astype(np.int32)))
    columns.update(id_columns(ids))
    columns.update(file_columns(files, kept))
    counts = {
        'images': int(kept.sum()),
        'objects': len(columns['bbox']),
        'labels': len(columns['label']),
        'positive': len(columns['positive']),
        'negative': len(columns['negative']),
        'contradictory': contradictory,
        'missing': len(files.missing),
        'unreadable': len(files.unreadable),
        'repeated': len(files.repeated),
        **tables.all_counts,
    }
    try:
        size = write_index(
            out,
            columns,
            label_space,
            tree,
            images,
            SUFFIXES,
            counts,
            folders=files.folders,
            file_names=files.file_names,
        )
    except OSError as e:
        raise InputError(f'{out}: cannot write the index: {e.strerror or e}') from e
    unknown = dict(box_table.unknown)
    for mid, n in label_table.unknown.items():
        unknown[mid] = unknown.get(mid, 0) + n
    return BuildReport(counts, unknown, label_table.sources, files, size)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see ``--help``.

    Raises:
        InputError: If an argument or an input is invalid.
    """
    parser = Parser(
        description='Compile Open Images annotation files to an annotation index.\n\n'
        '    pfdet index --boxes train-annotations-bbox.csv \\\n'
        '        --labels train-annotations-human-imagelabels.csv \\\n'
        '        --classes class-descriptions.csv --hierarchy hierarchy.json \\\n'
        '        --images train --out train.index',
    )
    parser.add_argument(
        '--boxes',
        nargs='+',
        type=path_text,
        metavar='CSV',
        help='box annotations, plain or gzip (default: an index of the images in --images, or of '
        'those in --ids, without annotations)',
    )
    parser.add_argument(
        '--labels',
        nargs='+',
        type=path_text,
        metavar='CSV',
        help='human-verified image-level labels, plain or gzip (default: only the classes with a '
        'box are verified)',
    )
    parser.add_argument(
        '--classes', type=path_text, metavar='CSV', help='class descriptions: mid,name'
    )
    parser.add_argument('--hierarchy', type=path_text, metavar='JSON', help='class hierarchy')
    parser.add_argument(
        '--model',
        type=path_text,
        metavar='RUN',
        help='take the classes and the hierarchy of a training run, in place of --classes and '
        '--hierarchy',
    )
    parser.add_argument(
        '--images',
        required=True,
        type=path_text,
        metavar='DIR',
        help='directory of the image files, which are named by image id; they may be in folders',
    )
    parser.add_argument(
        '--out', required=True, type=path_text, metavar='INDEX', help='the index to write'
    )
    parser.add_argument(
        '--keep-missing',
        action='store_true',
        help='keep images without a readable file, with size 0',
    )
    parser.add_argument(
        '--threads',
        type=integer(1, 256),
        default=8,
        metavar='N',
        help='threads that read image sizes; use more for a disk with a high latency '
        '(default: %(default)s)',
    )
    add_read_options(parser)
    parser.add_argument(
        '--pixels',
        action='store_true',
        help='coordinates are in pixels of the images, not from 0 to 1',
    )
    args = parser.parse_args(argv)
    if not args.keep_missing:
        # Reading the tables takes minutes.
        check_image_directory(args.images)
    classes, hierarchy = _label_space(args)
    start = time.perf_counter()
    with output_lock(args.out):
        report = build_index(
            args.boxes,
            args.labels,
            classes,
            hierarchy,
            args.images,
            args.out,
            args.keep_missing,
            args.threads,
            read_options(args, args.pixels),
        )
    describe = describe_report if args.boxes else describe_images
    for line in describe(report, args.keep_missing):
        print(line)
    print(f'{args.out}: {report.size / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s')


def _label_space(args: argparse.Namespace) -> tuple[str | Classes, str | Hierarchy]:
    if args.model is None:
        for name in 'classes', 'hierarchy':
            if getattr(args, name) is None:
                raise InputError(
                    f'no --{name}: expected --classes and --hierarchy, or --model RUN, which has '
                    'both'
                )
        return args.classes, args.hierarchy
    for name in 'classes', 'hierarchy':
        if getattr(args, name) is not None:
            raise InputError(f'--{name} {getattr(args, name)}: expected this or --model, not both')
    return label_space_of_run(args.model)


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
        f'not of annotators, skipped: {c["image_label_machine"]:,}'
        f'{_sources(report.sources)}; unverified, skipped: {c["image_label_unverified"]:,}; '
        f'contradictory, taken as positive: {c["contradictory"]:,}',
    ]
    if report.unknown:
        lines.append(f'unknown classes: {printable(describe_unknown(report.unknown))}')
    lines += describe_reading(c)
    return lines + _describe_files(report, keep_missing)


def describe_images(report: BuildReport, keep_missing: bool = False) -> list[str]:
    """Return the lines that the command prints about an index without annotations.

    Args:
        report (BuildReport): From :func:`build_index`.
        keep_missing (bool): As given to :func:`build_index`.

    Returns:
        list of str: Lines without line ends.
    """
    c = report.counts
    lines = [f'images without annotations: {c["images"]:,}']
    if c['listed']:
        lines.append(f'images in the lists: {c["listed"]:,}')
    if c['excluded']:
        lines.append(f'images left out by --exclude-ids: {c["excluded"]:,}')
    if c['same_id']:
        lines.append(
            'files with the name of another one in the same folder, except for the suffix, '
            f'skipped: {c["same_id"]:,}'
        )
    return lines + _describe_files(report, keep_missing)


def _describe_files(report: BuildReport, keep_missing: bool) -> list[str]:
    action = 'kept' if keep_missing else 'skipped'
    files = report.files
    lines = [f'images without a file, {action}: {len(files.missing):,}{_examples(files.missing)}']
    for names, what in (
        (files.unreadable, f'image files that cannot be read, {action}'),
        (files.repeated, 'images with a file in several folders, the first taken'),
    ):
        if names:
            lines.append(f'{what}: {len(names):,}{_examples(names)}')
    return lines


def _sources(sources: dict[str, int]) -> str:
    return f' (Source {printable(describe_unknown(sources))})' if sources else ''


def _examples(names: list[str], n: int = 5) -> str:
    shown = printable('; '.join(names[:n]))
    return f' ({shown}{"; ..." if len(names) > n else ""})' if names else ''


if __name__ == '__main__':
    run_command(main)
