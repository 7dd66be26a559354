"""Statistics of a split: ``python -m pfdet.openimages.statistics --index INDEX --out DIR``.

The command computes, for any index, what Section 3 of Peng et al. (2020) reports of Open Images:
images and boxes per class and the imbalance magnitude (Figure 2), concurrent rates and confused
pairs of leaf classes (Figure 3a), and the number of objects of each parent class without a more
specific label (Figure 3b).

======================== ==========================================================================
file in DIR              content
======================== ==========================================================================
statistics.json          summary of the statistics, and the options of the command
classes.csv              per class, images, boxes and verified images
confused_pairs.csv       ordered pairs of leaf classes with a rate of at least the threshold
parents.csv              per parent class, objects with and without a leaf label
concurrent_rates.npz     all rates, see :mod:`pfdet.openimages.concurrent_rates`
images_per_class.svg/png Figure 2
confused_pairs.svg/png   Figure 3a
confusion.svg/png        the same pairs as a matrix
parents.svg/png          Figure 3b
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
from tqdm import tqdm

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError, run_command
from pfdet.flags import MANY, Parser, integer, number, path_text
from pfdet.openimages.class_counts import (
    ClassCounts,
    ParentCounts,
    add_parents,
    count_classes,
    imbalance,
)
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
from pfdet.openimages.index import AnnotationIndex
from pfdet.printable import printable


@dataclass(frozen=True)
class Statistics:
    """All statistics of an index.

    Attributes:
        classes (ClassCounts): Counts per class.
        parents (ParentCounts): Counts of objects without more specific labels.
        rates (ConcurrentRates): Concurrent rates.
    """

    classes: ClassCounts
    parents: ParentCounts
    rates: ConcurrentRates


def statistics(
    index: AnnotationIndex, iou_thresh: float = 0.9, group_of: bool = False, expanded: bool = False
) -> Statistics:
    """Compute all statistics of an index.

    Args:
        index (AnnotationIndex): The annotations.
        iou_thresh (float): Boxes of an image with at least this IoU are one object.
        group_of (bool): Whether group-of boxes are objects.
        expanded (bool): Whether labels are expanded to all ancestors for the concurrent rates.

    Raises:
        ValueError: If ``iou_thresh`` is not in (0, 1].
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
    result: Statistics, index: AnnotationIndex, pairs: list[ConfusedPair], threshold: float
) -> dict:
    """Return the content of ``statistics.json``.

    Args:
        result (Statistics): From :func:`statistics`.
        index (AnnotationIndex): The same index.
        pairs (list of ConfusedPair): Confused pairs of leaf classes.
        threshold (float): The minimum rate of these pairs.

    Returns:
        dict: Numbers, strings, and lists and dicts of them.
    """
    leaves = index.hierarchy.is_leaf
    parents = np.flatnonzero(~leaves)
    objects = int(result.parents.objects[parents].sum())

    def magnitude(images: np.ndarray) -> dict:
        value = imbalance(images)
        return {
            'largest': _describe_class(index.classes, value.largest, images),
            'smallest': _describe_class(index.classes, value.smallest, images),
            'magnitude': value.magnitude if images.any() else None,
            'classes_without_image': value.n_empty,
        }

    return {
        'index': str(index.path),
        'images': len(index),
        'classes': len(index.classes),
        'boxes': int(result.classes.boxes.sum()),
        'objects_in_index': len(index.columns['bbox']),
        'leaf_classes': int(leaves.sum()),
        'parent_classes': len(parents),
        'imbalance': magnitude(result.classes.images),
        'imbalance_expanded': magnitude(result.classes.images_expanded),
        'concurrent_rates': {
            'iou_thresh': result.rates.iou_thresh,
            'group_of': result.rates.group_of,
            'expanded': result.rates.expanded,
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
            'without_descendant': _ratio(result.parents.without_descendant[parents].sum(), objects),
            'without_leaf': _ratio(result.parents.without_leaf[parents].sum(), objects),
            'ratio_without_descendant': {
                index.classes.names[p]: _ratio(
                    result.parents.without_descendant[p], result.parents.objects[p]
                )
                for p in parents
            },
        },
    }


