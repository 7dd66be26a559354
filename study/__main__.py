"""The papers' claims at mini scale: ``make study``.

Draws MiniOpenImages, trains and scores the rows of both papers' tables on it, experts and
ensembles, and writes what came out beside what the papers say. Every step is a command that is
printed before it runs. It takes hours on two cores; ended, it goes on where it was when run again,
and ``--report`` writes the page from what there is. ``--given docs/study/results.jsonl`` leaves out
what has been run elsewhere, and ``--row NAME`` runs one row on all cores.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pfdet import recipes
from pfdet.errors import InputError, run_command
from pfdet.recipes.paper_tables import table_of
from pfdet.subprocesses import run_python
from pfdet.training.table_runs import Rows
from study.expert_ensembles import experts_and_ensembles, ways_of_testing
from study.fit import score_training_images
from study.results import digest, read_results, restore_results, write_results

DEFAULT_REPORT = Path('docs/study.md')
# Parts of the plan that are no single rows.
PARTS = EXPERTS, TESTING, FIT = (
    'experts and ensembles',
    'ways of testing',
    'fit to the training images',
)
# Rows by how much of the papers' claims stands on them, each with its seeds: what is first is run
# first. A row that is trained as another is takes a minute.
PLAN = (
    # Losses: co-occurrence, concurrent softmax in training and in testing; sampling
    *(
        (name, seed)
        for seed in range(3)
        for name in (
            'mini',
            'mini-without-cooccurrence',
            'cs-table1-softmax-balanced',
            'cs-table1-concurrent-balanced',
        )
    ),
    *((name, seed) for seed in range(2) for name in ('cs-table1-softmax', 'cs-table3-soft-0.7')),
    *(
        (name, seed)
        for seed in range(3)
        for name in (
            'cs-table2-softmax-softmax',
            'cs-table2-softmax-concurrent',
            'cs-table2-concurrent-softmax',
            'cs-table2-concurrent-concurrent',
            'cs-table3-class-aware',
            'cs-table4-class-aware-7',
        )
    ),
    *(
        (name, seed)
        for seed in range(2)
        for name in ('cs-table3-non-balance', 'cs-table4-non-balance-7')
    ),
    ('cs-table1-bce', 0),
    ('cs-table1-co-bce', 0),
    *((TESTING, seed) for seed in range(3)),
    # Experts, and schedules: first what others begin with, so that none waits for another
    ('cs-table4-scratch-20', 0),
    (EXPERTS, 0),
    ('cs-table4-hybrid-s20', 0),
    ('cs-table4-soft-balance', 0),
    ('cs-table4-soft-balance-concurrent', 0),
    # What is left of the second paper's Tables 1 and 3
    ('cs-table1-concurrent', 0),
    ('cs-table1-focal', 0),
    ('cs-table1-dist-ce', 0),
    ('cs-table3-effective-number', 0),
    ('cs-table3-soft-1.5', 0),
    ('cs-table3-soft-0.3', 0),
    ('cs-table3-soft-0.5', 0),
    ('cs-table3-soft-1.0', 0),
    # Longer schedules
    ('cs-table4-non-balance-14', 0),
    ('cs-table4-class-aware-14', 0),
    # PFDet's Table 1, step by step
    *(
        (f'table1-{row}', 0)
        for row in (
            'baseline',
            'multiscale',
            'psp',
            'cosine',
            'scale',
            'cooccurrence',
            'epochs',
            'context',
            'senet154',
        )
    ),
    (FIT, 0),
    ('table3-baseline', 0),
    ('table3-cooccurrence', 0),
    ('cs-table4-hybrid-i14', 0),
    # Further seeds, and what is left of Table 4
    ('cs-table1-bce', 1),
    ('cs-table1-co-bce', 1),
    ('cs-table1-concurrent', 1),
    *(
        (name, 2)
        for name in (
            'cs-table1-softmax',
            'cs-table3-soft-0.7',
            'cs-table3-non-balance',
            'cs-table4-non-balance-7',
        )
    ),
    (EXPERTS, 1),
    (EXPERTS, 2),
    *(
        (f'cs-table4-{row}', 1)
        for row in (
            'scratch-20',
            'non-balance-14',
            'class-aware-14',
            'hybrid-s20',
            'soft-balance',
            'soft-balance-concurrent',
            'hybrid-i14',
        )
    ),
    *(
        (name, 1)
        for name in (
            'cs-table3-soft-0.3',
            'cs-table3-soft-1.5',
            'cs-table1-focal',
            'cs-table1-dist-ce',
            'cs-table3-effective-number',
        )
    ),
    *(
        (f'table1-{row}', 1)
        for row in ('psp', 'cosine', 'scale', 'cooccurrence', 'baseline', 'multiscale')
    ),
    ('cs-table4-non-balance-11', 0),
    ('cs-table4-non-balance-16', 0),
    *((name, 2) for name in ('cs-table1-concurrent', 'cs-table1-bce', 'cs-table1-co-bce')),
)
# Rows whose validation mAP is followed while training, for Peng et al., figure 4.
CURVES = tuple({name: 0 for name, _ in PLAN if name.startswith('cs-table3-')})
# Annotators of Open Images look for what an image classifier has suggested, mostly large parts.
PROMINENT = ('--parts-prominent', 0.8)
# Images an update, of all ranks.
BATCH = 8


def main() -> None:
    args = parse_arguments()
    if args.row is not None:
        one_row(args)
        return
    for name in args.only:
        if name not in {planned for planned, _ in PLAN}:
            raise InputError(
                f'--only {name}: not in the plan of the study; expected {", ".join(dict(PLAN))}'
            )
    indexes = draw(args.out / 'data', args.images, args.seed)
    data = digest(args.out / 'data')
    backbone = args.backbone or pretrain(args.out, indexes['pretraining'])
    rows = Rows(
        args.out / 'runs',
        indexes['train'],
        indexes['validation'],
        'mini',
        1,
        (f'batch_size={BATCH}',),
        4,
        CURVES,
        backbone,
    )
    if args.given is not None:
        n = restore_results(rows, data, args.given)
        print(f'{n} runs are those of {args.given}', flush=True)
    try:
        if not args.report:
            work(rows, indexes, args.jobs, args.only)
    finally:
        # Also of what was done until it was interrupted.
        from study.report import write_report

        if next(rows.out.rglob('score.json'), None) is not None:
            write_results(rows, data, beside(args.report_to, 'results.jsonl'))
            if backbone != beside(args.report_to, 'backbone.npz'):
                shutil.copyfile(backbone, beside(args.report_to, 'backbone.npz'))
            write_report(rows, args.report_to, 'make study')


def one_row(args: argparse.Namespace) -> None:
    """Run one row on all cores, and print it beside the paper's figure and the study's."""
    # Experts are trained by train_experts.py, and many make a row.
    known = [
        row.name for key, table in recipes.TABLES.items() if key != 'experts' for row in table.rows
    ]
    if args.row not in known:
        raise InputError(f'--row {args.row}: no such row; expected one of {", ".join(known)}')
    backbone = args.backbone or beside(DEFAULT_REPORT, 'backbone.npz')
    trained = backbone.exists()
    indexes = draw(
        args.out / 'data',
        args.images,
        args.seed,
        ('first',) if trained else ('first', 'pretraining'),
    )
    ranks = next(n for n in (8, 4, 2, 1) if n <= args.jobs)
    rows = Rows(
        args.out / f'on-{ranks}-ranks',
        indexes['train'],
        indexes['validation'],
        'mini',
        ranks,
        (f'batch_size={BATCH // ranks}',),
        0,
        backbone=backbone if trained else pretrain(args.out, indexes['pretraining']),
    )
    score = json.loads((rows.run(args.row, 0) / 'score.json').read_text(encoding='utf-8'))
    said = [f'{100 * score["mAP"]:.1f} here']
    results = args.given or beside(DEFAULT_REPORT, 'results.jsonl')
    if results.exists():
        values = [
            100 * line['scores']['score']['mAP']
            for line in read_results(results)[1]
            if line['recipe']['name'] == args.row
        ]
        if values:
            said.append(', '.join(f'{v:.1f}' for v in values) + ' in the study')
    table = table_of(args.row)
    if table is not None and table.row(args.row).values[0] is not None:
        said.append(f'{table.row(args.row).values[0]:.1f} at full scale in {table.title}')
    print(f'{args.row}, mAP in %: ' + '; '.join(said))


def beside(report: Path, name: str) -> Path:
    """Where a page has its figures, the results it tells of and the backbone they began with."""
    return report.with_suffix('') / name


def draw(
    data: Path,
    n_image: int,
    seed: int,
    wanted: Sequence[str] = ('pretraining', 'first', 'test', 'second'),
) -> dict[str, Path]:
    """Draw the data sets of the study and compile them to indexes.

    Args:
        data (path): Where they go; what is there stays.
        n_image (int): Images to train on; a fourth as many to validate.
        seed (int): Of the worlds.
        wanted (sequence of str): Which worlds.

    Returns:
        dict: The indexes ``'train'`` and ``'validation'``; ``'test'``, of other images than those
        that class weights are found on; ``'second'``, another training set in which annotators
        have looked for every class, as COCO's do; and ``'pretraining'``, of all classes nearly as
        many, to begin with as the papers begin with ImageNet.
    """
    worlds = {
        'first': ('--seed', seed, *PROMINENT),
        'test': ('--seed', seed + 1, '--images', 4),
        'second': (
            '--seed',
            seed + 2,
            '--parts-verified',
            1,
            '--parent-only',
            0,
            '--negatives',
            60,
            '--validation-images',
            1,
        ),
        'pretraining': (
            '--seed',
            seed + 3,
            '--parts-verified',
            1,
            '--parent-only',
            0,
            '--negatives',
            60,
            '--tail',
            0.2,
            '--validation-images',
            150,
        ),
    }
    indexes = {
        'train': ('first', 'train'),
        'validation': ('first', 'validation'),
        'test': ('test', 'validation'),
        'second': ('second', 'train'),
        'pretraining': ('pretraining', 'train'),
    }
    for name in wanted:
        if not (data / name).exists():
            run_python(
                '-m',
                'pfdet.openimages.make_mini',
                '--out',
                data / name,
                '--images',
                n_image,
                '--validation-images',
                n_image // 4,
                *worlds[name],
                quiet=True,
            )
    found = {}
    for key, (world, split) in indexes.items():
        if world not in wanted:
            continue
        source, found[key] = data / world, data / f'{key}.index'
        if not found[key].exists():
            run_python(
                '-m',
                'pfdet.openimages.build_index',
                '--boxes',
                source / f'{split}-annotations-bbox.csv',
                '--labels',
                source / f'{split}-annotations-human-imagelabels.csv',
                '--classes',
                source / 'class-descriptions.csv',
                '--hierarchy',
                source / 'hierarchy.json',
                '--images',
                source / split,
                '--out',
                found[key],
                quiet=True,
            )
    return found


def pretrain(out: Path, index: Path) -> Path:
    """Train the backbone that stands in for one trained on ImageNet, if it is not there yet.

    It is the backbone of a detector, whose other parts are left behind.

    Args:
        out (path): Of the study; the detector goes below it.
        index (path): What to train on.

    Returns:
        pathlib.Path: The backbone's weights.
    """
    run, backbone = out / 'pretraining', out / 'backbone.npz'
    if not backbone.exists():
        if not (run / 'model.npz').exists():
            run_python(
                '-m',
                'pfdet',
                'train',
                '--recipe',
                'mini',
                '--set',
                'epochs=12',
                f'batch_size={BATCH // 2}',
                '--seed',
                3,
                '--train-index',
                index,
                '--out',
                run,
                '--resume',
                ranks=2,
                log=run / 'output.txt',
            )
        run_python(
            '-m',
            'pfdet.links.convert',
            '--arch',
            recipes.find('mini').backbone,
            '--weights',
            run / 'model.npz',
            '--out',
            backbone,
            quiet=True,
        )
    return backbone


def work(rows: Rows, indexes: dict[str, Path], jobs: int, only: Sequence[str] = ()) -> None:
    """Do all of the plan that is not done yet.

    Args:
        rows (Rows): Where and how.
        indexes (dict): See :func:`draw`.
        jobs (int): Runs side by side.
        only (sequence of str): Parts of the plan by name; by default all.
    """

    def part(name: str, seed: int) -> None:
        if name == EXPERTS:
            experts_and_ensembles(rows, indexes, seed)
        elif name == TESTING:
            ways_of_testing(rows, seed)
        elif name == FIT:
            score_training_images(rows, seed)
        else:
            rows.run(name, seed)

    planned = [(name, seed) for name, seed in PLAN if not only or name in only]
    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(part, name, seed) for name, seed in planned]
        try:
            for task in started:
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--out', type=Path, default=Path('study_runs'), help='default: %(default)s')
    add('--images', type=int, default=1000, help='to train on (default: %(default)s)')
    add('--seed', type=int, default=0, help='of the made world (default: %(default)s)')
    add(
        '--jobs',
        type=int,
        default=os.cpu_count() or 1,
        help='runs side by side, of one rank and thread each (default: %(default)s)',
    )
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
        help='results of an earlier study, such as docs/study/results.jsonl: what has them is not '
        'run again',
    )
    add(
        '--backbone',
        type=Path,
        metavar='FILE.npz',
        help='what rows begin with that the papers begin with ImageNet (default: it is trained '
        'first; for --row docs/study/backbone.npz)',
    )
    add('--row', metavar='NAME', help='run only this row, on all cores, in minutes')
    add('--report', action='store_true', help='only write the page from what there is')
    add('--report-to', type=Path, default=DEFAULT_REPORT, help='default: %(default)s')
    return parser.parse_args()


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    run_command(main)
