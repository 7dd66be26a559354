"""Fine-tune a full model to expert models of a few classes each.

    mpiexec -n 8 pfdet train-experts --recipe expert-class10 --init MODEL.npz \\
        --train-index INDEX --out DIR [--class-range 1-250]

Classes are sorted by their number of training images, rarest first. Groups of ranks train the
experts of the range in parallel. Run again, the command resumes. On SIGTERM or SIGUSR1 it stops
with status 75, as pfdet train does. Each expert's directory in DIR is that of any trained model,
for the expert's own classes.

All experts are trained on equally many images: the recipe's epochs over the images that an expert
has on average. With one rank per expert, batch normalization keeps the full model's statistics,
scale and shift, unless --set frozen_bn=... says otherwise.
"""

import argparse
import re
from pathlib import Path

from pfdet import progress, recipes
from pfdet.cli.arguments import (
    add_dtype,
    add_index,
    add_recipe_size,
    add_settings,
    check_index,
    command_line,
)
from pfdet.errors import InputError
from pfdet.flags import MANY, MAX_RANKS, Parser, integer
from pfdet.interruption import StopRequest
from pfdet.training.run_options import add_options, options_of
from pfdet.training.startup_guard import StartupGuard

#: Arguments that a run needs, with the names of their values.
NEEDED = {'init': 'MODEL.npz', 'train_index': 'INDEX', 'out': 'DIR'}


def main() -> int:
    args = parse_arguments()
    recipe = recipes.find(args.recipe, args.scale)
    if not expert_size(recipe, args.set):
        refuse_full_model(recipe, args)
    check_index(args, 'train')
    dry = args.dry_run is not None
    if args.init is None and not dry:
        raise InputError('no full model to start from: give --init MODEL.npz, of its run')
    if args.out is None and not dry:
        raise InputError('no directory for the experts: give --out DIR')
    if args.epochs_of_own_images and args.images_seen is not None:
        raise InputError(
            f'--epochs-of-own-images: contradicts --images-seen {args.images_seen}; give one'
        )
    first, last = class_range(args.class_range)
    options = options_of(args)

    stop_request = StopRequest()
    if not dry:
        stop_request.listen()
    guard = StartupGuard(options.rank_timeout)
    # Imported only now, so that the above answers at once and without Chainer.
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.training import preemption, watchdog
    from pfdet.training.communicators import communicator
    from pfdet.training.train_experts import train_experts

    comm, device = communicator(options.communicator)
    guard.close()
    with watchdog.watch(comm, options.rank_timeout):
        progress.report('planning the experts')
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
            epochs_of_own_images=args.epochs_of_own_images,
            ranks_per_expert=args.ranks_per_expert,
            dry_run=args.dry_run,
            device=device,
            stop_request=stop_request,
        )
    return 0 if finished else preemption.exit_status(stop_request.signal)


def expert_size(recipe: recipes.Recipe, settings: list[str]) -> int:
    """Number of classes per expert, 0 for a recipe of a model of all classes.

    Only this field is looked at: the other settings apply to the full model's recipe.
    """
    own = [setting for setting in settings if setting.partition('=')[0] == 'expert_size']
    return recipes.override(recipe, own).expert_size


def refuse_full_model(recipe: recipes.Recipe, args: argparse.Namespace) -> None:
    """Refuse a recipe of a model of all classes.

    Raises:
        InputError: Always; it has the command that trains it with the same arguments.
    """
    from pfdet.cli import train

    command = command_line(
        'train',
        train.make_parser(),
        args,
        make_parser(),
        {name: NEEDED[name] for name in ('train_index', 'out')},
    )
    names = ', '.join(name for name, r in recipes.RECIPES.items() if r.expert_size)
    raise InputError(
        f'recipe {recipe.name} with expert_size=0 trains one model of all classes: {command}; '
        f'recipes of experts are {names}, and any recipe with --set expert_size=N'
    )


def class_range(text: str | None) -> tuple[int, int | None]:
    """The first and last of ``'11-100'``; :obj:`None` for the last of all."""
    if text is None:
        return 1, None
    match = re.fullmatch(r'(\d+)-(\d+)', text)
    if match is None:
        raise InputError(f'--class-range {text}: expected two ranks such as 11-100')
    return int(match[1]), int(match[2])


def parse_arguments() -> argparse.Namespace:
    return make_parser().parse_args()


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add('--recipe', default='expert-class10', help='default: %(default)s')
    add_recipe_size(parser)
    add(
        '--init',
        type=Path,
        metavar='MODEL.npz',
        help='weights of the full model, with its recipe.json in the same directory',
    )
    add_index(parser, 'train')
    add('--out', type=Path, metavar='DIR', help='directory of the experts')
    add(
        '--class-range',
        '--range',
        metavar='FIRST-LAST',
        help='classes by rank, rarest first, such as 11-250 (default: all)',
    )
    add(
        '--images-seen',
        type=integer(1, 1_000 * MANY),
        metavar='N',
        help='train every expert on N images in all, repeated ones counted again (default: the '
        "recipe's epochs times the number of images of an expert, averaged over the range)",
    )
    add(
        '--epochs-of-own-images',
        action='store_true',
        help="train every expert for the recipe's epochs over its own images, so that experts of "
        'rare classes are trained on fewer images',
    )
    add(
        '--ranks-per-expert',
        type=integer(1, MAX_RANKS),
        default=1,
        metavar='N',
        help='ranks that train an expert together (default: %(default)s); with one, batch '
        'normalization is frozen unless --set frozen_bn=... says otherwise',
    )
    add(
        '--dry-run',
        type=integer(0, MAX_RANKS),
        nargs='?',
        const=0,
        metavar='RANKS',
        help='print the experts and the length of their runs for these ranks or for RANKS; '
        'needs neither --init nor --out',
    )
    add_settings(parser)
    add_dtype(parser)
    add_options(
        parser,
        'seed',
        'iterations',
        'threads',
        'corrupt',
        'max_corrupt_share',
        'accumulate',
        'communicator',
        'log_interval',
        'snapshot_interval',
        'keep_snapshots',
        'rank_timeout',
    )
    return parser
