"""Score detections with the Open Images Challenge 2018's metric.

    pfdet score --boxes validation-annotations-bbox.csv \\
        --labels validation-annotations-human-imagelabels.csv --classes class-descriptions.csv \\
        --hierarchy hierarchy.json --detections validation.parquet --out score.json

With --hierarchy, the annotations are expanded first: boxes and positive labels to ancestors,
negative labels to descendants. Boxes that are expanded already are not expanded twice. Without
--hierarchy, the annotations are taken as they are. Without --labels, only the classes with a box
are verified in an image. --index takes an annotation index instead of these files.

The mean AP is also given for the papers' groups of classes: parts and possessions; with
--hierarchy, leaves and parents; with --train-index or --counts, classes ranked by their number of
training images.
"""

import argparse
import sys
from pathlib import Path

from pfdet.errors import InputError
from pfdet.evaluation.average_precision import average_precision, score_dict
from pfdet.evaluation.class_groups import (
    class_groups,
    mean_by_group,
    read_training_images,
    training_images_of_index,
)
from pfdet.evaluation.detections import Detections, read_detections
from pfdet.evaluation.ground_truth import (
    GroundTruth,
    ground_truth_of_index,
    ground_truth_of_tables,
)
from pfdet.files.json_file import write_json
from pfdet.flags import SHARE, Parser, number
from pfdet.openimages.annotation_files import (
    add_read_options,
    describe_reading,
    read_annotations,
    read_options,
)
from pfdet.openimages.classes import Classes, read_classes
from pfdet.openimages.hierarchy import Hierarchy, flat_hierarchy, read_hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.shared_images import describe_shared_images
from pfdet.printable import printable


def main() -> None:
    args = _parse_arguments()
    index = None if args.index is None else AnnotationIndex.open(args.index)
    if index is not None:
        classes, hierarchy = index.classes, index.hierarchy
    else:
        classes = read_classes(args.classes)
        hierarchy = None if args.hierarchy is None else read_hierarchy(args.hierarchy, classes)
    images = None
    if args.train_index is not None:
        images = training_images_of_index(args.train_index, classes)
    elif args.counts is not None:
        images = read_training_images(args.counts, classes)
    detections = read_detections(args.detections, classes)
    if index is None:
        truth = _read_ground_truth(args, classes, hierarchy)
    else:
        truth = ground_truth_of_index(index)
        if args.train_index is not None:
            shared = describe_shared_images(AnnotationIndex.open(args.train_index), index)
            if shared:
                print(f'warning: {shared}', file=sys.stderr)
    _check_common_images(args, detections, truth)
    result = average_precision(
        detections, truth, len(classes), args.iou_thresh, args.group_of_weight
    )

    score = score_dict(result, classes, hierarchy)
    unknown = sorted(set(detections.image_ids).difference(truth.image_ids))
    missing = len(set(truth.image_ids).difference(detections.image_ids))
    score.update(
        n_image=len(truth.image_ids),
        n_image_predicted=len(detections.image_ids),
        n_image_unknown=len(unknown),
        iou_thresh=args.iou_thresh,
        group_of_weight=args.group_of_weight,
        groups=mean_by_group(result['ap'], class_groups(classes, images, hierarchy)),
    )
    write_json(args.out, score)

    if unknown:
        print(
            f'{args.detections}: ignored {len(unknown)} images ({unknown[0]!r}, ...) with '
            f'{result["n_ignored"]["unknown image"]} detections that are not in the ground '
            'truth',
            file=sys.stderr,
        )
    if missing:
        print(
            f'{args.detections}: has no entry for {missing} of the {len(truth.image_ids)} images '
            'of the ground truth; they count as images without detections',
            file=sys.stderr,
        )
    _print_summary(score)


def _check_common_images(
    args: argparse.Namespace, detections: Detections, truth: GroundTruth
) -> None:
    """Refuse detections of other images: their mAP would be 0, whatever the model."""
    predicted = list(detections.image_ids)
    if predicted and set(predicted).isdisjoint(truth.image_ids):
        annotations = args.index or ', '.join(map(str, args.boxes))
        raise InputError(
            f'{args.detections}: none of its {len(predicted)} images, such as {predicted[0]!r}, is '
            f'in {annotations}, which has {len(truth.image_ids)}, such as '
            f'{next(iter(truth.image_ids))!r}; expected detections in the same images'
        )


