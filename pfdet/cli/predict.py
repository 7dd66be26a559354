"""Detect the objects of an index's images with a trained model, on any number of ranks.

    mpiexec -n 8 pfdet predict --model DIR --index INDEX --out FILE.parquet

With several --sizes, and with --flip, the network's outputs for all sizes and flips are
concatenated and suppressed once. The same command resumes a run that was killed, on any number of
ranks: finished parts are kept in FILE.parquet.parts until the end.

For an ensemble, --no-suppression leaves suppression to pfdet ensemble.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from pfdet.errors import InputError
from pfdet.flags import EDGE, SHARE, Parser, integer
from pfdet.progress import report as report_progress
from pfdet.training.run_options import add_options
from pfdet.training.startup_guard import StartupGuard

# Before suppression, an object has many boxes.
_BOXES_AN_OBJECT = 10


def main() -> None:
    args = parse_arguments()
    guard = StartupGuard(args.rank_timeout)

    from tqdm import tqdm

    from pfdet.inference.resumable import predict_to_file
    from pfdet.openimages.corrupt_images import CorruptImages
    from pfdet.openimages.dataset import OpenImagesDataset
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.recipes import to_dict
    from pfdet.training import model_directory, watchdog
    from pfdet.training.communicators import communicator

    comm, device = communicator()
    guard.close()
    with watchdog.watch(comm, args.rank_timeout):
        report_progress('reading the model')
        model = _read(args, comm)
        note = model_directory.weights_note(model)
        if note and comm.rank == 0:
            print(note, file=sys.stderr, flush=True)
        settings = model_directory.predict_settings(model.recipe)
        given = {
            'sizes': tuple(args.sizes or ()),
            'max_size': args.max_size,
            'flip': args.flip,
            'score_thresh': args.score_thresh,
            'suppression': args.suppression,
            'suppression_iou': args.suppression_iou,
            'max_per_image': args.max_per_image,
        }
        given = {name: value for name, value in given.items() if value not in (None, ())}
        settings = dataclasses.replace(settings, **given)
        if settings.suppression == 'none' and args.max_per_image is None:
            settings = dataclasses.replace(
                settings, max_per_image=_BOXES_AN_OBJECT * model.recipe.max_per_image
            )
        index = AnnotationIndex.open(args.index)
        if device >= 0 and args.backend == 'chainer':
            model.network.to_gpu(device)
        # Everything that the detections depend on, so that parts of different runs do not mix.
        about = {}
        if comm.rank == 0:
            about = {
                **_checksum(args, model.weights),
                'recipe': to_dict(model.recipe),
                'classes': model.classes.mids,
                'rates': None if model.rates is None else model.rates.tolist(),
            }
        corrupt = CorruptImages(args.max_corrupt_share) if args.corrupt == 'skip' else None
        done = predict_to_file(
            model.network,
            OpenImagesDataset(index),
            args.out,
            model.classes,
            settings,
            about,
            comm,
            lambda batches: tqdm(
                batches, 'predict', unit='batch', disable=None if comm.rank == 0 else True
            ),
            corrupt,
            args.restart,
        )
        if done is not None:
            if done['corrupt'] is not None and done['corrupt'].n_corrupt:
                print(f'{done["corrupt"]}; they have no detections')
            resumed = f', {done["resumed"]} of them from before' if done['resumed'] else ''
            print(
                f'{done["detections"]} detections in {done["images"]} images{resumed}: {args.out}'
            )


def _read(args: argparse.Namespace, comm):
    """The model, with the network that ``--backend`` asks for."""
    from pfdet.training import model_directory

    if args.model.suffix == '.onnx':
        from pfdet.export import model_file

        return model_file.read(args.model, args.set)
    # The newest snapshot of a running training may be another one a moment later, on another rank.
    weights = args.weights
    if weights is None and comm.rank == 0:
        weights = model_directory.weights_file(args.model)
    weights = comm.mpi_comm.bcast(weights)
    model = model_directory.read(args.model, args.set, args.rates, weights)
    if args.backend == 'onnxruntime':
        from pfdet.export.onnx_detector import OnnxDetector

        model = model._replace(network=OnnxDetector.of_network(model.network))
    return model


def _checksum(args: argparse.Namespace, weights: Path | None) -> dict[str, str]:
    """What identifies the weights and the program that computes with them."""
    from pfdet.files.checksum import file_checksum

    if args.model.suffix == '.onnx':
        return {'model.onnx': file_checksum(args.model)}
    checksum = {'model.npz': file_checksum(weights)}
    return checksum if args.backend == 'chainer' else {**checksum, 'backend': args.backend}


def parse_arguments() -> argparse.Namespace:
    """Parse and check the arguments."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        '--model',
        type=Path,
        required=True,
        help='--out directory of a training run, or a file of pfdet export ending in .onnx; of a '
        'run that has not ended, the newest snapshot is taken',
    )
    add(
        '--weights',
        type=Path,
        metavar='FILE.npz',
        help='other weights of the run, such as its best.npz or a snapshot',
    )
    add(
        '--backend',
        choices=('chainer', 'onnxruntime'),
        help='what runs the network; onnxruntime, on CPUs only, is faster there (default: chainer '
        'for a directory, onnxruntime for a file)',
    )
    add('--index', type=Path, required=True, help='annotation index of the images')
    add('--out', type=Path, required=True, help='.parquet or .csv')
    add(
        '--sizes',
        type=EDGE,
        nargs='+',
        metavar='PIXELS',
        help="shorter edge's lengths (default: the recipe's)",
    )
    add(
        '--max-size',
        type=EDGE,
        metavar='PIXELS',
        help="limit of the longer edge, at all sizes (default: the recipe's)",
    )
    add(
        '--flip',
        action=argparse.BooleanOptionalAction,
        help="also predict the horizontally flipped images (default: the recipe's)",
    )
    add(
        '--score-thresh',
        type=SHARE,
        metavar='S',
        help="lowest score of a detection (default: the recipe's)",
    )
    add(
        '--max-per-image',
        type=integer(1, 1_000_000),
        metavar='N',
        help="detections per image (default: the recipe's; ten times as many without suppression)",
    )
    add(
        '--suppression',
        choices=('nmw', 'nms', 'none'),
        help="non-maximum weighted, non-maximum suppression, or none (default: the recipe's)",
    )
    add(
        '--no-suppression',
        dest='suppression',
        action='store_const',
        const='none',
        help='the same as --suppression none',
    )
    add(
        '--suppression-iou',
        '--nmw-thresh',
        type=SHARE,
        metavar='IOU',
        help="IoU from which boxes of a class count as one object (default: the recipe's)",
    )
    add(
        '--set',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='replace other prediction fields of the recipe, such as score=concurrent_softmax',
    )
    add(
        '--rates',
        type=Path,
        metavar='FILE',
        help="concurrent rates for such a score, if the model has none: the training set's index, "
        "concurrent_rates.npz of pfdet statistics, or another model's rates.npy",
    )
    add(
        '--corrupt',
        choices=('raise', 'skip'),
        default='raise',
        help='stop at the first image that cannot be read, or give it no detections '
        '(default: %(default)s)',
    )
    add(
        '--max-corrupt-share',
        type=SHARE,
        default=0.01,
        metavar='SHARE',
        help='with --corrupt skip, stop when at least 20 images and more than this share of the '
        'images of a rank cannot be read (default: %(default)s)',
    )
    add('--restart', action='store_true', help='do not resume a killed run; start again')
    add_options(parser, 'rank_timeout')
    args = parser.parse_args()
    exported = args.model.suffix == '.onnx'
    if args.backend is None:
        args.backend = 'onnxruntime' if exported else 'chainer'
    if exported and args.backend == 'chainer':
        raise InputError(f'--backend chainer: {args.model} runs in onnxruntime')
    if exported and args.rates is not None:
        raise InputError(
            f'--rates {args.rates}: {args.model} has its rates; give them to pfdet export'
        )
    if exported and args.weights is not None:
        raise InputError(f'--weights {args.weights}: {args.model} has its weights')
    if args.out.suffix not in ('.parquet', '.csv'):
        raise InputError(f'--out {args.out}: expected a name ending in .parquet or .csv')
    return args
