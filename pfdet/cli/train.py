"""Train a recipe of either paper, on any number of ranks.

    mpiexec -n 8 pfdet train --recipe NAME --train-index INDEX --out DIR

On SIGTERM or SIGUSR1, sent to mpiexec or to any rank, the ranks finish the iteration and a
validation that follows it, write a snapshot and exit with status 75; likewise on SIGINT (Ctrl-C)
with status 130 and on SIGHUP with 129. A second SIGINT ends the run at once. The same command with
--resume continues the run, on any number of ranks. Status 2 is an error of one line, and 1 a
traceback.

A recipe that starts from a backbone trained on ImageNet needs --backbone FILE.npz, made by pfdet
convert, and one that fine-tunes another recipe needs --init with the model.npz of its run. Recipes
of experts (expert_size above 0) are trained by pfdet train-experts.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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
from pfdet.flags import MAX_RANKS, Parser, integer
from pfdet.interruption import StopRequest
from pfdet.recipes.initial_weights import check_initial_weights
from pfdet.recipes.known import MIXED
from pfdet.recipes.listing import list_rows
from pfdet.recipes.recipe import described_fields
from pfdet.training.run_length import n_epoch
from pfdet.training.run_options import RunOptions, add_options, options_of
from pfdet.training.startup_guard import StartupGuard

if TYPE_CHECKING:
    from pfdet.openimages.index import AnnotationIndex

MIXED_ON_CPUS = (
    f'note: dtype={MIXED} is for GPUs; on CPUs it takes two to four times as long as float32'
)


def main() -> int | None:
    args = parse_arguments()
    if args.list:
        print_list()
        return None
    recipe = recipes.override(recipes.find(args.recipe, args.scale), args.set)
    if args.show:
        show(recipe)
        return None
    if recipe.expert_size:
        refuse_experts(recipe, args)
    options = options_of(args)
    if args.dry_run is not None:
        preview(recipe, options, args)
        return None
    check_index(args, 'train')
    if args.out is None:
        raise InputError('no directory for the results: give --out DIR')
    options = with_backbone(options, args.backbone)
    if not (options.resume and any((args.out / 'snapshots').glob('iter_*.npz'))):
        check_initial_weights(recipe, options.init, options.random_weights)

    stop_request = StopRequest()
    stop_request.listen()
    guard = StartupGuard(options.rank_timeout)
    # Imported only now, so that the above answers at once and without Chainer.
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.training import preemption, watchdog
    from pfdet.training.communicators import communicator
    from pfdet.training.initial_weights_file import check_backbone
    from pfdet.training.train import train

    if args.backbone is not None:
        check_backbone(args.backbone)
    comm, device = communicator(options.communicator, options.allreduce_dtype)
    guard.close()
    with watchdog.watch(comm, options.rank_timeout):
        progress.report('reading the index')
        train_index = AnnotationIndex.open(args.train_index)
        val_index = AnnotationIndex.open(args.val_index) if args.val_index else None
        if device < 0 and comm.rank == 0 and recipe.dtype == MIXED:
            print(MIXED_ON_CPUS, file=sys.stderr, flush=True)
        if device < 0 and comm.rank == 0 and recipe.size == 'full':
            print_cost(recipe, options, train_index, comm.size)
        finished = train(
            recipe,
            train_index,
            args.out,
            comm,
            options,
            val_index=val_index,
            device=device,
            stop_request=stop_request,
        )
    return 0 if finished else preemption.exit_status(stop_request.signal)


def print_cost(
    recipe: recipes.Recipe, options: RunOptions, train_index: 'AnnotationIndex', n_rank: int
) -> None:
    """Print a note if the run takes long on CPUs."""
    from pfdet.training.cpu_cost import cost_note, operations_of_training, operations_per_second

    n_image = n_epoch(recipe, len(train_index)) * len(train_index)
    if options.iterations is not None:
        global_batch = recipe.batch_size * options.accumulate * n_rank
        n_image = min(n_image, options.iterations * global_batch)
    operations = operations_of_training(recipe, len(train_index.classes), n_image)
    note = cost_note(operations, operations_per_second(), n_rank)
    if note:
        print(f'note: {note}', file=sys.stderr, flush=True)


def refuse_experts(recipe: recipes.Recipe, args: argparse.Namespace) -> None:
    """Refuse a recipe of experts.

    Raises:
        InputError: Always; it has the command that trains them with the same arguments.
    """
    from pfdet.cli import train_experts

    needed = ('train_index',) if args.dry_run is not None else train_experts.NEEDED
    command = command_line(
        'train-experts',
        train_experts.make_parser(),
        args,
        make_parser(),
        {name: train_experts.NEEDED[name] for name in needed},
    )
    raise InputError(
        f'recipe {recipe.name} with expert_size={recipe.expert_size} trains experts, not one model '
        f'of all classes: {command}'
    )


def with_backbone(options: RunOptions, backbone: Path | None) -> RunOptions:
    """The options with ``--backbone`` as the initial weights.

    Raises:
        InputError: Other initial weights are given, too.
    """
    if backbone is None:
        return options
    if options.init is not None:
        raise InputError(f'--backbone {backbone}: contradicts --init {options.init}; give one')
    return dataclasses.replace(options, init=backbone)


def preview(recipe: recipes.Recipe, options: RunOptions, args: argparse.Namespace) -> None:
    """Start all ranks, train two steps of a small network, and print the plan of the run."""
    from pfdet.training.dry_run import oversubscription

    oversubscription.prepare()
    # Nothing more: with hundreds of ranks on a machine, imports take most of the memory.
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.training.communicators import communicator
    from pfdet.training.dry_run.run import dry_run

    comm, device = communicator(options.communicator, options.allreduce_dtype)
    dry_run(
        recipe,
        args.train_index and AnnotationIndex.open(args.train_index),
        comm,
        device=device,
        seed=options.seed,
        n_rank=args.dry_run,
        accumulate=options.accumulate,
        bn_group_size=options.bn_group_size,
        out=args.out,
    )


def print_list() -> None:
    """Print all rows of all tables."""
    for line in list_rows():
        print(line)


def show(recipe: recipes.Recipe) -> None:
    """Print the fields of a recipe by group, and the size of its network."""
    if recipe.expert_size:
        print(f'experts of {recipe.expert_size} classes each, trained by pfdet train-experts')
    for group, fields in described_fields(recipe).items():
        print(group)
        for name, value, about in fields:
            print(f'  {name:18} {value!s:24} {about}')

    from pfdet.links.complexity import detector_flops, n_parameter
    from pfdet.training import build

    n_class, proposals = 500, recipe.test_proposals[1]
    size = recipe.test_sizes[0], round(recipe.test_sizes[0] * 4 / 3)
    network = build.detector(recipe, n_class)
    print(
        f'\nwith {n_class} classes: {n_parameter(network) / 1e6:.1f} M parameters; '
        f'{detector_flops(network, size, proposals) / 1e9:.1f} GFLOPs for an image of '
        f'{size[0]} x {size[1]} with {proposals} proposals'
    )


def parse_arguments() -> argparse.Namespace:
    return make_parser().parse_args()


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        '--recipe',
        default=recipes.DEFAULT,
        help='configuration to train, by name, or the recipe.json of a run (default: %(default)s)',
    )
    add_recipe_size(parser)
    add_index(parser, 'train')
    add_index(parser, 'val')
    add('--out', type=Path, help='directory for weights, log, scores and snapshots')
    add_settings(parser)
    add_dtype(parser)
    add(
        '--backbone',
        type=Path,
        metavar='FILE.npz',
        help='the same as --init, but takes only backbone files of pfdet convert',
    )
    add_options(parser)
    add('--list', action='store_true', help='list the recipes and exit')
    add('--show', action='store_true', help='print the resolved recipe and exit')
    add(
        '--dry-run',
        type=integer(0, MAX_RANKS),
        nargs='?',
        const=0,
        metavar='RANKS',
        help='preview the run: start all ranks, divide and draw the images, train two steps of the '
        'mini network, and print the plan for these ranks or for RANKS; needs no --train-index',
    )
    return parser
