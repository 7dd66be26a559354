"""Statistics of a split: ``python -m pfdet.openimages.statistics --index INDEX --out DIR``.

What section 3 of *Large-Scale Object Detection in the Wild from Imbalanced Multi-Labels* shows of
Open Images, of any index: images and boxes per class and the imbalance magnitude (figure 2), the
concurrent rates and the confused pairs of leaf classes (figure 3a), and how many objects of a
parent class lack a more special label (figure 3b).

======================== ==========================================================================
file in DIR              what
======================== ==========================================================================
statistics.json          the figures below and the options they were made with
classes.csv              images, boxes, verified classes, per class
confused_pairs.csv       ordered pairs of leaf classes with a rate of at least the threshold
parents.csv              per parent class, its objects with and without a leaf label
concurrent_rates.npz     all rates, for :mod:`pfdet.openimages.concurrent_rates` to read
images_per_class.svg/png figure 2
confused_pairs.svg/png   figure 3a
confusion.svg/png        the same as a matrix
parents.svg/png          figure 3b
======================== ==========================================================================
"""

import argparse
import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError, run_command
from pfdet.openimages.classes import Classes
from pfdet.openimages.concurrent_rates import (
    ConcurrentRates,
    ConfusedPair,
    add_concurrences,
    confused_pairs,
    expand,
    label_sets,
    write_concurrent_rates,
    write_pairs_csv,
)
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.tables import GROUP_OF


@dataclass(frozen=True)
class ClassCounts:
    """How much there is of each class; all int64 ``(C,)``.

    Attributes:
        images (array): Images with a box of the class, as annotated.
        images_expanded (array): The same after expansion to all ancestors.
        boxes (array): Boxes of the class, as annotated; equal boxes of an image are one.
        boxes_group_of (array): Of these, group-of boxes.
        positive (array): Images in which the class was verified to be, or is boxed.
        negative (array): Images in which the class was verified to be absent.
    """

    images: np.ndarray
    images_expanded: np.ndarray
    boxes: np.ndarray
    boxes_group_of: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


@dataclass(frozen=True)
class ParentCounts:
    """How special the labels of a parent class's objects are (figure 3b); all int64 ``(C,)``.

    Objects are those of :mod:`pfdet.openimages.concurrent_rates`: groups of boxes.

    Attributes:
        objects (array): Objects that are of the class: labelled with it or a descendant of it.
        without_descendant (array): Of these, objects labelled with the class and no descendant.
        without_leaf (array): Objects with no label of a leaf below the class. For a class at
            more than one remove from the leaves, that is more than ``without_descendant``.
    """

    objects: np.ndarray
    without_descendant: np.ndarray
    without_leaf: np.ndarray


@dataclass(frozen=True)
class Imbalance:
    """The imbalance magnitude (figure 2).

    Attributes:
        largest (int): The class with the most images.
        smallest (int): Of the classes with any image, the one with the fewest.
        magnitude (float): Images of the largest over images of the smallest; NaN without any.
        n_empty (int): Classes without an image.
    """

    largest: int
    smallest: int
    magnitude: float
    n_empty: int


@dataclass(frozen=True)
class Statistics:
    """Everything that is reported of an index."""

    classes: ClassCounts
    parents: ParentCounts
    rates: ConcurrentRates


def count_classes(index: AnnotationIndex) -> ClassCounts:
    """Count images, boxes and verified classes per class."""
    n_class = len(index.classes)
    columns = index.columns
    offsets, ids = index.image_classes()
    n_label = np.diff(columns['label_offsets'])
    in_group = np.repeat((columns['flags'] & GROUP_OF) != 0, n_label)

    def per_class(classes: np.ndarray) -> np.ndarray:
        return np.bincount(classes, minlength=n_class)

    expanded = np.zeros(n_class, np.int64)
    block = 250_000
    for first in range(0, len(index), block):
        bounds = offsets[first : first + block + 1]
        expanded += per_class(
            expand(
                sp.csr_array(
                    (
                        np.ones(bounds[-1] - bounds[0], np.int32),
                        ids[bounds[0] : bounds[-1]],
                        bounds - bounds[0],
                    ),
                    (len(bounds) - 1, n_class),
                ),
                index.hierarchy,
            ).indices
        )
    return ClassCounts(
        per_class(ids),
        expanded,
        per_class(columns['label']),
        per_class(columns['label'][in_group]),
        per_class(columns['positive']),
        per_class(columns['negative']),
    )


