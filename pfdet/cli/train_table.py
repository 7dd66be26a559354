"""Train, predict and score all rows of a table of the papers, and compare them with its figures.

    pfdet train-table --table table1 --scale mini --train-index INDEX --val-index INDEX \\
        --out DIR [--rows table1-psp ...] [--seeds 0 1 2] [--ranks 2]

Run again, it resumes. Rows with the same training are trained once, and tables with the same --out
share their trainings.

Tables 2 and 4 of PFDet fine-tune experts from a full model. This is the last row of Table 1, which
is trained if --out does not have it, or the one that --full names. Experts have the classes of
ranks 11 to 350 of 500, rarest first, as in Table 4. The ensemble of Table 2 has those up to rank
250. The paper does not name "all the others" of Table 2: --others lists them. The row with COCO
needs --second-index. Class weights are computed on the images of --weights-index. Without it, the
validation images are split into two halves, and the weights for each half are computed on the other
one.

Rows that start from a backbone trained on ImageNet need --backbone at full size.
"""

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pfdet import recipes
from pfdet.cli.arguments import add_index, add_recipe_size, add_settings, check_index
from pfdet.errors import InputError
from pfdet.flags import EDGE, MANY, MAX_RANKS, SEED, Parser, integer
from pfdet.similar_names import expected_name

if TYPE_CHECKING:
    from pfdet.training.tables.composites import Composites

Row = recipes.Recipe | recipes.Composite

# Least values of arguments
_LEAST = {
    'images_seen': 1,
    'ranks_per_expert': 1,
    'ranks': 1,
    'sizes': 16,
    'seeds': 0,
    'split_seed': 0,
}


def main() -> None:
    args = parse_arguments()
    table_rows = chosen_rows(args)
    check_index(args, 'train')
    check_index(args, 'val')

    from pfdet.subprocesses import run_pfdet
    from pfdet.training.tables.inputs import check_disjoint, check_inputs

    composites = composites_of(args)
    table_rows = without_second_index(table_rows, composites, bool(args.rows))
    composites = with_backbones(args, table_rows, composites)
    rows = composites.rows
    if args.weights_index is not None:
        check_disjoint(args.weights_index, args.val_index)
    check_inputs(args.out, input_files(args, rows.backbones))
    for seed in args.seeds:
        for row in table_rows:
            if isinstance(row, recipes.Composite):
                composites.run(row, seed)
            else:
                rows.run(row.name, seed)
    # Not the directories above: they may have trainings that are only validated so far.
    finished = [run.path for run in rows.finished()]
    page = args.out / f'{args.table}.html'
    run_pfdet('compare-tables', '--runs', *finished, '--out', page)


def chosen_rows(args: argparse.Namespace) -> list[Row]:
    """The rows of ``--table``, or those of them that ``--rows`` names.

    Raises:
        InputError: There is no such table or row.
    """
    tables = [key for key in recipes.TABLES if key != 'experts']
    if args.table not in tables:
        raise InputError(f'--table {args.table}: {expected_name(args.table, tables)}')
    by_name = {row.name: row for row in recipes.TABLES[args.table].rows}
    for name in args.rows or ():
        if name not in by_name:
            raise InputError(
                f'--rows {name}: no row of {args.table}; {expected_name(name, by_name)}'
            )
    return [by_name[name] for name in args.rows or by_name]


def composites_of(args: argparse.Namespace) -> 'Composites':
    """The options of all rows from the arguments, without backbones.

    Raises:
        InputError: An argument is invalid.
    """
    from pfdet.training.tables.composites import Composites, is_model
    from pfdet.training.tables.merging import Images
    from pfdet.training.tables.rows import Rows

    full: str | Path = args.full or recipes.DEFAULT
    if args.full is not None and args.full not in recipes.RECIPES:
        if not is_model(args.full):
            raise InputError(
                f'--full {args.full}: expected a recipe, or the directory of a trained model with '
                'its model.npz'
            )
        full = Path(args.full)
    for entry in args.others or ():
        recipe = re.fullmatch(r'([^/]+)(/seed\d+)?', entry)
        if not is_model(entry) and not (recipe and recipe[1] in recipes.RECIPES):
            raise InputError(
                f'--others {entry}: expected recipes, RECIPE/seedS, or directories of trained '
                'models with their model.npz'
            )
    for name, least in _LEAST.items():
        given = getattr(args, name)
        values = given if isinstance(given, list) else [given]
        if given is not None and min(values) < least:
            flag = '--' + name.replace('_', '-')
            raise InputError(f'{flag} {min(values)}: expected at least {least}')
    rows = Rows(
        args.out,
        args.train_index,
        args.val_index,
        args.scale,
        args.ranks,
        tuple(args.set),
        random_weights=args.random_weights,
    )
    options = {'others': tuple(args.others)} if args.others is not None else {}
    return Composites(
        rows,
        full,
        class_range=class_range(args.class_range),
        images_seen=args.images_seen,
        ranks_per_expert=args.ranks_per_expert,
        sizes=tuple(args.sizes or ()),
        second_index=args.second_index,
        weights=args.weights_index and Images('weights', args.weights_index),
        split_seed=args.split_seed,
        **options,
    )


def class_range(text: str | None) -> tuple[int, int] | None:
    """The first and last of ``'11-100'``."""
    if text is None:
        return None
    match = re.fullmatch(r'(\d+)-(\d+)', text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f'--class-range {text}: expected two ranks such as 11-100')
    return int(match[1]), int(match[2])