def _read_ground_truth(
    args: argparse.Namespace, classes: Classes, hierarchy: Hierarchy | None
) -> GroundTruth:
    options = read_options(args)
    tables = read_annotations(args.boxes, args.labels, classes, hierarchy, options)
    for line in describe_reading(tables.all_counts):
        print(line, file=sys.stderr)
    if n := tables.labels.counts['machine']:
        print(
            f'image labels of other sources than annotators, ignored: {n:,} '
            '(--machine-labels takes them)',
            file=sys.stderr,
        )
    return ground_truth_of_tables(tables, hierarchy or flat_hierarchy(len(classes)))


def _parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument('--boxes', type=Path, nargs='+', metavar='CSV')
    parser.add_argument('--labels', type=Path, nargs='+', metavar='CSV')
    parser.add_argument('--classes', type=Path, metavar='CSV')
    parser.add_argument('--hierarchy', type=Path, metavar='JSON')
    parser.add_argument(
        '--index', type=Path, metavar='INDEX', help='annotation index, instead of the four files'
    )
    add_read_options(parser)
    parser.add_argument(
        '--detections', type=Path, required=True, metavar='FILE', help='.parquet or .csv'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='score.json')
    counts = parser.add_mutually_exclusive_group()
    counts.add_argument(
        '--train-index',
        type=Path,
        metavar='INDEX',
        help='index of the training set, to rank classes by their number of images',
    )
    counts.add_argument(
        '--counts',
        type=Path,
        metavar='CSV',
        help='the same from classes.csv of pfdet.openimages.statistics',
    )
    parser.add_argument(
        '--iou-thresh',
        type=number(0, 1, above=True),
        default=0.5,
        metavar='IOU',
        help='default 0.5',
    )
    parser.add_argument(
        '--group-of-weight',
        type=SHARE,
        default=1.0,
        metavar='W',
        help="weight of a group-of box (default: 1, the challenge's); 0 ignores group-of boxes",
    )
    args = parser.parse_args()
    if args.index is None and None in (args.boxes, args.classes):
        parser.error('expected --boxes and --classes, or --index')
    files = (args.boxes, args.labels, args.classes, args.hierarchy)
    if args.index is not None and any((*files, args.ids, args.exclude_ids)):
        parser.error(
            '--index replaces --boxes, --labels, --classes, --hierarchy and the lists of images: '
            'give one or the other'
        )
    if args.index is not None and (args.exhaustive or args.machine_labels):
        parser.error(
            '--exhaustive and --machine-labels belong to --boxes; give them to pfdet index'
        )
    return args


def _print_summary(score: dict, n_shown: int = 5) -> None:
    if score['mAP'] is None:
        print('mAP is undefined: no class has ground truth')
        return
    ranked = sorted(score['name'], key=lambda mid: -score['AP'][mid])
    best = ranked[:n_shown]
    worst = ranked[n_shown:][-n_shown:]
    print('    AP  boxes  class')
    for mid in [*best, None, *worst] if len(ranked) > 2 * n_shown else [*best, *worst]:
        if mid is None:
            print('   ...')
            continue
        name = printable(score['name'][mid])
        print(f'{score["AP"][mid]:6.4f} {score["n_ground_truth"][mid]:6g}  {name}')
    print('   mAP classes  group')
    for name, group in score['groups'].items():
        mean = '     -' if group['mAP'] is None else f'{group["mAP"]:6.4f}'
        scored = str(group['n_class'])
        if group['n_class'] < group['n_all']:
            scored += f'/{group["n_all"]}'
        print(f'{mean} {scored:>7}  {name}')
    print(
        f'mAP {score["mAP"]:.4f} over {score["n_class"]} classes with ground truth, '
        f'{score["n_image"]} images'
    )