def imbalance(images: np.ndarray) -> Imbalance:
    """Compare the largest class with the smallest.

    Args:
        images (array): Images per class, ``(C,)``.
    """
    some = np.flatnonzero(images)
    if not len(some):
        return Imbalance(0, 0, float('nan'), len(images))
    # Of equally rare classes the last, which is also the last in the figure.
    largest, smallest = int(images.argmax()), int(some[::-1][images[some[::-1]].argmin()])
    return Imbalance(
        largest, smallest, float(images[largest] / images[smallest]), len(images) - len(some)
    )


def add_parents(sets: sp.csr_array, hierarchy: Hierarchy, parents: ParentCounts) -> None:
    """Add a block of objects to the counts of parents.

    Args:
        sets (scipy.sparse.csr_array): From
            :func:`~pfdet.openimages.concurrent_rates.label_sets`.
        hierarchy (Hierarchy): Over the same classes.
        parents (ParentCounts): Changed. Leaves are counted like parents; they lack nothing
            below them, and so everything.
    """
    n_class = hierarchy.n_class
    leaf_below = hierarchy.ancestors & hierarchy.is_leaf[:, None]

    def reached(relation: np.ndarray) -> np.ndarray:
        found = (sets @ sp.csr_array(relation.astype(np.int32))).tocsr()
        return np.bincount(found.indices, minlength=n_class)

    objects = reached(hierarchy.closure)
    parents.objects[:] += objects
    parents.without_descendant[:] += objects - reached(hierarchy.ancestors)
    parents.without_leaf[:] += objects - reached(leaf_below)


def statistics(
    index: AnnotationIndex, iou_thresh: float = 0.9, group_of: bool = False, expanded: bool = False
) -> Statistics:
    """Count everything, reading the boxes once.

    Args:
        index (AnnotationIndex): The annotations.
        iou_thresh (float): See :func:`~pfdet.openimages.concurrent_rates.concurrent_rates`, as
            for the others.
        group_of (bool): Whether group-of boxes are objects.
        expanded (bool): Whether concurrent rates are of labels expanded to all ancestors.
    """
    n_class = len(index.classes)
    parents = ParentCounts(*(np.zeros(n_class, np.int64) for _ in range(3)))
    count, both = np.zeros(n_class, np.int64), np.zeros((n_class, n_class), np.int64)
    for sets in label_sets(index, iou_thresh, group_of):
        add_parents(sets, index.hierarchy, parents)
        add_concurrences(expand(sets, index.hierarchy) if expanded else sets, count, both)
    return Statistics(
        count_classes(index), parents, ConcurrentRates(count, both, iou_thresh, group_of, expanded)
    )


def summary(
    found: Statistics, index: AnnotationIndex, pairs: list[ConfusedPair], threshold: float
) -> dict:
    """Gather what ``statistics.json`` holds.

    Args:
        found (Statistics): The counts.
        index (AnnotationIndex): What was counted.
        pairs (list of ConfusedPair): Leaf classes at ``threshold``.
        threshold (float): The least rate of a pair.

    Returns:
        dict: Of numbers, strings and dicts of them.
    """
    leaves = index.hierarchy.is_leaf
    parents = np.flatnonzero(~leaves)
    objects = int(found.parents.objects[parents].sum())

    def magnitude(images: np.ndarray) -> dict:
        said = imbalance(images)
        return {
            'largest': _named(index.classes, said.largest, images),
            'smallest': _named(index.classes, said.smallest, images),
            'magnitude': said.magnitude if images.any() else None,
            'classes_without_image': said.n_empty,
        }

    return {
        'index': str(index.path),
        'images': len(index),
        'classes': len(index.classes),
        'boxes': int(found.classes.boxes.sum()),
        'objects_in_index': len(index.columns['bbox']),
        'leaf_classes': int(leaves.sum()),
        'parent_classes': len(parents),
        'imbalance': magnitude(found.classes.images),
        'imbalance_expanded': magnitude(found.classes.images_expanded),
        'concurrent_rates': {
            'iou_thresh': found.rates.iou_thresh,
            'group_of': found.rates.group_of,
            'expanded': found.rates.expanded,
            'threshold': threshold,
            'ordered_pairs_of_leaves': len(pairs),
            'unordered_pairs_of_leaves': len({frozenset((p.i, p.j)) for p in pairs}),
            'pairs': [
                {
                    'class': index.classes.names[p.i],
                    'as': index.classes.names[p.j],
                    'rate': p.rate,
                    'reverse': p.reverse,
                    'both': p.both,
                    'count': p.count,
                }
                for p in pairs
            ],
        },
        'parents': {
            'objects_summed_over_parents': objects,
            'without_descendant': _ratio(found.parents.without_descendant[parents].sum(), objects),
            'without_leaf': _ratio(found.parents.without_leaf[parents].sum(), objects),
            'ratio_without_descendant': {
                index.classes.names[p]: _ratio(
                    found.parents.without_descendant[p], found.parents.objects[p]
                )
                for p in parents
            },
        },
    }


