"""Check whether Kaggle accepts a submission, and otherwise report the first error and its line.

    pfdet validate-submission submission.csv --images sample_submission.csv

The exit status is 0 if the submission is valid, and else 2.
"""

from pathlib import Path

from pfdet.errors import InputError
from pfdet.evaluation.csv_rows import csv_rows, is_unicode
from pfdet.evaluation.submission import validate_submission
from pfdet.flags import Parser
from pfdet.openimages.classes import challenge_classes, read_classes


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument('submission', type=Path)
    parser.add_argument(
        '--classes',
        type=Path,
        metavar='CSV',
        help="mid,name without header (default: the challenge's 500 classes)",
    )
    parser.add_argument(
        '--index', type=Path, help='annotation index of the images that must each have a row'
    )
    parser.add_argument(
        '--images',
        type=Path,
        metavar='FILE',
        help='the same as a file with an image id at the start of each line, such as the '
        "competition's sample_submission.csv",
    )
    args = parser.parse_args()
    classes = challenge_classes() if args.classes is None else read_classes(args.classes)
    image_ids = None
    if args.images is not None:
        image_ids = read_image_ids(args.images)
    elif args.index is not None:
        from pfdet.openimages.index import AnnotationIndex

        index = AnnotationIndex.open(args.index)
        image_ids = [index.image_id(i) for i in range(len(index))]
    counts = validate_submission(args.submission, classes, image_ids)
    size = args.submission.stat().st_size / 1e6
    print(
        f'{args.submission}: valid; {counts["images"]} images, {counts["empty"]} of them without '
        f'detections, {counts["detections"]} detections, at most {counts["most"]} in an image, '
        f'{size:.1f} MB'
    )


def read_image_ids(path: Path) -> list[str]:
    """The first field of each line, without a header ``ImageId``.

    The format is that of :mod:`pfdet.evaluation.csv_rows`, but lines may differ in their number of
    fields.

    Raises:
        InputError: The file cannot be read, or has no image id.
    """
    ids = []
    try:
        for line, (image_id, *_) in csv_rows(path):
            if not is_unicode(image_id):
                raise InputError(f'{path}, line {line}: expected an image id in UTF-8')
            ids.append(image_id)
    except OSError as e:
        raise InputError(f'{path}: cannot read the image ids: {e.strerror or e}') from e
    ids = ids[1:] if ids and ids[0].lower() == 'imageid' else ids
    if not ids:
        raise InputError(f'{path}: no image; expected one image id per line')
    return ids
