"""The papers' methods on a set of photographs: ``python -m study.photographs``.

    python -m study.photographs --index photographs.index --out photograph_runs

Splits the images of an index, trains the rows of the table ``small`` with several seeds, and the
recipe ``small`` on fewer photographs, from random weights and from a backbone trained on drawn
scenes. Every step is a command that is printed before it runs. After an interruption, the same
command resumes. The scores of all runs are kept in a file, and ``--given`` skips the runs in such a
file. A page is written from them.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pfdet import recipes
from pfdet.errors import InputError, run_command
from pfdet.flags import SEED, Parser, integer
from pfdet.subprocesses import run_python
from pfdet.training.tables.rows import Rows
from study.parallel import add_jobs, run_in_parallel
from study.photographs_page import DRAWN, EFFECTS, RANDOM, write_page
from study.results import is_current, read_results, restore_run, sha256_of, write_results

# Iterations by number of photographs: small sets are learned by heart sooner. All photographs are
# trained on for as long as the recipe says.
LENGTHS = {50: 1000, 200: 2000}
# Runs of one rank see as many images per update as the quickstart's two.
_BATCH = 'batch_size=8'


def main() -> None:
    args = parse_arguments()
    train, validation = split(args.index, args.out / 'data', args.train, args.val)
    every = Rows(args.out / 'runs', train, validation, 'mini', 1)
    data = sha256_of({'train': train, 'validation': validation})
    trainings = plan(args, every)
    if args.given is not None:
        restore({rows.out: rows for rows, _, _ in trainings}, every.out, data, args.given)
    try:
        run_in_parallel(
            [partial(rows.run, name, seed) for rows, name, seed in trainings], args.jobs
        )
    finally:
        if any(every.out.rglob('done')):
            write_results(every, data, args.results)
            write_page(args.results, args.page, args.notes)


def plan(args: argparse.Namespace, every: Rows) -> list[tuple[Rows, str, int]]:
    """All runs in the order in which they are started.

    Args:
        args (argparse.Namespace): See :func:`parse_arguments`.
        every (Rows): Of the whole training set; its directory is that of all runs.

    Returns:
        list of tuples: Indexes and settings, recipe and seed of each run.
    """

    def rows(name: str, train: Path, start: str, *settings: str) -> Rows:
        backbones = {}
        if start == DRAWN:
            backbones[recipes.find('small').backbone] = args.backbone
            settings = (*settings, 'init=imagenet')
        return replace(
            every,
            out=every.out / name,
            train_index=train,
            settings=(_BATCH, *settings),
            validations=0,
            backbones=backbones,
        )

    effects = rows('effects', every.train_index, RANDOM, f'iterations={args.iterations}')
    names = dict.fromkeys(name for effect in EFFECTS for name in (effect.against, effect.row))
    trainings = [(effects, name, seed) for seed in args.seeds for name in names]
    for n, iterations in LENGTHS.items():
        subset, _ = split(every.train_index, args.out / 'data' / f'{n}', n, 1)
        for start in RANDOM, DRAWN:
            part = rows(f'{n}-{start}', subset, start, f'iterations={iterations}')
            trainings.append((part, 'small', 0))
    for start in RANDOM, DRAWN:
        trainings.append((rows(f'all-{start}', every.train_index, start), 'small', 0))
    return trainings


def restore(rows: Mapping[Path, Rows], out: Path, data: str, given: Path) -> None:
    """Write the runs of a file as finished runs, unless their recipes have changed.

    Args:
        rows (mapping): The settings of the runs by their directory.
        out (path): Directory of all runs.
        data (str): Identifies the photographs.
        given (path): Written by :func:`~study.results.write_results`.

    Raises:
        InputError: The file cannot be read, or its runs were trained on other photographs.
    """
    their_data, lines = read_results(given)
    if their_data != data:
        raise InputError(f'{given}: its runs used other photographs; omit --given to run all')
    for line in lines:
        directory = out / line['run']
        part = rows.get(directory.parents[1])
        if (
            part is not None
            and not (directory / 'recipe.json').exists()
            and is_current(part, line['recipe'], line['facts'])
        ):
            restore_run(line, directory)


def split(index: Path, out: Path, train: int, val: int) -> tuple[Path, Path]:
    """Split an index by class, unless that is done."""
    paths = out / 'train.index', out / 'validation.index'
    if not all(path.exists() for path in paths):
        run_python(
            *('-m', 'pfdet', 'split', '--index', index, '--train', train, '--val', val),
            *('--out', out, '--seed', 0),
        )
    return paths


def parse_arguments() -> argparse.Namespace:
    parser = Parser(prog='python -m study.photographs', description=__doc__)
    add = parser.add_argument
    add('--index', type=Path, required=True, help='annotation index of all photographs')
    add('--train', type=integer(1, 10**6), default=690, help='default: %(default)s')
    add('--val', type=integer(1, 10**6), default=173, help='default: %(default)s')
    add('--out', type=Path, default=Path('photograph_runs'), help='default: %(default)s')
    add('--seeds', type=SEED, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    add(
        '--iterations',
        type=integer(1, 10**6),
        default=1500,
        help='length of the runs that are compared (default: %(default)s)',
    )
    add_jobs(parser)
    add(
        '--backbone',
        type=Path,
        default=Path('docs/study/backbone.npz'),
        help='of drawn scenes (default: %(default)s)',
    )
    add('--given', type=Path, help='results of earlier runs, which are not repeated')
    docs = Path('docs')
    add(
        '--results',
        type=Path,
        default=docs / 'study' / 'photographs.jsonl',
        help='default: %(default)s',
    )
    add('--page', type=Path, default=docs / 'photographs.md', help='default: %(default)s')
    add(
        '--notes',
        type=Path,
        default=docs / 'study' / 'photographs-notes.md',
        help='Markdown that the page begins with (default: %(default)s)',
    )
    return parser.parse_args()


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    run_command(main)