def _named(classes: Classes, i: int, images: np.ndarray) -> dict:
    return {'class': classes.names[i], 'mid': classes.mids[i], 'images': int(images[i])}


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def write_statistics(
    out: str | os.PathLike,
    found: Statistics,
    index: AnnotationIndex,
    threshold: float = 0.1,
    min_count: int = 1,
    n_pair: int = 55,
    others: Sequence[tuple[str, np.ndarray]] = (),
) -> dict:
    """Write tables and figures to a directory; each file appears when it is complete.

    Args:
        out (path): The directory, made if needed.
        found (Statistics): The counts.
        index (AnnotationIndex): What was counted.
        threshold (float): The least rate of a confused pair.
        min_count (int): The least number of objects of a confused class.
        n_pair (int): How many pairs the figures show at most; 55 in the paper.
        others (sequence of pairs): Of other data sets, the name and images per class, to draw
            beside this one's, as the paper's figure 2 has COCO.

    Returns:
        dict: What ``statistics.json`` holds.

    Raises:
        OSError: If a file cannot be written.
    """
    # Matplotlib takes half a second to import, which counting does not need.
    from pfdet.openimages import statistics_plots

    out = Path(out)
    classes, leaves = index.classes, index.hierarchy.is_leaf
    pairs = confused_pairs(found.rates, threshold, leaves, min_count)
    said = summary(found, index, pairs, threshold)
    _write_table(
        out / 'classes.csv',
        classes,
        np.arange(len(classes)),
        {
            'IsLeaf': leaves.astype(int),
            'Images': found.classes.images,
            'ImagesExpanded': found.classes.images_expanded,
            'Boxes': found.classes.boxes,
            'GroupOfBoxes': found.classes.boxes_group_of,
            'Objects': found.rates.count,
            'VerifiedPositive': found.classes.positive,
            'VerifiedNegative': found.classes.negative,
        },
    )
    parents = np.flatnonzero(~leaves)
    counts = found.parents
    some = np.maximum(counts.objects, 1)
    _write_table(
        out / 'parents.csv',
        classes,
        parents,
        {
            'Objects': counts.objects,
            'WithoutDescendant': counts.without_descendant,
            'WithoutLeaf': counts.without_leaf,
            'RatioWithoutDescendant': np.round(counts.without_descendant / some, 6),
            'RatioWithoutLeaf': np.round(counts.without_leaf / some, 6),
        },
    )
    write_pairs_csv(out / 'confused_pairs.csv', pairs, classes)
    write_concurrent_rates(out / 'concurrent_rates.npz', found.rates, classes)
    drawn = {
        'images_per_class': lambda: statistics_plots.images_per_class(
            [(index.path.stem, found.classes.images), *others], classes.names
        ),
        'confused_pairs': lambda: statistics_plots.pair_bars(
            pairs[:n_pair], classes.names, threshold
        ),
        'confusion': lambda: statistics_plots.confusion_matrix(
            found.rates.rates, pairs[:n_pair], classes.names
        ),
        'parents': lambda: statistics_plots.parent_bars(
            counts.objects[parents],
            counts.without_descendant[parents],
            counts.without_leaf[parents],
            [classes.names[p] for p in parents],
        ),
    }
    for name, draw in tqdm(drawn.items(), desc='figures', disable=None):
        statistics_plots.save(draw(), out / name)
    with replace_when_done(out / 'statistics.json') as unfinished:
        unfinished.write_text(
            json.dumps(said, indent=1, ensure_ascii=False) + '\n', encoding='utf-8'
        )
    return said