def _describe_class(classes: Classes, i: int, images: np.ndarray) -> dict:
    return {'class': classes.names[i], 'mid': classes.mids[i], 'images': int(images[i])}


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def write_statistics(
    out: str | os.PathLike,
    result: Statistics,
    index: AnnotationIndex,
    threshold: float = 0.1,
    min_count: int = 1,
    n_pair: int = 55,
    others: Sequence[tuple[str, np.ndarray]] = (),
) -> dict:
    """Write tables and plots to a directory. Each file appears when it is complete.

    Args:
        out (path): The directory. It is created if necessary.
        result (Statistics): From :func:`statistics`.
        index (AnnotationIndex): The same index.
        threshold (float): The minimum rate of a confused pair.
        min_count (int): The minimum number of objects of the first class of a confused pair.
        n_pair (int): The maximum number of pairs in the plots; 55 in Peng et al. (2020).
        others (sequence of pairs): Names of other data sets and their images per class, for the
            plot of images per class. In Figure 2 this is COCO.

    Returns:
        dict: The content of ``statistics.json``.

    Raises:
        OSError: If a file cannot be written.
    """
    # Importing Matplotlib takes half a second, and counting does not need it.
    from pfdet.openimages import statistics_plots

    out = Path(out)
    classes, leaves = index.classes, index.hierarchy.is_leaf
    pairs = confused_pairs(result.rates, threshold, leaves, min_count)
    content = summary(result, index, pairs, threshold)
    _write_table(
        out / 'classes.csv',
        classes,
        np.arange(len(classes)),
        {
            'IsLeaf': leaves.astype(int),
            'Images': result.classes.images,
            'ImagesExpanded': result.classes.images_expanded,
            'Boxes': result.classes.boxes,
            'GroupOfBoxes': result.classes.boxes_group_of,
            'Objects': result.rates.count,
            'VerifiedPositive': result.classes.positive,
            'VerifiedNegative': result.classes.negative,
        },
    )
    parents = np.flatnonzero(~leaves)
    counts = result.parents
    n_object = np.maximum(counts.objects, 1)
    _write_table(
        out / 'parents.csv',
        classes,
        parents,
        {
            'Objects': counts.objects,
            'WithoutDescendant': counts.without_descendant,
            'WithoutLeaf': counts.without_leaf,
            'RatioWithoutDescendant': np.round(counts.without_descendant / n_object, 6),
            'RatioWithoutLeaf': np.round(counts.without_leaf / n_object, 6),
        },
    )
    write_pairs_csv(out / 'confused_pairs.csv', pairs, classes)
    write_concurrent_rates(out / 'concurrent_rates.npz', result.rates, classes)
    plots = {
        'images_per_class': lambda: statistics_plots.images_per_class(
            [(index.path.stem, result.classes.images), *others], classes.names
        ),
        'confused_pairs': lambda: statistics_plots.pair_bars(
            pairs[:n_pair], classes.names, threshold
        ),
        'confusion': lambda: statistics_plots.confusion_matrix(
            result.rates.rates, pairs[:n_pair], classes.names
        ),
        'parents': lambda: statistics_plots.parent_bars(
            counts.objects[parents],
            counts.without_descendant[parents],
            counts.without_leaf[parents],
            [classes.names[p] for p in parents],
        ),
    }
    for name, draw in tqdm(plots.items(), desc='plots', disable=None):
        statistics_plots.save(draw(), out / name)
    with replace_when_done(out / 'statistics.json') as unfinished:
        unfinished.write_text(
            json.dumps(content, indent=1, ensure_ascii=False) + '\n', encoding='utf-8'
        )
    return content


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
    parser = Parser(
        description='Count images, boxes and label confusions of an annotation index.\n\n'
        '    pfdet statistics --index train.index --out statistics',
    )
    parser.add_argument(
        '--index', required=True, type=path_text, metavar='INDEX', help='an annotation index'
    )
    parser.add_argument(
        '--out', required=True, type=path_text, metavar='DIR', help='directory for the output'
    )
    parser.add_argument(
        '--iou',
        type=number(0, 1, above=True),
        default=0.9,
        metavar='X',
        help='boxes of an image with at least this IoU are one object (%(default)s)',
    )
    parser.add_argument(
        '--group-of', action='store_true', help='also count group-of boxes as objects'
    )
    parser.add_argument(
        '--expanded',
        action='store_true',
        help='expand labels to all ancestors for the concurrent rates',
    )
    parser.add_argument(
        '--threshold',
        type=number(0, 1, above=True),
        default=0.1,
        metavar='X',
        help='minimum concurrent rate of a confused pair (%(default)s)',
    )
    parser.add_argument(
        '--min-count',
        type=integer(1, MANY),
        default=1,
        metavar='N',
        help='minimum number of objects of the first class of a confused pair (%(default)s)',
    )
    parser.add_argument(
        '--pairs',
        type=integer(1, 1000),
        default=55,
        metavar='N',
        help='maximum number of confused pairs in the plots (%(default)s)',
    )
    parser.add_argument(
        '--compare',
        nargs='+',
        default=[],
        type=path_text,
        metavar='INDEX',
        help='further indexes, such as of COCO, for the plot of images per class',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see ``--help``.

    Raises:
        InputError: If an argument or an input is invalid.
    """
    args = _parse(argv)
    index = AnnotationIndex.open(args.index)
    others = [
        (Path(path).stem, count_classes(AnnotationIndex.open(path)).images) for path in args.compare
    ]
    result = statistics(index, args.iou, args.group_of, args.expanded)
    try:
        content = write_statistics(
            args.out, result, index, args.threshold, args.min_count, args.pairs, others
        )
    except OSError as e:
        raise InputError(f'--out {args.out}: cannot write there: {e.strerror or e}') from e
    for line in describe(content):
        print(printable(line))
    print(f'{args.out}: statistics.json, tables and plots')


def describe(content: dict) -> list[str]:
    """Return the lines that the command prints about the result of :func:`summary`."""
    lines = [
        f'images: {content["images"]:,}; boxes: {content["boxes"]:,} of '
        f'{content["leaf_classes"]} leaf and {content["parent_classes"]} parent classes'
    ]
    for key, how in (('imbalance', 'as annotated'), ('imbalance_expanded', 'expanded')):
        value = content[key]
        if value['magnitude'] is not None:
            lines.append(
                f'imbalance magnitude, {how}: {value["magnitude"]:,.0f} '
                f'({value["largest"]["class"]} {value["largest"]["images"]:,} : '
                f'{value["smallest"]["class"]} {value["smallest"]["images"]:,} images); '
                f'classes without an image: {value["classes_without_image"]}'
            )
    rates, parents = content['concurrent_rates'], content['parents']
    lines.append(
        f'pairs of leaf classes with a concurrent rate of {rates["threshold"]:g} or '
        f'more: {rates["ordered_pairs_of_leaves"]} ordered, '
        f'{rates["unordered_pairs_of_leaves"]} unordered'
    )
    if parents['without_leaf'] is not None:
        lines.append(
            f'objects of parent classes: {parents["without_descendant"]:.1%} have no '
            f'more specific label, {parents["without_leaf"]:.1%} have no leaf label'
        )
    return lines


if __name__ == '__main__':
    run_command(main)
