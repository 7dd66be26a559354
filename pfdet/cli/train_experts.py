"""Fine-tune a full model to expert models of a few classes each.

    mpiexec -n 8 pfdet train-experts --recipe expert-class10 --init MODEL.npz \\
        --train-index INDEX --out DIR [--class-range 1-250]

Classes are sorted by their number of training images, rarest first. Groups of ranks train the
experts of the range in parallel. Run again, the command resumes. On SIGTERM or SIGUSR1 it stops
with status 75, as pfdet train does. Each expert's directory in DIR is that of any trained model,
for the expert's own classes.
"""

import argparse
import re
from pathlib import Path

from pfdet import recipes
from pfdet.cli.arguments import add_index, add_recipe_size, add_settings, check_index
from pfdet.errors import InputError
from pfdet.training.run_options import add_options, options_of


def main() -> int:
    args = parse_arguments()
    recipe = recipes.find(args.recipe, args.scale)
    if not recipe.name.startswith('expert-'):
        raise InputError(
            f'--recipe {args.recipe}: not a recipe of experts; expected one of '
            + ', '.join(r for r in recipes.RECIPES if r.startswith('expert-'))
        )
    check_index(args, 'train')
    first, last = class_range(args.class_range)
    options = options_of(args)

    # Imported only now, so that the above answers at once and without Chainer.
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.training import preemption
    from pfdet.training.communicators import communicator
    from pfdet.training.train_experts import train_experts

    stop_request = preemption.StopRequest()
    stop_request.listen()
    comm, device = communicator(options.communicator)
    finished = train_experts(
        recipe,
        AnnotationIndex.open(args.train_index),
        args.init,
        args.out,
        comm,
        options,
        settings=args.set,
        first=first,
        last=last,
        images_seen=args.images_seen,
        ranks_per_expert=args.ranks_per_expert,
        device=device,
        stop_request=stop_request,
    )
    return 0 if finished else preemption.STATUS


def class_range(text: str | None) -> tuple[int, int | None]:
    """The first and last of ``'11-100'``; :obj:`None` for the last of all."""
    if text is None:
        return 1, None
    match = re.fullmatch(r'(\d+)-(\d+)', text)
    if match is None:
        raise InputError(f'--class-range {text}: expected two ranks such as 11-100')
    return int(match[1]), int(match[2])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--recipe', default='expert-class10', help='default: %(default)s')
    add_recipe_size(parser)
    add(
        '--init',
        type=Path,
        required=True,
        metavar='MODEL.npz',
        help='weights of the full model, with its recipe.json in the same directory',
    )
    add_index(parser, 'train')
    add('--out', type=Path, required=True, help='directory of the experts')
    add(
        '--class-range',
        '--range',
        metavar='FIRST-LAST',
        help='classes by rank, rarest first, such as 11-250 (default: all)',
    )
    add(
        '--images-seen',
        type=int,
        metavar='N',
        help='train every expert on N images in all, repeated ones counted again (default: for the '
        "recipe's epochs over the expert's own images)",
    )
    add(
        '--ranks-per-expert',
        type=int,
        default=1,
        metavar='N',
        help='ranks that train an expert together (default: %(default)s)',
    )
    add_settings(parser)
    add_options(
        parser,
        'seed',
        'iterations',
        'threads',
        'communicator',
        'log_interval',
        'snapshot_interval',
    )
    return parser.parse_args()
