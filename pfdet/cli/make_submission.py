"""Write detections as the CSV file that the challenge's Kaggle competition takes.

    python evaluate/make_submission.py --detections test.parquet --out submission.csv

What is written is checked as evaluate/validate_submission.py does.
"""

import argparse
import math
from pathlib import Path

from pfdet.errors import InputError
from pfdet.evaluation.detections import read_detections
from pfdet.evaluation.submission import write_submission
from pfdet.openimages.classes import challenge_classes, read_classes


def main() -> None:
    """Read, write, check, and say what was written."""
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
        help="mid,name without header; the challenge's 500 by default",
    )
    parser.add_argument(
        '--max-per-image',
        type=int,
        default=300,
        metavar='N',
        help='the best scored of each image to write; default 300',
    )
    parser.add_argument(
        '--digits', type=int, default=5, metavar='N', help='decimals of coordinates; default 5'
    )
    parser.add_argument(
        '--score-digits',
        type=int,
        metavar='N',
        help='significant digits of scores; by default as many as --digits',
    )
    parser.add_argument('--min-score', type=float, default=0.0, metavar='S', help='default 0')
    args = parser.parse_args()
    for name in 'max_per_image', 'digits', 'score_digits':
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f'--{name.replace("_", "-")} {value}: expected a number from 1')
    if math.isnan(args.min_score):
        raise InputError('--min-score nan: expected a number')
    return args
