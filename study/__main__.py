"""The papers' claims at mini scale: ``make study``.

Draws MiniOpenImages, trains and scores the rows of both papers' tables, experts and ensembles on
it, and writes a page that compares the results with the papers. Every step is a command that is
printed before it runs. All of it takes hours on two cores. After an interruption, the same command
resumes; ``--report`` only writes the page from the runs that exist. ``--given
docs/study/results.jsonl`` skips what has been run elsewhere, unless its recipe has changed since;
together with ``--report``, it makes the page of these results alone, whatever their recipes.
``--row NAME`` runs one row on all cores, and ``--notes`` lists which notes on the findings are
about the current results.
"""

import argparse
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pfdet import recipes
from pfdet.errors import InputError, run_command
from pfdet.flags import SEED, Parser, integer
from pfdet.recipes.paper_tables import table_of
from pfdet.training.tables.rows import Rows
from study.data import draw, pretrain
from study.expert_ensembles import experts_and_ensembles, ways_of_testing
from study.fit import score_training_images
from study.notes import NOTES, list_notes
from study.parallel import add_jobs, run_in_parallel
from study.plan import EXPERTS, FIT, PARTS, PLAN, TESTING, mini_rows
from study.results import digest, read_results, restore_results, write_results

DEFAULT_REPORT = Path('docs/study.md')


def main() -> None:
    args = parse_arguments()
    if args.notes is not None:
        list_notes(args.given or page_file(args.report_to, 'results.jsonl'), NOTES, args.notes)
        return
    if args.row is not None:
        run_one_row(args)
        return
    for name in args.only:
        if name not in {planned for planned, _ in PLAN}:
            raise InputError(
                f'--only {name}: not in the plan of the study; expected {", ".join(dict(PLAN))}'
            )
    indexes = draw(args.out / 'data', args.images, args.seed)
    data = digest(args.out / 'data')
    backbone = args.backbone or pretrain(args.out, indexes['pretraining'])
    with contextlib.ExitStack() as stack:
        runs = args.out / 'runs'
        if args.report and args.given is not None:
            # Runs of changed recipes must not be taken for those of a later study.
            runs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = mini_rows(runs, indexes['train'], indexes['validation'], backbone)
        if args.given is not None:
            n = restore_results(rows, data, args.given, changed=args.report)
            print(f'{n} runs taken from {args.given}', flush=True)
        try:
            if not args.report:
                execute_plan(rows, indexes, args.jobs, args.only)
        finally:
            # After an interruption too, from what was done until then.
            report(rows, data, backbone, args.report_to)


def report(rows: Rows, data: str, backbone: Path, page: Path) -> None:
    """Write the page, the results and the backbone, if there are finished runs.

    Args:
        rows (Rows): The runs.
        data (str): See :func:`~study.results.digest`.
        backbone (path): Weights that replace those of ImageNet.
        page (path): The page.
    """
    from study.report import write_report

    if next(rows.out.rglob('score.json'), None) is None:
        return
    write_results(rows, data, page_file(page, 'results.jsonl'))
    if backbone != page_file(page, 'backbone.npz'):
        shutil.copyfile(backbone, page_file(page, 'backbone.npz'))
    write_report(rows, page, 'make study', NOTES)


def run_one_row(args: argparse.Namespace) -> None:
    """Run one row on all cores, and print its mAP with those of the study and of the paper."""
    # Experts and ensembles are many trainings each: pfdet train-table runs them.
    names = [name for name, recipe in recipes.RECIPES.items() if not recipe.expert_size]
    if args.row not in names:
        raise InputError(f'--row {args.row}: no such row; expected one of {", ".join(names)}')
    backbone = args.backbone or page_file(DEFAULT_REPORT, 'backbone.npz')
    has_backbone = backbone.exists()
    indexes = draw(
        args.out / 'data',
        args.images,
        args.seed,
        ('first',) if has_backbone else ('first', 'pretraining'),
    )
    ranks = next(n for n in (8, 4, 2, 1) if n <= args.jobs)
    rows = mini_rows(
        args.out / f'on-{ranks}-ranks',
        indexes['train'],
        indexes['validation'],
        backbone if has_backbone else pretrain(args.out, indexes['pretraining']),
        ranks,
        validations=0,
    )
    score = json.loads((rows.run(args.row, 0) / 'score.json').read_text(encoding='utf-8'))
    parts = [f'{100 * score["mAP"]:.1f} here']
    results = args.given or page_file(DEFAULT_REPORT, 'results.jsonl')
    if results.exists():
        values = [
            100 * line['scores']['score']['mAP']
            for line in read_results(results)[1]
            if line['recipe']['name'] == args.row
        ]
        if values:
            parts.append(', '.join(f'{v:.1f}' for v in values) + ' in the study')
    table = table_of(args.row)
    if table is not None and table.row(args.row).values[0] is not None:
        parts.append(f'{table.row(args.row).values[0]:.1f} at full scale in {table.title}')
    print(f'{args.row}, mAP in %: ' + '; '.join(parts))


def page_file(report: Path, name: str) -> Path:
    """The path of a file that belongs to a page: plots, results or the backbone."""
    return report.with_suffix('') / name


def execute_plan(rows: Rows, indexes: dict[str, Path], jobs: int, only: Sequence[str] = ()) -> None:
    """Run everything in the plan that is not done yet.

    Args:
        rows (Rows): Where and how rows are run.
        indexes (dict): See :func:`~study.data.draw`.
        jobs (int): Number of parallel runs.
        only (sequence of str): Names in the plan to run, by default all.
    """

    def run(name: str, seed: int) -> None:
        if name == EXPERTS:
            experts_and_ensembles(rows, indexes, seed)
        elif name == TESTING:
            ways_of_testing(rows, seed)
        elif name == FIT:
            score_training_images(rows, seed)
        else:
            rows.run(name, seed)

    planned = [(name, seed) for name, seed in PLAN if not only or name in only]
    run_in_parallel([partial(run, name, seed) for name, seed in planned], jobs)


def parse_arguments() -> argparse.Namespace:
    parser = Parser(prog='python -m study', description=__doc__)
    add = parser.add_argument
    add('--out', type=Path, default=Path('study_runs'), help='default: %(default)s')
    add(
        '--images',
        type=integer(1, 1_000_000),
        default=1000,
        help='training images (default: %(default)s)',
    )
    add('--seed', type=SEED, default=0, help='of the synthetic data (default: %(default)s)')
    add_jobs(parser)
    add(
        '--only',
        nargs='+',
        default=[],
        metavar='ROW',
        help=f'rows of the tables, or {", ".join(map(repr, PARTS))} (default: all)',
    )
    add(
        '--given',
        type=Path,
        metavar='results.jsonl',
        help='results of an earlier study, such as docs/study/results.jsonl; runs in it are not '
        'repeated',
    )
    add(
        '--backbone',
        type=Path,
        metavar='FILE.npz',
        help='replaces the ImageNet weights that rows of the papers start from (default: it is '
        'trained first; with --row docs/study/backbone.npz)',
    )
    add('--row', metavar='NAME', help='run only this row, on all cores, in minutes')
    add('--report', action='store_true', help='only write the page from the runs that exist')
    add('--report-to', type=Path, default=DEFAULT_REPORT, help='default: %(default)s')
    add(
        '--notes',
        nargs='*',
        metavar='CLAIM',
        help=f'list the notes in {NOTES} with the digest of the results that each is about, and '
        'print the digest of the results of each CLAIM (a key of study/claims.json)',
    )
    return parser.parse_args()


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    run_command(main)
