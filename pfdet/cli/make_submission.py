"""Write detections as a submission to the challenge's Kaggle competition, a CSV file.

    pfdet make-submission --detections test.parquet --out submission.csv

The file is checked as pfdet validate-submission does. With --expand, detections are first raised to
the ancestors of their classes: a Lobster is also a detection of Shellfish and Animal.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pfdet.cli.expand_arguments import add_expand, read_expansion, read_label_space
from pfdet.cli.validate_submission import read_image_ids
from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections, no_detections
from pfdet.evaluation.image_order import blocks_of_all_images, sorted_by_image
from pfdet.evaluation.submission import write_submission
from pfdet.flags import SHARE, Parser, integer, number
from pfdet.inference.expansion import expand_detections
from pfdet.openimages.classes import challenge_classes

_ROWS_AT_ONCE = 1 << 16


def main() -> None:
    args = _parse_arguments()
    classes, hierarchy_of_index = read_label_space(args)
    classes = classes or challenge_classes()
    hierarchy = read_expansion(args, classes, hierarchy_of_index)
    listed = None if args.images is None else dict.fromkeys(read_image_ids(args.images), False)
    n_detection = 0

    def blocks() -> Iterator[Detections]:
        nonlocal n_detection
        with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f'.{args.out.stem}-') as copy:
            path = sorted_by_image(args.detections, classes, Path(copy))
            for block in blocks_of_all_images(path, classes, _ROWS_AT_ONCE):
                n_detection += len(block)
                if listed is not None:
                    _mark(listed, block.image_ids, args)
                yield (
                    block
                    if hierarchy is None
                    else expand_detections(block, hierarchy, args.iou_thresh)
                )

        if listed is not None:
            # The images that nothing was predicted for, such as unreadable ones
            yield no_detections(sorted(i for i, is_done in listed.items() if not is_done))

    with contextlib.closing(blocks()) as stream:
        counts = write_submission(
            args.out,
            stream,
            classes,
            args.max_per_image,
            args.digits,
            args.min_score,
            args.score_digits,
        )
    size = args.out.stat().st_size / 1e6
    source = f'of {n_detection} detections'
    if hierarchy is not None:
        source = f'detections after the expansion of {n_detection}'
    print(
        f'{args.out}: {counts["images"]} images, {counts["empty"]} of them without detections, '
        f'{counts["detections"]} {source}, {size:.1f} MB'
    )


def _mark(listed: dict[str, bool], image_ids: Iterable[str], args: argparse.Namespace) -> None:
    """Note which of the listed images have been predicted."""
    for image_id in image_ids:
        if image_id not in listed:
            raise InputError(
                f'{args.detections}: image {image_id!r} is not one of the {len(listed):,} images '
                f'in {args.images}; expected detections in these only'
            )
        listed[image_id] = True


def _parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument(
        '--detections', type=Path, required=True, metavar='FILE', help='.parquet or .csv'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='submission.csv')
    parser.add_argument(
        '--images',
        type=Path,
        metavar='FILE',
        help="the images that must each have a row, such as the competition's "
        'sample_submission.csv; those without detections get an empty row',
    )
    add_expand(parser, "the challenge's 500 classes")
    parser.add_argument(
        '--iou-thresh',
        type=SHARE,
        default=0.5,
        metavar='IOU',
        help='boxes of a class with a higher IoU count as one object in --expand '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--max-per-image',
        type=integer(1, 1_000_000),
        default=300,
        metavar='N',
        help='highest-scoring detections written per image (default: %(default)s)',
    )
    parser.add_argument(
        '--digits',
        type=integer(1, 17),
        default=5,
        metavar='N',
        help='decimals of coordinates (default: %(default)s)',
    )
    parser.add_argument(
        '--score-digits',
        type=integer(1, 17),
        metavar='N',
        help='significant digits of scores (default: as many as --digits)',
    )
    parser.add_argument(
        '--min-score',
        type=number(-1e9, 1e9),
        default=0.0,
        metavar='S',
        help='lowest score written (default: 0)',
    )
    return parser.parse_args()
