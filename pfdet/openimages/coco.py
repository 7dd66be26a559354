"""COCO's ``instances_*.json`` as an annotation index with Open Images' classes.

::

    python -m pfdet.openimages.coco --annotations instances_train2017.json --images train2017 \\
        --out coco-train.index [--table FILE.csv]
    python -m pfdet.openimages.coco --table          (only say which class becomes which)

The index has the classes of Open Images' challenge, or those given, with their ids: what is
trained on one can be scored on the other. Which class a COCO class becomes is decided by

1. ``same name``: of the Open Images classes that the packaged mapping file says are of the COCO
   class, the one with its name. (The mapping knows that COCO's mouse is no animal.)
2. ``mapping file``: the only one there is.
3. ``chosen of several``: see :data:`CHOSEN`.
4. ``not among the classes``: annotations of the COCO class are left out, and counted.

COCO is annotated exhaustively in its 80 classes. So every class that a COCO class becomes is
verified in every image: positive where the class is annotated and negative elsewhere. But it is
not negative where a more special class may be present: COCO's teddy bear becomes a class that is
a Bear in Open Images, and COCO's truck may be a van, which is a Car there.
"""

import argparse
import csv
import functools
import importlib.resources
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError, run_command
from pfdet.openimages.arrow_arrays import from_strings
from pfdet.openimages.build_index import annotation_columns, id_columns
from pfdet.openimages.classes import Classes, challenge_classes, read_classes
from pfdet.openimages.coco_json import Instances, read_instances
from pfdet.openimages.hierarchy import Hierarchy, challenge_hierarchy, read_hierarchy
from pfdet.openimages.index import write_index
from pfdet.openimages.tables import GROUP_OF, BoxTable, ImageLabelTable

SAME, MAPPED, CHOSEN_HERE = 'same name', 'mapping file', 'chosen of several'
ABSENT, FOREIGN = 'not among the classes', 'no class of COCO'

#: Of several Open Images classes, none of which has the COCO class's name. Cattle are cows of any
#: sex, as COCO's are; coffee cup is nearer to what people call a cup than measuring cup or mug; and
#: kitchen & dining room table is a kind of table: with Table, every coffee table in an image
#: without a dining table would be a false negative.
CHOSEN = {'cow': 'cattle', 'cup': 'coffee cup', 'dining table': 'kitchen & dining room table'}


@dataclass(frozen=True)
class Decision:
    """What a COCO class becomes.

    Attributes:
        coco (str): Its name in COCO.
        class_id (int): The class it becomes, or -1 for none.
        how (str): One of the five strings at the head of this module.
        candidates (tuple of int): All classes that are of it by the mapping file.
    """

    coco: str
    class_id: int
    how: str
    candidates: tuple[int, ...]


@dataclass(frozen=True)
class CocoReport:
    """What :func:`build_coco_index` did.

    Attributes:
        counts (dict): ``images``, ``objects``, ``labels``, ``positive`` and ``negative`` in the
            index; of the JSON's ``annotations`` those of categories without a class
            (``unmapped``), without extent (``degenerate``), ``clipped`` to the image, and with
            ``iscrowd`` (``crowd``); images without a file (``missing``).
        decisions (tuple of Decision): For each category of the JSON, in its order.
        annotations (dict): The number of annotations per category name.
        size (int): Bytes of the index.
    """

    counts: dict[str, int]
    decisions: tuple[Decision, ...]
    annotations: dict[str, int]
    size: int


