"""Fine-tune a full model to experts of a few classes each, all experts of a range by one command.

    mpiexec -n 8 python train/train_experts.py --recipe expert-class10 --init MODEL.npz \\
        --train-index INDEX --out DIR [--range 1-250]

Classes are sorted by their number of training images, rarest first. The ranks are shared out to
the experts, which are trained side by side; run again, the command goes on where it was ended. As
train_multi.py, it stops at SIGTERM or SIGUSR1 with status 75.
Each expert's directory in DIR is that of any trained model, whose classes are the expert's own.
"""

import argparse
import os
import re
from pathlib import Path

from pfdet import recipes
from pfdet.errors import InputError


def main() -> int:
    args = parse_arguments()
    recipe = recipes.find(args.recipe, args.scale)
    if not recipe.name.startswith('expert-'):
        raise InputError(
            f'--recipe {args.recipe}: not one of experts; expected one of '
            + ', '.join(r for r in recipes.RECIPES if r.startswith('expert-'))
        )
    if args.train_index is None:
        raise InputError('no training set: give --train-index INDEX or set $PFDET_TRAIN_INDEX')
    first, last = rank_range(args.range)

    # Only here, so that the above answers at once and without Chainer.
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.training import preemption
    from pfdet.training.train import communicator
    from pfdet.training.train_experts import train_experts

    stop_request = preemption.StopRequest()
    stop_request.listen()
    comm, device = communicator(args.communicator)
    finished = train_experts(
        recipe,
        AnnotationIndex.open(args.train_index),
        args.init,
        args.out,
        comm,
        settings=args.set,
        first=first,
        last=last,
        images_seen=args.images_seen,
        ranks_per_expert=args.ranks_per_expert,
        seed=args.seed,
        device=device,
        n_thread=args.threads,
        iterations=args.iterations,
        log_interval=args.log_interval,
        snapshot_interval=args.snapshot_interval,
        stop_request=stop_request,
    )
    return 0 if finished else preemption.STATUS


def rank_range(text: str | None) -> tuple[int, int | None]:
    """The first and last of ``'11-100'``; :obj:`None` for the last of all."""
    if text is None:
        return 1, None
    match = re.fullmatch(r'(\d+)-(\d+)', text)
    if match is None:
        raise InputError(f'--range {text}: expected two ranks such as 11-100')
    return int(match[1]), int(match[2])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--recipe', default='expert-class10', help='default: %(default)s')
    add('--scale', choices=('full', 'mini'), help="default: the recipe's own")
    add(
        '--init',
        type=Path,
        required=True,
        metavar='MODEL.npz',
        help='the full model; the recipe.json beside it says what network it is',
    )
    add(
        '--train-index',
        type=Path,
        default=os.environ.get('PFDET_TRAIN_INDEX'),
        help='annotation index of the training set (default: $PFDET_TRAIN_INDEX)',
    )
    add('--out', type=Path, required=True, help='directory of the experts')
    add('--range', metavar='FIRST-LAST', help='classes by rank, rarest first (default: all)')
    add(
        '--images-seen',
        type=int,
        metavar='N',
        help='train each expert on N images in all, counted as often as they come, and all equally '
        "long (default: for the recipe's epochs of the expert's own images)",
    )
    add(
        '--ranks-per-expert',
        type=int,
        default=1,
        metavar='N',
        help='ranks that train an expert together (default: %(default)s)',
    )
    add(
        '--set',
        nargs='*',
        default=[],
        action='extend',
        metavar='KEY=VALUE',
        help='replace fields of the recipe, such as expert_head=cut',
    )
    add('--seed', type=int, default=0)
    add('--iterations', type=int, help='stop each expert after so many')
    add('--threads', type=int, default=1, help='threads a rank that load images')
    add('--communicator', help="ChainerMN's name (default: pure_nccl on GPUs, else naive)")
    add('--log-interval', type=int, default=10, metavar='ITERATIONS')
    add('--snapshot-interval', type=int, metavar='ITERATIONS')
    return parser.parse_args()
