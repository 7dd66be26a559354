"""Detect the objects of an index's images with a trained model, on any number of ranks.

    mpiexec -n 8 python evaluate/predict.py --model DIR --index INDEX --out FILE.parquet
"""

import argparse
from pathlib import Path

from pfdet.errors import InputError, run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--model', type=Path, required=True, help='--out directory of a training run')
    add('--index', type=Path, required=True, help='annotation index of the images')
    add('--out', type=Path, required=True, help='.parquet or .csv')
    add('--sizes', type=int, nargs=1, help="shorter edge's length (default: the recipe's)")
    add('--score-thresh', type=float, help="least score (default: the recipe's)")
    add('--max-per-image', type=int, help="detections an image (default: the recipe's)")
    add('--corrupt', choices=('raise', 'skip'), default='raise',
        help='end at the first image that cannot be read, or go on without detections in it '
             '(default: %(default)s)')
    add('--max-corrupt-share', type=float, default=0.01, metavar='SHARE',
        help='with --corrupt skip, end when at least 20 images and more than this share of those '
             'read by a rank cannot be read (default: %(default)s)')
    args = parser.parse_args()
    if not 0 <= args.max_corrupt_share <= 1:
        raise InputError(
            f'--max-corrupt-share {args.max_corrupt_share}: expected a number from 0 to 1')
    if args.out.suffix not in ('.parquet', '.csv'):
        raise InputError(f'--out {args.out}: expected a name ending in .parquet or .csv')

    from tqdm import tqdm

    from pfdet.evaluation.detections import write_detections
    from pfdet.inference.predict import concatenate, predict
    from pfdet.openimages.corrupt_images import CorruptImages
    from pfdet.openimages.dataset import OpenImagesDataset
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.recipes import model_directory
    from pfdet.recipes.training_run import communicator

    model = model_directory.read(args.model)
    recipe = model.recipe
    index = AnnotationIndex.open(args.index)
    comm, device = communicator()
    if device >= 0:
        model.network.to_gpu(device)
    corrupt = CorruptImages(args.max_corrupt_share) if args.corrupt == 'skip' else None
    part = predict(
        model.network, OpenImagesDataset(index), range(comm.rank, len(index), comm.size),
        args.sizes[0] if args.sizes else recipe.test_size, recipe.max_size,
        recipe.score_thresh if args.score_thresh is None else args.score_thresh,
        recipe.nmw_thresh, args.max_per_image or recipe.max_per_image, recipe.batch_size,
        lambda batches: tqdm(batches, 'predict', disable=None if comm.rank == 0 else True),
        corrupt)
    parts = comm.gather_obj(part)
    counts = comm.gather_obj(corrupt) if corrupt is not None else []
    if comm.rank == 0:
        detections = concatenate(parts)
        write_detections(args.out, detections, model.classes)
        for other in counts[1:]:
            corrupt.merge(other.n_image, other.n_corrupt, other.first)
        if corrupt is not None and corrupt.n_corrupt:
            print(f'{corrupt}; they have no detections')
        print(f'{len(detections)} detections in {len(index)} images: {args.out}')


if __name__ == '__main__':
    run_command(main)
