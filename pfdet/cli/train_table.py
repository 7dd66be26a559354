"""Train, predict and score all rows of a table of the papers, and compare them with its figures.

    pfdet train-table --table table1 --scale mini --train-index INDEX --val-index INDEX \\
        --out DIR [--rows table1-psp ...] [--seeds 0 1 2] [--ranks 2]

Run again, it resumes. Rows with the same training are trained once.
"""

import argparse
from pathlib import Path

from pfdet import recipes
from pfdet.cli.arguments import add_index, add_recipe_size, add_settings, check_index
from pfdet.errors import InputError


def main() -> None:
    args = parse_arguments()
    if args.table not in recipes.TABLES:
        raise InputError(f'--table {args.table}: expected one of {", ".join(recipes.TABLES)}')
    names = [recipe.name for recipe in recipes.TABLES[args.table].rows]
    for name in args.rows or ():
        if name not in names:
            raise InputError(f'--rows {name}: expected rows of {args.table}: {", ".join(names)}')
    check_index(args, 'train')
    check_index(args, 'val')

    from pfdet.subprocesses import flags, run_pfdet
    from pfdet.training.table_runs import Rows

    rows = Rows(args.out, args.train_index, args.val_index, args.scale, args.ranks, tuple(args.set))
    for seed in args.seeds:
        for name in args.rows or names:
            rows.run(name, seed)
    run_pfdet('compare-tables', *flags(runs=args.out, out=args.out / f'{args.table}.html'))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--table', required=True, metavar='KEY', help=f'one of {", ".join(recipes.TABLES)}')
    add('--rows', nargs='+', metavar='RECIPE', help='some of its rows (default: all)')
    add_recipe_size(parser, 'full')
    add_index(parser, 'train')
    add_index(parser, 'val')
    add('--out', type=Path, required=True, help='directory of the runs: OUT/RECIPE/seedS')
    add(
        '--seeds',
        type=int,
        nargs='+',
        default=[0],
        help='seeds to train each row with (default: 0)',
    )
    add('--ranks', type=int, default=2, help='MPI ranks on this machine (default: %(default)s)')
    add_settings(parser)
    return parser.parse_args()
