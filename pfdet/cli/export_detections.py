"""Write detections in the format of another program.

    pfdet export-detections --detections val.parquet --index val.index --format coco \\
        --out results.json --ground-truth instances.json

    pfdet export-detections --detections val.parquet --index val.index --format yolo --out yolo

    pfdet export-detections --detections val.parquet --index val.index --format labelstudio \\
        --out tasks.json --score-thresh 0.3

coco is a list of results for pycocotools. Its ids are those of --annotations; or --ground-truth
writes the annotations of the index, with ids of the same kind. yolo is a directory with a text file
per image, as Ultralytics writes, and data.yaml. labelstudio is a list of tasks with predictions,
and beside it tasks.xml, the labeling configuration.

Files larger than memory are fine. docs/detections.md describes the formats.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pfdet.errors import InputError
from pfdet.flags import SHARE, Parser

# Flags of one format only.
_OF_FORMAT = {
    'ground_truth': 'coco',
    'annotations': 'coco',
    'confidence': 'yolo',
    'image_prefix': 'labelstudio',
    'model_version': 'labelstudio',
}


def main() -> None:
    args = parse_arguments()

    from tqdm import tqdm

    from pfdet.evaluation.formats.predicted_images import PredictedImage, predicted_images
    from pfdet.files.locks import output_lock
    from pfdet.openimages.index import AnnotationIndex

    index = AnnotationIndex.open(args.index)
    is_directory = args.format == 'yolo'
    n_image = n_detection = 0

    def counted(directory: Path) -> Iterator[PredictedImage]:
        nonlocal n_image, n_detection
        images = predicted_images(args.detections, index, directory, args.score_thresh)
        for image in tqdm(images, 'export', unit='image', disable=None):
            n_image += 1
            n_detection += len(image.label)
            yield image

    with (
        output_lock(args.out, is_directory),
        tempfile.TemporaryDirectory(
            dir=args.out if is_directory else args.out.parent, prefix=f'.{args.out.stem}-'
        ) as directory,
    ):
        _write(args, counted(Path(directory)), index)
    print(f'{args.out}: {n_detection} detections in {n_image} of {len(index)} images')


def _write(args: argparse.Namespace, images: Iterator, index) -> None:
    if args.format == 'coco':
        from pfdet.evaluation.formats import coco

        if args.ground_truth is not None:
            coco.write_ground_truth(args.ground_truth, index)
        coco.write_results(args.out, images, index, args.annotations)
    elif args.format == 'yolo':
        from pfdet.evaluation.formats import yolo

        yolo.write_labels(args.out, images, index, args.confidence is not False)
    else:
        from pfdet.evaluation.formats import label_studio

        version = args.model_version
        prefix = args.image_prefix
        label_studio.write_tasks(
            args.out,
            images,
            index,
            args.detections.stem if version is None else version,
            label_studio.LOCAL_FILES if prefix is None else prefix,
        )


def parse_arguments() -> argparse.Namespace:
    """Parse and check the arguments."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add('--detections', type=Path, required=True, metavar='FILE', help='.parquet or .csv')
    add(
        '--index',
        type=Path,
        required=True,
        metavar='INDEX',
        help='annotation index of the predicted images, for their sizes, files and classes',
    )
    add('--format', choices=('coco', 'yolo', 'labelstudio'), required=True)
    add(
        '--out',
        type=Path,
        required=True,
        metavar='PATH',
        help='a name ending in .json; for yolo, a directory without labels',
    )
    add(
        '--score-thresh',
        type=SHARE,
        default=0.0,
        metavar='S',
        help='lowest score of a detection (default: %(default)s)',
    )
    add(
        '--ground-truth',
        type=Path,
        metavar='FILE.json',
        help='with coco: also write the annotations of the index, such as to instances.json',
    )
    add(
        '--annotations',
        type=Path,
        metavar='FILE.json',
        help='with coco: take the ids of images and categories from these annotations, such as '
        'instances_val2017.json',
    )
    add(
        '--confidence',
        action=argparse.BooleanOptionalAction,
        help='with yolo: end lines with the score (default); labels to train on need '
        '--no-confidence',
    )
    add(
        '--image-prefix',
        metavar='URL',
        help='with labelstudio: what precedes the names of files, such as https://host/images/ '
        '(default: /data/local-files/?d=, for its local files)',
    )
    add(
        '--model-version',
        metavar='TEXT',
        help='with labelstudio: name of the model, such as run-3 (default: the name of the '
        'detections)',
    )
    args = parser.parse_args()
    for name, form in _OF_FORMAT.items():
        if getattr(args, name) is not None and args.format != form:
            flag = '--' + name.replace('_', '-')
            raise InputError(f'{flag}: for --format {form} only, not {args.format}')
    if args.ground_truth is not None and args.annotations is not None:
        raise InputError('--annotations: contradicts --ground-truth, which has ids of its own')
    for flag, path in ('--out', args.out), ('--ground-truth', args.ground_truth):
        if path is not None and args.format != 'yolo' and path.suffix != '.json':
            raise InputError(f'{flag} {path}: expected a name ending in .json')
    return args
