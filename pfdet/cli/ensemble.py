"""Combine the detections of several models (PFDet, section 2.4).

    pfdet ensemble --detections A.parquet B.parquet ... \\
        --scores A.json B.json ... --alpha 0.5 --out FILE.parquet

Predict with --no-suppression, so that suppression runs once, here. --scores takes the score.json of
each model's validation, in the same order: a model's scores for a class are then multiplied by a
weight between --alpha, for models below the mean AP of the class, and 1, for the best model. An
expert counts only for its own classes. They are read from its detections, if in Parquet, or from
its score.json.

With --expand, the results are raised to the ancestors of their classes: an expert's Lobster is also
a detection of Shellfish and Animal. Of boxes of the same object, that with the highest score is
kept.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pfdet.cli.expand_arguments import add_expand, read_expansion, read_label_space
from pfdet.errors import InputError
from pfdet.evaluation.class_names import named_classes
from pfdet.evaluation.detections import (
    detections_writer,
    images_without_detections,
    no_detections,
    read_model_classes,
)
from pfdet.evaluation.image_order import sorted_by_image
from pfdet.files.locks import output_lock
from pfdet.flags import SHARE, Parser, integer, number
from pfdet.inference.ensemble import SUPPRESSIONS, ensemble
from pfdet.inference.ensemble_weights import label_space, model_weights


def main() -> None:
    args = parse_arguments()
    with output_lock(args.out):
        merge(args)


def merge(args: argparse.Namespace) -> None:
    """Combine the detections, write them, and print a closing line."""
    started = time.perf_counter()
    named = [read_model_classes(path) for path in args.detections]
    classes, hierarchy_of_index = read_label_space(args)
    classes = classes or named_classes(label_space(None, named).mids, args.detections)
    hierarchy = read_expansion(args, classes, hierarchy_of_index)
    weight = model_weights(args.detections, named, args.scores, classes, args.alpha)
    weight *= np.array(args.weights or [1.0] * len(weight))[:, None]

    n_detection, seen = 0, set()
    with (
        detections_writer(args.out, classes) as write,
        tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f'.{args.out.stem}-') as copies,
    ):
        paths = []
        for k, path in enumerate(args.detections):
            (Path(copies) / str(k)).mkdir()
            paths.append(sorted_by_image(path, classes, Path(copies) / str(k)))
        with tqdm(desc='ensemble', unit='image', disable=None) as bar:
            for block in ensemble(
                paths,
                classes,
                weight,
                args.suppression,
                args.iou_thresh,
                args.score_thresh,
                args.max_per_image,
                hierarchy=hierarchy,
            ):
                write(block)
                seen.update(block.image_ids)
                n_detection += len(block)
                bar.update(len(block.image_ids))
        empty = set().union(*map(images_without_detections, paths)) - seen
        write(no_detections(sorted(empty)))
    print(
        f'{n_detection} detections in {len(seen) + len(empty)} images from {len(paths)} models '
        f'in {time.perf_counter() - started:.1f} s: {args.out}'
    )


def parse_arguments() -> argparse.Namespace:
    """Parse and check the arguments."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        '--detections',
        type=Path,
        nargs='+',
        required=True,
        metavar='FILE',
        help='one per model, .parquet or .csv',
    )
    add(
        '--scores',
        type=Path,
        nargs='+',
        metavar='JSON',
        help="score.json of each model's validation (default: all models have equal weight)",
    )
    add(
        '--alpha',
        type=SHARE,
        default=0.5,
        help='weight of a model below the mean AP of a class (default: %(default)s)',
    )
    add(
        '--weights',
        type=number(0, 1e9, above=True),
        nargs='+',
        metavar='W',
        help='one factor per model',
    )
    add('--out', type=Path, required=True, metavar='FILE', help='.parquet or .csv')
    add_expand(parser, 'the classes that the files of detections list')
    add('--suppression', choices=SUPPRESSIONS, default='nmw', help='(default: %(default)s)')
    add(
        '--iou-thresh',
        type=SHARE,
        default=0.5,
        metavar='IOU',
        help='boxes of a class with a higher IoU count as one object (default: %(default)s)',
    )
    add(
        '--score-thresh',
        type=SHARE,
        default=0.0,
        metavar='S',
        help='lowest score kept, after weighting (default: %(default)s)',
    )
    add(
        '--max-per-image',
        type=integer(1, 1_000_000),
        default=300,
        metavar='N',
        help='(default: %(default)s)',
    )
    args = parser.parse_args()
    n = len(args.detections)
    for name in 'scores', 'weights':
        given = getattr(args, name)
        if given is not None and len(given) != n:
            raise InputError(
                f'--{name}: {len(given)} values for {n} files of detections; expected one '
                'per file, in the same order'
            )
    if args.out.suffix not in ('.parquet', '.csv'):
        raise InputError(f'--out {args.out}: expected a name ending in .parquet or .csv')
    return args