def _write_table(
    path: Path, classes: Classes, rows: np.ndarray, columns: dict[str, np.ndarray]
) -> None:
    with (
        replace_when_done(path) as unfinished,
        open(unfinished, 'w', newline='', encoding='utf-8') as f,
    ):
        writer = csv.writer(f, lineterminator='\n')
        writer.writerow(['LabelName', 'DisplayName', *columns])
        for i in rows:
            writer.writerow(
                [
                    classes.mids[i],
                    classes.names[i],
                    *(column[i].item() for column in columns.values()),
                ]
            )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m pfdet.openimages.statistics',
        description='Count images, boxes and label confusions of an annotation index.',
    )
    parser.add_argument('--index', required=True, metavar='INDEX', help='an annotation index')
    parser.add_argument('--out', required=True, metavar='DIR', help='where the files go')
    parser.add_argument(
        '--iou',
        type=float,
        default=0.9,
        metavar='X',
        help='boxes of an image with at least this IoU are one object (%(default)s)',
    )
    parser.add_argument(
        '--group-of', action='store_true', help='count group-of boxes as objects, too'
    )
    parser.add_argument(
        '--expanded',
        action='store_true',
        help='concurrent rates of labels expanded to all ancestors',
    )
    parser.add_argument(
        '--threshold',
        type=float,
        default=0.1,
        metavar='X',
        help='least concurrent rate of a confused pair (%(default)s)',
    )
    parser.add_argument(
        '--min-count',
        type=int,
        default=1,
        metavar='N',
        help='least number of objects of a class in a confused pair (%(default)s)',
    )
    parser.add_argument(
        '--pairs',
        type=int,
        default=55,
        metavar='N',
        help='how many confused pairs the figures show (%(default)s)',
    )
    parser.add_argument(
        '--compare',
        nargs='+',
        default=[],
        metavar='INDEX',
        help='other indexes, such as of COCO, to draw beside in the figure of images per class',
    )
    args = parser.parse_args(argv)
    for name, value in (('--iou', args.iou), ('--threshold', args.threshold)):
        if not 0 < value <= 1:
            raise InputError(f'{name} {value}: expected a number above 0 and at most 1')
    for name, number in (('--min-count', args.min_count), ('--pairs', args.pairs)):
        if number < 1:
            raise InputError(f'{name} {number}: expected at least 1')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; ``--help`` says what it takes."""
    args = _parse(argv)
    index = AnnotationIndex.open(args.index)
    others = [
        (Path(path).stem, count_classes(AnnotationIndex.open(path)).images) for path in args.compare
    ]
    found = statistics(index, args.iou, args.group_of, args.expanded)
    try:
        said = write_statistics(
            args.out, found, index, args.threshold, args.min_count, args.pairs, others
        )
    except OSError as e:
        raise InputError(f'--out {args.out}: cannot write there: {e.strerror or e}') from e
    for line in describe(said):
        print(line)
    print(f'{args.out}: statistics.json, tables and figures')


def describe(said: dict) -> list[str]:
    """Return the lines the command prints; the argument is :func:`summary`'s."""
    lines = [
        f'images: {said["images"]:,}; boxes: {said["boxes"]:,} of '
        f'{said["leaf_classes"]} leaf and {said["parent_classes"]} parent classes'
    ]
    for key, how in (('imbalance', 'as annotated'), ('imbalance_expanded', 'expanded')):
        it = said[key]
        if it['magnitude'] is not None:
            lines.append(
                f'imbalance magnitude, {how}: {it["magnitude"]:,.0f} '
                f'({it["largest"]["class"]} {it["largest"]["images"]:,} : '
                f'{it["smallest"]["class"]} {it["smallest"]["images"]:,} images); '
                f'classes without an image: {it["classes_without_image"]}'
            )
    rates, parents = said['concurrent_rates'], said['parents']
    lines.append(
        f'pairs of leaf classes with a concurrent rate of {rates["threshold"]:g} or '
        f'more: {rates["ordered_pairs_of_leaves"]} ordered, '
        f'{rates["unordered_pairs_of_leaves"]} unordered'
    )
    if parents['without_leaf'] is not None:
        lines.append(
            f'objects of parent classes: {parents["without_descendant"]:.1%} have no '
            f'more special label, {parents["without_leaf"]:.1%} no leaf label'
        )
    return lines


if __name__ == '__main__':
    run_command(main)