def without_second_index(table_rows: list[Row], composites: 'Composites', asked: bool) -> list[Row]:
    """Leave out the rows that need a second training set, with a line that says so.

    Raises:
        InputError: Rows that need it were asked for by name.
    """
    missing = [
        row.name
        for row in table_rows
        if isinstance(row, recipes.Composite) and composites.needs_second_index(row)
    ]
    if not missing:
        return table_rows
    needs = f'{", ".join(missing)}: without --second-index INDEX, the images of another data set'
    if asked:
        raise InputError(f'--rows {needs}, they cannot be run')
    print(f'note: {needs}, such as COCO, these rows are left out', flush=True)
    return [row for row in table_rows if row.name not in missing]


def with_backbones(
    args: argparse.Namespace, table_rows: Sequence[Row], composites: 'Composites'
) -> 'Composites':
    """Add ``--backbone`` to the options, and say which rows start from random weights.

    Raises:
        InputError: A backbone is missing, or is not one that the rows start from.
    """
    from pfdet.training.tables.backbones import (
        check_backbones,
        find_backbones,
        note_on_random_weights,
    )

    rows = composites.rows
    names = [
        name
        for row in table_rows
        for model in (
            composites.single_models(row) if isinstance(row, recipes.Composite) else [row.name]
        )
        for name in rows.with_what_it_starts_from(model)
    ]
    trained = {name: rows.recipe(name) for name in names}
    rows = dataclasses.replace(rows, backbones=find_backbones(args.backbone, trained.values()))
    if not args.random_weights:
        missing = [
            recipe
            for name, recipe in trained.items()
            if not all(rows.is_trained(name, seed) for seed in args.seeds)
        ]
        check_backbones(missing, rows.backbones)
    if args.random_weights or args.scale == 'mini':
        note = note_on_random_weights(trained.values(), rows.backbones)
        if note:
            print(note, flush=True)
    return dataclasses.replace(composites, rows=rows)


def input_files(args: argparse.Namespace, backbones: Mapping[str, Path]) -> dict[str, Path]:
    """The files that all runs of a directory share, by the flag that names them."""
    names = 'train_index', 'val_index', 'second_index', 'weights_index'
    files = {f'--{name.replace("_", "-")}': getattr(args, name) for name in names}
    files |= {f'--backbone {name}': path for name, path in backbones.items()}
    return {flag: path for flag, path in files.items() if path is not None}


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    tables = ', '.join(key for key in recipes.TABLES if key != 'experts')
    add('--table', required=True, metavar='KEY', help=f'one of {tables}')
    add('--rows', nargs='+', metavar='NAME', help='some of its rows (default: all)')
    add_recipe_size(parser, 'full')
    add_index(parser, 'train')
    add_index(parser, 'val')
    add('--out', type=Path, required=True, help='directory of the runs: OUT/ROW/seedS')
    add(
        '--seeds',
        type=SEED,
        nargs='+',
        default=[0],
        metavar='S',
        help='seeds to train each row with (default: 0)',
    )
    add(
        '--ranks',
        type=integer(1, 1024),
        default=2,
        metavar='N',
        help='MPI ranks on this machine (default: %(default)s)',
    )
    add_settings(parser)
    weights = parser.add_argument_group('initial weights')
    weights.add_argument(
        '--backbone',
        nargs='+',
        default=[],
        metavar='[NAME=]FILE.npz',
        help='weights of pfdet convert for rows that start from a backbone trained on ImageNet; '
        'with the name of the backbone if the rows have several',
    )
    weights.add_argument(
        '--random-weights',
        action='store_true',
        help='start rows without such weights from random ones; the reports say so',
    )
    several = parser.add_argument_group('experts and ensembles (Tables 2 and 4 of PFDet)')
    add = several.add_argument
    add(
        '--full',
        metavar='RECIPE|DIR',
        help='what experts are fine-tuned from: a recipe, or the directory of a trained model '
        f'(default: {recipes.DEFAULT})',
    )
    add(
        '--others',
        nargs='*',
        metavar='RECIPE[/seedS]|DIR',
        help='"all the others" of Table 2 (default: table1-epochs table1-context)',
    )
    add(
        '--class-range',
        metavar='FIRST-LAST',
        help='ranks of the classes that get experts, rarest first, for both tables (default: those '
        'of the tables, scaled to the number of classes)',
    )
    add(
        '--images-seen',
        type=integer(1, 1_000 * MANY),
        metavar='N',
        help='train every expert on N images in all (default: that of pfdet train-experts)',
    )
    add(
        '--ranks-per-expert',
        type=integer(1, MAX_RANKS),
        metavar='N',
        help='ranks that train an expert together (default: 8 at full size, 1 at mini size)',
    )
    add(
        '--sizes',
        type=EDGE,
        nargs='+',
        metavar='PIXELS',
        help="shorter edge's lengths in test-time augmentation (default: 640 800 1056, at mini "
        'size 128 160 211)',
    )
    add(
        '--second-index',
        type=Path,
        metavar='INDEX',
        help='training images of another data set with the same classes, such as COCO (pfdet coco)',
    )
    add(
        '--weights-index',
        type=Path,
        metavar='INDEX',
        help='images that class weights are computed on, with none of --val-index (default: halves '
        'of the validation images, each weighted by the other)',
    )
    add(
        '--split-seed',
        type=SEED,
        default=0,
        metavar='S',
        help='seed of the halves (default: %(default)s)',
    )
    return parser.parse_args()
