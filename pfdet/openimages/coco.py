"""Compile COCO's ``instances_*.json`` to an annotation index with the classes of Open Images.

::

    python -m pfdet.openimages.coco --annotations instances_train2017.json --images train2017 \\
        --out coco-train.index [--table FILE.csv]
    python -m pfdet.openimages.coco --table          (print the class mapping only)

The index has the classes and ids of the Open Images challenge or of ``--classes``, so that a model
trained on one data set can be scored on the other. :mod:`pfdet.openimages.coco_mapping` maps COCO
classes to them. Categories may also be classes of Open Images, by MID or by name. Annotations of
other categories are skipped and counted.

COCO is annotated exhaustively in its 80 classes. So every chosen class is verified in every image:
positive where it is annotated and negative elsewhere. It is not negative if an annotated COCO class
has a candidate that is a kind of it: COCO's teddy bear becomes a class that is a Bear in Open
Images, and COCO's truck may be a van, which is a Car there. Files with other categories than COCO's
may be annotated in part, as Open Images is. Of them, only ``--exhaustive`` makes negatives.

The index names these classes (:attr:`~pfdet.openimages.index.AnnotationIndex.annotated`). Of most
of their ancestors COCO has only a part: its knives are the only weapons. An expert of COCO does not
answer for those (:func:`pfdet.training.experts.completely_annotated`).
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pfdet.errors import InputError, run_command
from pfdet.files.locks import output_lock
from pfdet.flags import Parser, path_text
from pfdet.openimages.annotation_set import AnnotationSet, box_table
from pfdet.openimages.arrow_arrays import from_strings
from pfdet.openimages.classes import Classes, challenge_classes, read_classes
from pfdet.openimages.coco_json import read_instances
from pfdet.openimages.coco_mapping import (
    ABSENT,
    AMBIGUOUS,
    FOREIGN,
    Decision,
    decide,
    read_mapping,
)
from pfdet.openimages.coco_table import table_rows, write_table
from pfdet.openimages.hierarchy import Hierarchy, challenge_hierarchy, read_hierarchy
from pfdet.openimages.image_files import check_image_directory
from pfdet.openimages.set_images import find_set_images
from pfdet.openimages.set_index import write_set_index
from pfdet.openimages.tables import ImageLabelTable
from pfdet.printable import printable


@dataclass(frozen=True)
class CocoReport:
    """The result of :func:`build_coco_index`.

    Attributes:
        counts (dict): In the index: ``images``, ``objects``, ``labels``, ``positive`` and
            ``negative``. In the JSON: ``annotations``, and how many of them are of a category
            without a class (``unmapped``), have zero area (``degenerate``), are kept (``boxes``),
            are ``clipped`` to the image, or have ``iscrowd`` (``crowd``). Images without a file
            (``missing``), with an ``unreadable`` file, or with a file of another size of the same
            shape (``resized``).
        decisions (tuple of Decision): One per category of the JSON, in the same order.
        annotations (dict): The number of annotations per category name.
        size (int): Size of the index in bytes.
    """

    counts: dict[str, int]
    decisions: tuple[Decision, ...]
    annotations: dict[str, int]
    size: int


def build_coco_index(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    out: str | os.PathLike,
    classes: Classes | None = None,
    hierarchy: Hierarchy | None = None,
    negatives: bool | None = None,
    keep_missing: bool = False,
) -> CocoReport:
    """Compile a COCO annotation file to an index.

    Args:
        annotations (path): Such as ``instances_train2017.json``.
        images (path): The directory of the image files.
        out (path): The index file. It is replaced when the new one is complete.
        classes (Classes): The label space. By default, the 500 classes of the challenge.
        hierarchy (Hierarchy): The hierarchy of ``classes``. By default, that of the challenge.
        negatives (bool): Whether classes without an annotation are verified negatives. By default,
            if all categories are COCO's.
        keep_missing (bool): Keep images without a file.

    Returns:
        CocoReport: Counts and decisions.

    Raises:
        InputError: If the JSON cannot be read or is malformed, no annotation has a class, no image
            has a file (unless ``keep_missing``), a file has another shape than in the JSON, or
            ``out`` cannot be written.
    """
    classes = challenge_classes() if classes is None else classes
    hierarchy = challenge_hierarchy() if hierarchy is None else hierarchy
    instances = read_instances(annotations)
    decisions = decide(instances.names, classes)
    class_of = np.array([d.class_id for d in decisions], np.int32)
    if not (class_of[instances.category] >= 0).any():
        raise InputError(
            f'{annotations}: no annotation of a COCO class that is among the '
            f'{len(classes)} classes; expected categories such as "person" and "car" (for classes '
            'of your own, take pfdet own-data --format coco)'
        )
    found = find_set_images(instances, images, keep_missing)
    if negatives is None:
        negatives = all(d.is_of_coco for d in decisions)
    boxes = box_table(instances, class_of[instances.category], found.annotated_size)
    labels = _verified(instances, decisions, class_of, hierarchy, negatives)
    counts = dict(boxes.counts)
    counts['crowd'] = counts.pop('group_of')
    counts, size = write_set_index(
        out,
        instances,
        images,
        found,
        boxes,
        labels,
        classes,
        hierarchy,
        counts,
        np.unique(class_of[class_of >= 0]),
    )
    n_annotation = Counter(instances.category.tolist())
    return CocoReport(
        counts,
        decisions,
        {name: n_annotation[k] for k, name in enumerate(instances.names)},
        size,
    )


def _verified(
    instances: AnnotationSet,
    decisions: Sequence[Decision],
    class_of: np.ndarray,
    hierarchy: Hierarchy,
    negatives: bool,
) -> ImageLabelTable:
    mapped = np.flatnonzero(class_of >= 0)
    column = np.full(len(class_of), -1)
    column[mapped] = np.arange(len(mapped))
    present = np.zeros((len(instances.image_ids), len(mapped)), bool)
    known = column[instances.category] >= 0
    present[instances.image[known], column[instances.category[known]]] = True
    image, columns = np.nonzero(present)
    positive = np.ones(len(image), bool)
    if negatives:
        # Per mapped COCO class: the chosen classes that an object of it may belong to.
        possible = np.array([_possible_classes(decisions[k], hierarchy) for k in mapped])
        possible = possible[:, class_of[mapped]]
        absent = np.nonzero(present.astype(np.float32) @ possible.astype(np.float32) == 0)
        positive = np.concatenate([positive, np.zeros(len(absent[0]), bool)])
        image, columns = (np.concatenate(pair) for pair in zip((image, columns), absent))
    return ImageLabelTable(
        from_strings(instances.image_ids.tolist()),
        image.astype(np.int32),
        class_of[mapped][columns],
        positive,
        {},
        {},
    )


def _possible_classes(decision: Decision, hierarchy: Hierarchy) -> np.ndarray:
    candidates = np.zeros(hierarchy.n_class, bool)
    candidates[list(decision.candidates)] = True
    if not decision.is_of_coco:
        candidates |= hierarchy.descendants[decision.class_id]
    return hierarchy.closure[candidates].any(axis=0)


def describe_report(report: CocoReport, classes: Classes, keep_missing: bool = False) -> list[str]:
    """Return the lines that the command prints about a build.

    Args:
        report (CocoReport): From :func:`build_coco_index`.
        classes (Classes): The label space.
        keep_missing (bool): As given to :func:`build_coco_index`.

    Returns:
        list of str: Lines without line ends.
    """
    c = report.counts
    how = Counter(d.how for d in report.decisions).items()
    lines = [
        f'images: {c["images"]:,}; without a file, {"kept" if keep_missing else "skipped"}: '
        f'{c["missing"]:,}; with a file that cannot be read, the same: {c["unreadable"]:,}; of '
        f'another size than in the JSON: {c["resized"]:,}',
        f'objects: {c["objects"]:,} with {c["labels"]:,} labels, from {c["annotations"]:,} '
        f'annotations; crowds as group-of: {c["crowd"]:,}; clipped: {c["clipped"]:,}; of zero '
        f'area, skipped: {c["degenerate"]:,}; of categories without a class, skipped: '
        f'{c["unmapped"]:,}',
        f'verified classes: {c["positive"]:,} positive, {c["negative"]:,} negative',
        f'categories: {len(report.decisions)}; {"; ".join(f"{n} {what}" for what, n in how)}',
    ]
    for what in (ABSENT, FOREIGN):
        names = [d.coco for d in report.decisions if d.how == what]
        if names:
            lines.append(printable(f'{what} ({len(classes)}): {", ".join(names)}'))
    for d in report.decisions:
        if d.how == AMBIGUOUS:
            mids = ', '.join(classes.mids[c] for c in d.candidates)
            lines.append(printable(f'{AMBIGUOUS}: {d.coco} may be {mids}'))
    if not c['negative'] and not all(d.is_of_coco for d in report.decisions):
        lines.append(
            "not all categories are COCO's, so no class is verified as absent; give --exhaustive "
            'if all objects of these categories are annotated'
        )
    return lines


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description="Compile COCO's instances_*.json to an annotation index with the classes of "
        'Open Images.\n\n'
        '    pfdet coco --annotations instances_train2017.json --images train2017 \\\n'
        '        --out coco-train.index',
    )
    parser.add_argument(
        '--annotations', type=path_text, metavar='JSON', help='such as instances_train2017.json'
    )
    parser.add_argument(
        '--images', type=path_text, metavar='DIR', help='directory of the image files'
    )
    parser.add_argument('--out', type=path_text, metavar='INDEX', help='the index to write')
    parser.add_argument(
        '--table',
        nargs='?',
        const='-',
        type=path_text,
        metavar='FILE.csv',
        help='write the class that each COCO class is mapped to, and the reason; without '
        'FILE.csv, print it; without --annotations, do nothing else',
    )
    parser.add_argument(
        '--classes',
        type=path_text,
        metavar='CSV',
        help='class descriptions: mid,name (default: the 500 classes of the challenge)',
    )
    parser.add_argument(
        '--hierarchy', type=path_text, metavar='JSON', help='class hierarchy of --classes'
    )
    parser.add_argument(
        '--no-negatives',
        action='store_true',
        help='do not take classes without an annotation as verified negatives',
    )
    parser.add_argument(
        '--exhaustive',
        action='store_true',
        help="take them as verified negatives also if the categories are not COCO's",
    )
    parser.add_argument('--keep-missing', action='store_true', help='keep images without a file')
    args = parser.parse_args(argv)
    if args.no_negatives and args.exhaustive:
        raise InputError('--no-negatives and --exhaustive: expected one of them')
    if bool(args.classes) != bool(args.hierarchy):
        raise InputError('--classes and --hierarchy: expected both or neither')
    missing = [name for name in ('annotations', 'images', 'out') if getattr(args, name) is None]
    if missing and (args.table is None or len(missing) < 3):
        raise InputError(
            f'--{missing[0]}: missing; expected --annotations, --images and --out, or --table alone'
        )
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see ``--help``.

    Raises:
        InputError: If an argument or an input is invalid.
    """
    args = _parse(argv)
    start = time.perf_counter()
    classes, hierarchy = challenge_classes(), challenge_hierarchy()
    if args.classes:
        classes = read_classes(args.classes)
        hierarchy = read_hierarchy(args.hierarchy, classes)
    if args.annotations is None:
        write_table(args.table, table_rows(decide(list(read_mapping()), classes), classes))
        return
    if not args.keep_missing:
        check_image_directory(args.images)
    with output_lock(args.out):
        report = build_coco_index(
            args.annotations,
            args.images,
            args.out,
            classes,
            hierarchy,
            args.exhaustive if args.exhaustive or args.no_negatives else None,
            args.keep_missing,
        )
    for line in describe_report(report, classes, args.keep_missing):
        print(line)
    if args.table is not None:
        write_table(args.table, table_rows(report.decisions, classes, report.annotations))
    print(f'{args.out}: {report.size / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s')


if __name__ == '__main__':
    run_command(lambda: main(sys.argv[1:]))
