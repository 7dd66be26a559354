"""Train a recipe of either paper, on any number of ranks.

    mpiexec -n 8 python train/train_multi.py --recipe NAME --train-index INDEX --out DIR

At SIGTERM or SIGUSR1, to mpiexec or to any rank, the ranks finish the iteration (and a validation
that follows it), write a snapshot and exit with status 75: run the same command with --resume to go
on, on any number of ranks. Status 2 is an error of one line, and 1 a traceback.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from pfdet import recipes
from pfdet.errors import InputError


def main() -> int | None:
    args = parse_arguments()
    if args.list:
        for table in recipes.TABLES.values():
            print(table.title)
            for recipe in table.rows:
                print(f'  {recipe.name:34} {recipe.about.partition(": ")[2]}')
        return None
    recipe = recipes.override(recipes.find(args.recipe, args.scale), args.set)
    if args.show:
        show(recipe)
        return None
    if args.accumulate < 1:
        raise InputError(f'--accumulate {args.accumulate}: expected at least 1')
    if args.dry_run is not None:
        try_run(recipe, args)
        return None
    if args.train_index is None:
        raise InputError(
            'no training set: give --train-index INDEX or set $PFDET_TRAIN_INDEX; an index is made '
            'by python -m pfdet.openimages.build_index (see README.md, "Real Open Images")'
        )
    if args.out is None:
        raise InputError('no place for the results: give --out DIR')

    if not 0 <= args.max_corrupt_share <= 1:
        raise InputError(
            f'--max-corrupt-share {args.max_corrupt_share}: expected a number from 0 to 1'
        )

    if args.keep_snapshots < 1:
        raise InputError(f'--keep-snapshots {args.keep_snapshots}: expected at least 1')

    if recipe.init in recipes.RECIPES and args.init is None:
        raise InputError(
            f'recipe {recipe.name} goes on from the weights of {recipe.init}: give '
            '--init with the model.npz of its run'
        )

    # Only here, so that the above answers at once and without Chainer.
    from pfdet.openimages.corrupt_images import CorruptImages
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.training import preemption
    from pfdet.training.train import communicator, train

    stop_request = preemption.StopRequest()
    stop_request.listen()
    comm, device = communicator(args.communicator, args.allreduce_dtype)
    train_index = AnnotationIndex.open(args.train_index)
    val_index = AnnotationIndex.open(args.val_index) if args.val_index else None
    if comm.rank == 0 and recipe.init == 'imagenet' and not args.init and recipe.scale == 'full':
        print(
            'note: the paper starts from a backbone trained on ImageNet; without --init, this '
            'run starts from random weights',
            file=sys.stderr,
            flush=True,
        )
    finished = train(
        recipe,
        train_index,
        args.out,
        comm,
        val_index=val_index,
        init=args.init,
        resume=args.resume,
        seed=args.seed,
        device=device,
        n_thread=args.threads,
        iterations=args.iterations,
        log_interval=args.log_interval,
        val_interval=args.val_interval,
        snapshot_interval=args.snapshot_interval,
        keep_snapshots=args.keep_snapshots,
        corrupt=CorruptImages(args.max_corrupt_share) if args.corrupt == 'skip' else None,
        stop_request=stop_request,
        accumulate=args.accumulate,
        bn_group_size=args.bn_group_size,
        double_buffering=args.double_buffering,
    )
    return 0 if finished else preemption.STATUS


def try_run(recipe: recipes.Recipe, args: argparse.Namespace) -> None:
    """Start all ranks, train two steps of a small network, and say what the run would be."""
    if args.dry_run < 0:
        raise InputError(f'--dry-run {args.dry_run}: expected a number of ranks')

    from pfdet.training.dry_run import oversubscription

    oversubscription.prepare()
    # Nothing else: with hundreds of ranks on a machine, what each imports is most of what it takes.
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.training.communicators import communicator
    from pfdet.training.dry_run.run import dry_run

    comm, device = communicator(args.communicator, args.allreduce_dtype)
    dry_run(
        recipe,
        args.train_index and AnnotationIndex.open(args.train_index),
        comm,
        device=device,
        seed=args.seed,
        n_rank=args.dry_run,
        accumulate=args.accumulate,
        bn_group_size=args.bn_group_size,
        out=args.out,
    )


def show(recipe: recipes.Recipe) -> None:
    """Print a recipe, and how large its network is."""
    for field, value in dataclasses.asdict(recipe).items():
        print(f'{field:18} {value}')

    from pfdet.links.complexity import detector_flops, n_parameter
    from pfdet.training import build

    n_class, proposals = 500, recipe.test_proposals[1]
    size = recipe.test_size, round(recipe.test_size * 4 / 3)
    network = build.detector(recipe, n_class)
    print(
        f'\nwith {n_class} classes: {n_parameter(network) / 1e6:.1f} M parameters; '
        f'{detector_flops(network, size, proposals) / 1e9:.1f} GFLOPs for an image of '
        f'{size[0]} x {size[1]} with {proposals} proposals'
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--recipe', default=recipes.DEFAULT, help='which configuration (default: %(default)s)')
    add(
        '--scale',
        choices=('full', 'mini'),
        help="the paper's size, or one for two CPU cores (default: the recipe's own)",
    )
    add(
        '--train-index',
        type=Path,
        default=os.environ.get('PFDET_TRAIN_INDEX'),
        help='annotation index of the training set (default: $PFDET_TRAIN_INDEX)',
    )
    add(
        '--val-index',
        type=Path,
        default=os.environ.get('PFDET_VAL_INDEX'),
        help='annotation index of the validation set (default: $PFDET_VAL_INDEX)',
    )
    add('--out', type=Path, help='directory for weights, log, scores and snapshots')
    add('--init', type=Path, metavar='MODEL.npz', help='weights to start from')
    add(
        '--resume',
        action='store_true',
        help='go on from the newest whole snapshot in --out, on any number of ranks; where there '
        'is none, begin',
    )
    add(
        '--set',
        nargs='*',
        default=[],
        action='extend',
        metavar='KEY=VALUE',
        help='replace fields of the recipe (see --show)',
    )
    add('--seed', type=int, default=0, help='of weights, order, augmentation and sampling')
    add('--iterations', type=int, help='stop after so many, with the schedule of the whole run')
    add('--threads', type=int, default=1, help='threads a rank that load images')
    add(
        '--corrupt',
        choices=('raise', 'skip'),
        default='raise',
        help='end at the first training image that cannot be read, or take another in its place '
        '(default: %(default)s)',
    )
    add(
        '--max-corrupt-share',
        type=float,
        default=0.01,
        metavar='SHARE',
        help='with --corrupt skip, end when at least 20 images and more than this share of all '
        'drawn cannot be read (default: %(default)s)',
    )
    add(
        '--accumulate',
        type=int,
        default=1,
        metavar='N',
        help="N batches of the recipe's size a rank and update, one after the other, where memory "
        'is short; the learning rate is that of the N times larger batch, batch normalization '
        'sees one at a time (default: %(default)s)',
    )
    add(
        '--bn-group-size',
        type=int,
        default=0,
        metavar='RANKS',
        help='ranks in a row that share batch statistics (default: all)',
    )
    add(
        '--communicator',
        help="packed, or ChainerMN's name (default: pure_nccl on GPUs, else packed)",
    )
    add(
        '--allreduce-dtype',
        choices=('float32', 'float16'),
        help='in what gradients are sent; float16 for slow networks, with pure_nccl or packed '
        '(default: float32)',
    )
    add(
        '--double-buffering',
        action='store_true',
        help='all-reduce gradients during the next batch, with pure_nccl: each update then uses '
        'the gradients of the iteration before, and a resumed run loses one update',
    )
    add('--log-interval', type=int, default=10, metavar='ITERATIONS')
    add('--val-interval', type=float, metavar='EPOCHS')
    add('--snapshot-interval', type=int, metavar='ITERATIONS', help='default: an epoch')
    add(
        '--keep-snapshots',
        type=int,
        default=3,
        metavar='K',
        help='the newest K stay (default: %(default)s)',
    )
    add('--list', action='store_true', help='list the recipes and stop')
    add('--show', action='store_true', help='print the resolved recipe and stop')
    add(
        '--dry-run',
        type=int,
        nargs='?',
        const=0,
        metavar='RANKS',
        help='start all ranks, split, draw, train two steps of the mini network, and say what the '
        'run would be, on as many ranks as there are or on RANKS; needs no --train-index',
    )
    return parser.parse_args()
