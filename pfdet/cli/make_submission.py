"""Write detections as a submission to the challenge's Kaggle competition, a CSV file.

    pfdet make-submission --detections test.parquet --out submission.csv

The file is checked as pfdet validate-submission does.
"""

import argparse
import math
from pathlib import Path

from pfdet.errors import InputError
from pfdet.evaluation.detections import read_detections
from pfdet.evaluation.submission import write_submission
from pfdet.openimages.classes import challenge_classes, read_classes


def main() -> None:
    args = _parse_arguments()
    classes = challenge_classes() if args.classes is None else read_classes(args.classes)
    detections = read_detections(args.detections, classes)
    counts = write_submission(
        args.out,
        detections,
        classes,
        args.max_per_image,
        args.digits,
        args.min_score,
        args.score_digits,
    )
    size = args.out.stat().st_size / 1e6
    print(
        f'{args.out}: {counts["images"]} images, {counts["empty"]} of them without detections, '
        f'{counts["detections"]} of {len(detections)} detections, {size:.1f} MB'
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--detections', type=Path, required=True, metavar='FILE', help='.parquet or .csv'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='submission.csv')
    parser.add_argument(
        '--classes',
        type=Path,
        metavar='CSV',
        help="mid,name without header (default: the challenge's 500 classes)",
    )
    parser.add_argument(
        '--max-per-image',
        type=int,
        default=300,
        metavar='N',
        help='highest-scoring detections written per image (default: %(default)s)',
    )
    parser.add_argument(
        '--digits',
        type=int,
        default=5,
        metavar='N',
        help='decimals of coordinates (default: %(default)s)',
    )
    parser.add_argument(
        '--score-digits',
        type=int,
        metavar='N',
        help='significant digits of scores (default: as many as --digits)',
    )
    parser.add_argument(
        '--min-score',
        type=float,
        default=0.0,
        metavar='S',
        help='lowest score written (default: 0)',
    )
    args = parser.parse_args()
    for name in 'max_per_image', 'digits', 'score_digits':
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f'--{name.replace("_", "-")} {value}: expected a number from 1')
    if math.isnan(args.min_score):
        raise InputError('--min-score nan: expected a number')
    return args