@functools.cache
def read_mapping() -> dict[str, tuple[str, ...]]:
    """Return for each of COCO's 80 classes the Open Images classes of it, in lower case."""
    data = importlib.resources.files('pfdet.openimages').joinpath('data')
    text = data.joinpath('openimages_coco_mapping.csv').read_text(encoding='utf-8')
    found: dict[str, list[str]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if row['Status'] == 'IN':
            found.setdefault(row['COCO_Class'], []).append(row['OpenImages'].casefold())
    return {name: tuple(found[name]) for name in sorted(found)}


def decide(categories: Sequence[str], classes: Classes) -> tuple[Decision, ...]:
    """Decide which class each COCO class becomes.

    Args:
        categories (sequence of str): Names of COCO classes.
        classes (Classes): The label space.

    Returns:
        tuple of Decision: One a category.
    """
    ids = {name.casefold(): i for i, name in enumerate(classes.names)}
    mapping = read_mapping()
    decisions = []
    for coco in categories:
        names = [name for name in mapping.get(coco.casefold(), ()) if name in ids]
        if coco.casefold() not in mapping:
            chosen, how = None, FOREIGN
        elif not names:
            chosen, how = None, ABSENT
        elif coco.casefold() in names:
            chosen, how = coco.casefold(), SAME
        elif len(names) == 1:
            chosen, how = names[0], MAPPED
        else:
            liked = CHOSEN.get(coco.casefold())
            chosen, how = liked if liked in names else names[0], CHOSEN_HERE
        decisions.append(
            Decision(
                coco, -1 if chosen is None else ids[chosen], how, tuple(ids[name] for name in names)
            )
        )
    return tuple(decisions)


def build_coco_index(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    out: str | os.PathLike,
    classes: Classes | None = None,
    hierarchy: Hierarchy | None = None,
    negatives: bool = True,
    keep_missing: bool = False,
) -> CocoReport:
    """Compile a COCO annotation file to an index.

    Images are named by ``file_name``, without suffix, and their sizes are the JSON's.
    ``iscrowd`` becomes the group-of flag.

    Args:
        annotations (path): Such as ``instances_train2017.json``.
        images (path): The directory of the image files.
        out (path): The index file, replaced when the new one is complete.
        classes (Classes): The label space; the challenge's by default.
        hierarchy (Hierarchy): Over ``classes``; the challenge's by default.
        negatives (bool): Whether the absence of an annotation is a verified negative.
        keep_missing (bool): Keep images without a file.

    Returns:
        CocoReport: Counts and decisions.

    Raises:
        InputError: If the JSON is bad, nothing in it has a class, no image has a file (unless
            ``keep_missing``), or ``out`` cannot be written.
    """
    classes = challenge_classes() if classes is None else classes
    hierarchy = challenge_hierarchy() if hierarchy is None else hierarchy
    found = read_instances(annotations)
    decisions = decide(found.categories, classes)
    class_of = np.array([d.class_id for d in decisions], np.int32)
    if not (class_of[found.category] >= 0).any():
        raise InputError(
            f'{annotations}: no annotation of a COCO class that is among the '
            f'{len(classes)} classes; expected categories such as "person" and "car"'
        )
    kept = _with_file(images, found.file_names)
    missing = int((~kept).sum())
    if keep_missing:
        kept[:] = True
    elif not kept.any():
        raise InputError(
            f'{images}: no image of the {len(kept)} in {annotations} was found; '
            f'expected files such as {found.file_names[0]}'
        )
    boxes = _boxes(found, class_of)
    labels = _verified(found, decisions, class_of, hierarchy, negatives)
    columns, _ = annotation_columns(boxes, labels, kept, len(classes))
    columns.update(id_columns([i for i, keep in zip(found.image_ids, kept) if keep]))
    columns['image_size'] = found.size[kept]
    columns['image_suffix'] = found.suffix[kept]
    counts = {
        'images': int(kept.sum()),
        'objects': len(columns['bbox']),
        'labels': len(columns['label']),
        'positive': len(columns['positive']),
        'negative': len(columns['negative']),
        **boxes.counts,
        'missing': missing,
    }
    try:
        size = write_index(out, columns, classes, hierarchy, images, found.suffixes, counts)
    except OSError as e:
        raise InputError(f'{out}: cannot write the index: {e.strerror or e}') from e
    number = Counter(found.category.tolist())
    return CocoReport(
        counts, decisions, {name: number[k] for k, name in enumerate(found.categories)}, size
    )


def _boxes(found: Instances, class_of: np.ndarray) -> BoxTable:
    label = class_of[found.category]
    size = found.size[found.image].astype(np.float64)
    at, extent = found.bbox[:, [1, 0]] / size, found.bbox[:, [3, 2]] / size
    bbox = np.concatenate([at, at + extent], axis=1)
    # The addition turns a negative zero, which would differ in its bits, into zero.
    clipped = (np.clip(bbox, 0, 1) + 0).astype(np.float32)
    solid = (clipped[:, :2] < clipped[:, 2:]).all(axis=1)
    keep = (label >= 0) & solid
    # COCO rounds to hundredths of a pixel: as little beyond the border is no error.
    outside = (np.abs(np.clip(bbox, 0, 1) - bbox) * np.tile(size, 2) > 0.011).any(axis=1)
    counts = {
        'annotations': len(label),
        'boxes': int(keep.sum()),
        'unmapped': int((label < 0).sum()),
        'degenerate': int((~solid & (label >= 0)).sum()),
        'clipped': int(outside[keep].sum()),
        'crowd': int(found.crowd[keep].sum()),
    }
    flags = np.where(found.crowd[keep], GROUP_OF, 0).astype(np.uint8)
    return BoxTable(
        from_strings(found.image_ids.tolist()),
        found.image[keep],
        label[keep],
        clipped[keep],
        flags,
        counts,
        {},
    )


def _verified(
    found: Instances,
    decisions: Sequence[Decision],
    class_of: np.ndarray,
    hierarchy: Hierarchy,
    negatives: bool,
) -> ImageLabelTable:
    mapped = np.flatnonzero(class_of >= 0)
    place = np.full(len(class_of), -1)
    place[mapped] = np.arange(len(mapped))
    present = np.zeros((len(found.image_ids), len(mapped)), bool)
    known = place[found.category] >= 0
    present[found.image[known], place[found.category[known]]] = True
    image, at = np.nonzero(present)
    positive = np.ones(len(image), bool)
    if negatives:
        # What an object of a COCO class may be of all classes that others become.
        may_be = np.array(
            [hierarchy.closure[list(decisions[k].candidates)].any(axis=0) for k in mapped]
        )[:, class_of[mapped]]
        absent = np.nonzero(present.astype(np.float32) @ may_be.astype(np.float32) == 0)
        positive = np.concatenate([positive, np.zeros(len(absent[0]), bool)])
        image, at = np.concatenate([image, absent[0]]), np.concatenate([at, absent[1]])
    return ImageLabelTable(
        from_strings(found.image_ids.tolist()),
        image.astype(np.int32),
        class_of[mapped][at],
        positive,
        {},
        {},
    )


def _with_file(root: str | os.PathLike, file_names: Sequence[str]) -> np.ndarray:
    try:
        names = set(os.listdir(root))
    except OSError:
        names = set()
    # A name with a slash is of a subdirectory, which the listing does not have.
    return np.array(
        [
            name in names or '/' in name and os.path.exists(os.path.join(root, name))
            for name in file_names
        ],
        bool,
    )


def table_rows(
    decisions: Sequence[Decision], classes: Classes, annotations: dict[str, int] | None = None
) -> list[list[str]]:
    """Return the table of decisions, the header first.

    Args:
        decisions (sequence of Decision): From :func:`decide`.
        classes (Classes): The label space.
        annotations (dict): The number of annotations per COCO class, for a last column.
    """
    rows = [['CocoClass', 'LabelName', 'DisplayName', 'How', 'OtherCandidates']]
    for d in decisions:
        mid, name = (
            (classes.mids[d.class_id], classes.names[d.class_id]) if d.class_id >= 0 else ('', '')
        )
        rows.append(
            [
                d.coco,
                mid,
                name,
                d.how,
                '; '.join(classes.names[c] for c in d.candidates if c != d.class_id),
            ]
        )
    if annotations is not None:
        for row, last in zip(rows, ['Annotations', *(annotations[d.coco] for d in decisions)]):
            row.append(str(last))
    return rows


def _write_table(where: str, rows: list[list[str]]) -> None:
    if where == '-':
        widths = [max(map(len, column)) for column in zip(*rows)]
        for row in rows:
            print('  '.join(field.ljust(width) for field, width in zip(row, widths)).rstrip())
        return
    try:
        with (
            replace_when_done(where) as unfinished,
            open(unfinished, 'w', newline='', encoding='utf-8') as f,
        ):
            csv.writer(f, lineterminator='\n').writerows(rows)
    except OSError as e:
        raise InputError(f'--table {where}: cannot write it: {e.strerror or e}') from e


def describe_report(report: CocoReport, classes: Classes, keep_missing: bool = False) -> list[str]:
    """Return the lines the command prints about a build."""
    c = report.counts
    how = Counter(d.how for d in report.decisions).items()
    lines = [
        f'images: {c["images"]:,}; without a file, {"kept" if keep_missing else "left out"}: '
        f'{c["missing"]:,}',
        f'objects: {c["objects"]:,} with {c["labels"]:,} labels, from {c["annotations"]:,} '
        f'annotations; crowds as group-of: {c["crowd"]:,}; clipped: {c["clipped"]:,}; without '
        f'extent, dropped: {c["degenerate"]:,}; of categories without a class, skipped: '
        f'{c["unmapped"]:,}',
        f'verified classes: {c["positive"]:,} positive, {c["negative"]:,} negative',
        f'categories: {len(report.decisions)}; {"; ".join(f"{n} {what}" for what, n in how)}',
    ]
    for what in (ABSENT, FOREIGN):
        names = [d.coco for d in report.decisions if d.how == what]
        if names:
            lines.append(f'{what} ({len(classes)}): {", ".join(names)}')
    return lines


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m pfdet.openimages.coco',
        description="Compile COCO's instances_*.json to an annotation index with Open Images' "
        'classes.',
    )
    parser.add_argument('--annotations', metavar='JSON', help='such as instances_train2017.json')
    parser.add_argument('--images', metavar='DIR', help='directory of the image files')
    parser.add_argument('--out', metavar='INDEX', help='the index to write')
    parser.add_argument(
        '--table',
        nargs='?',
        const='-',
        metavar='FILE.csv',
        help='write which class each COCO class becomes, and why; without FILE, '
        'print it; without --annotations, do nothing else',
    )
    parser.add_argument(
        '--classes',
        metavar='CSV',
        help="class descriptions, mid,name (default: the challenge's 500)",
    )
    parser.add_argument('--hierarchy', metavar='JSON', help='class hierarchy that belongs to them')
    parser.add_argument(
        '--no-negatives',
        action='store_true',
        help='verify only classes that are annotated in an image',
    )
    parser.add_argument('--keep-missing', action='store_true', help='keep images without a file')
    args = parser.parse_args(argv)
    if bool(args.classes) != bool(args.hierarchy):
        raise InputError('--classes and --hierarchy belong together: expected both or neither')
    wanted = [name for name in ('annotations', 'images', 'out') if getattr(args, name) is None]
    if wanted and (args.table is None or len(wanted) < 3):
        raise InputError(
            f'--{wanted[0]}: missing; expected --annotations, --images and --out, or --table alone'
        )
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; ``--help`` says what it takes."""
    args = _parse(argv)
    start = time.perf_counter()
    classes, hierarchy = challenge_classes(), challenge_hierarchy()
    if args.classes:
        classes = read_classes(args.classes)
        hierarchy = read_hierarchy(args.hierarchy, classes)
    if args.annotations is None:
        _write_table(args.table, table_rows(decide(list(read_mapping()), classes), classes))
        return
    report = build_coco_index(
        args.annotations,
        args.images,
        args.out,
        classes,
        hierarchy,
        not args.no_negatives,
        args.keep_missing,
    )
    for line in describe_report(report, classes, args.keep_missing):
        print(line)
    if args.table is not None:
        _write_table(args.table, table_rows(report.decisions, classes, report.annotations))
    print(f'{args.out}: {report.size / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s')


if __name__ == '__main__':
    run_command(lambda: main(sys.argv[1:]))
