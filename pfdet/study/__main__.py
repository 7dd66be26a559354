"""The papers' claims at mini scale: ``make study``.

Draws MiniOpenImages, trains and scores the rows of both papers' tables on it, experts and
ensembles, and writes what came out beside what the papers say. Every step is a command that is
printed before it runs. It takes hours on two cores; ended, it goes on where it was when run again,
and ``--report`` writes the page from what there is.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pfdet.commands import run_python
from pfdet.errors import run_command
from pfdet.study import experts
from pfdet.study.rows import Rows

# Seeds of a row, the most telling first: what claims stand on has three, what is long has one.
PLAN = (
    ('cs-table1-softmax', 3), ('cs-table1-concurrent', 3),
    ('cs-table1-softmax-balanced', 3), ('cs-table1-concurrent-balanced', 3),
    ('cs-table2-softmax-softmax', 3), ('cs-table2-softmax-concurrent', 3),
    ('cs-table2-concurrent-softmax', 3), ('cs-table2-concurrent-concurrent', 3),
    ('cs-table3-non-balance', 3), ('cs-table3-class-aware', 3), ('cs-table3-soft-0.7', 3),
    ('mini', 3), ('mini-without-cooccurrence', 3),
    ('cs-table4-scratch-20', 1), ('cs-table4-hybrid-s20', 1), ('cs-table4-soft-balance', 1),
    ('cs-table4-soft-balance-concurrent', 1),
    ('cs-table1-bce', 1), ('cs-table1-co-bce', 1), ('cs-table1-focal', 1),
    ('cs-table1-dist-ce', 1),
    ('cs-table3-effective-number', 1), ('cs-table3-soft-0.3', 1), ('cs-table3-soft-0.5', 1),
    ('cs-table3-soft-1.0', 1), ('cs-table3-soft-1.5', 1),
    ('table1-baseline', 1), ('table1-multiscale', 1), ('table1-psp', 1), ('table1-cosine', 1),
    ('table1-scale', 1), ('table1-cooccurrence', 1), ('table3-baseline', 1),
    ('table3-cooccurrence', 1), ('table1-epochs', 1), ('table1-context', 1),
    ('table1-senet154', 1),
    ('cs-table4-non-balance-7', 3), ('cs-table4-class-aware-7', 3),
    ('cs-table4-non-balance-11', 1), ('cs-table4-non-balance-14', 1),
    ('cs-table4-class-aware-14', 1), ('cs-table4-hybrid-i14', 1), ('cs-table4-non-balance-16', 1),
)


def main() -> None:
    args = parse_arguments()
    out = args.out
    indexes = draw(out / 'data', args.images, args.seed)
    rows = Rows(out / 'runs', indexes['train'], indexes['validation'], 'mini', 1,
                ('batch_size=8',))
    if not args.report:
        work(rows, indexes, args.jobs, args.seeds)
    from pfdet.study.report import write_report

    write_report(rows, args.report_to, 'make study')


def draw(data: Path, n_image: int, seed: int) -> dict[str, Path]:
    """Draw the data sets of the study and compile them to indexes.

    Returns:
        dict: The indexes ``'train'`` and ``'validation'``; ``'test'``, of other images than those
        that class weights are found on; and ``'second'``, another training set in which annotators
        have looked for every class, as COCO's do.
    """
    worlds = {
        'first': ('--seed', seed),
        'test': ('--seed', seed + 1, '--images', 4),
        'second': ('--seed', seed + 2, '--parts-verified', 1, '--parent-only', 0, '--negatives', 60,
                   '--validation-images', 1)}
    indexes = {'train': ('first', 'train'), 'validation': ('first', 'validation'),
               'test': ('test', 'validation'), 'second': ('second', 'train')}
    for name, flags in worlds.items():
        if not (data / name).exists():
            run_python('-m', 'pfdet.openimages.make_mini', '--out', data / name, '--images',
                       n_image, '--validation-images', n_image // 4, *flags, quiet=True)
    found = {}
    for key, (world, split) in indexes.items():
        source, found[key] = data / world, data / f'{key}.index'
        if not found[key].exists():
            run_python('-m', 'pfdet.openimages.build_index',
                       '--boxes', source / f'{split}-annotations-bbox.csv',
                       '--labels', source / f'{split}-annotations-human-imagelabels.csv',
                       '--classes', source / 'class-descriptions.csv',
                       '--hierarchy', source / 'hierarchy.json',
                       '--images', source / split, '--out', found[key], quiet=True)
    return found


def work(rows: Rows, indexes: dict[str, Path], jobs: int, seeds: int) -> None:
    """Do all that is not done yet, what is most telling first."""
    tasks = [partial(rows.run, name, seed) for seed in range(seeds)
             for name, n_seed in PLAN if seed < n_seed]
    tasks[len(PLAN):len(PLAN)] = [partial(experts_and_ensembles, rows, indexes, 0)]
    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(task) for task in tasks]
        try:
            for task in started:
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def experts_and_ensembles(rows: Rows, indexes: dict[str, Path], seed: int) -> None:
    """PFDet's Tables 2 and 4, and test-time augmentation and suppression.

    Args:
        rows (Rows): Where and how.
        indexes (dict): See :func:`draw`.
        seed (int): Of the full model.
    """
    full, index = rows.run(experts.FULL, seed), indexes['validation']
    for name, flags in (
            ('nms', ('--suppression', 'nms')),
            ('tta', ('--sizes', *experts.SIZES, '--flip')),
            ('tta-nms', ('--sizes', *experts.SIZES, '--flip', '--suppression', 'nms'))):
        if not (full / f'score-{name}.json').exists():
            rows.predict(full, full / f'detections-{name}.parquet', f'score-{name}', *flags)

    models = {'single': [full]}
    for size in (40, 20, 10):
        models[size] = experts.train_experts(rows, size, seed)
        experts.single_scale(rows, f'table4-class{size}', seed, models[size])
    models['others'] = [rows.trained(name, 0) for name in experts.OTHERS] + [
        rows.trained(experts.FULL, other) for other in (1, 2)]
    models['coco'] = [experts.train_on_second_source(rows, seed, indexes['second'])]

    for split in 'validation', 'test':
        together, score = [], 'score' if split == 'validation' else 'score-test'
        for name, key, about in (
                ('table2-single', 'single', 'the single model, augmented'),
                ('table2-class20-experts', 20, '+ class20 experts'),
                ('table2-class10-experts', 10, '+ class10 experts'),
                ('table2-all', 'others', '+ all the others except the second source'),
                ('table2-coco', 'coco', '+ the second source')):
            together += experts.outputs(rows, models[key], indexes[split], split)
            experts.ensemble(rows, name, about, seed, together, indexes[split], score)
        own = experts.own_scores(rows, together, index)
        experts.ensemble(rows, 'table2-class-weight', '+ class-weight ensemble', seed, together,
                         indexes[split], score, own)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--out', type=Path, default=Path('study'), help='default: %(default)s')
    add('--images', type=int, default=1000, help='to train on (default: %(default)s)')
    add('--seed', type=int, default=0, help='of the made world (default: %(default)s)')
    add('--seeds', type=int, default=3, help='most of a row (default: %(default)s)')
    add('--jobs', type=int, default=os.cpu_count() or 1,
        help='runs side by side, of one rank and thread each (default: %(default)s)')
    add('--report', action='store_true', help='only write the page from what there is')
    add('--report-to', type=Path, default=Path('docs/study.md'), help='default: %(default)s')
    return parser.parse_args()


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    run_command(main)
