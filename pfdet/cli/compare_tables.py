"""Compare runs with every table of both papers.

    pfdet compare-tables --runs runs --out report.html

Prints the tables that have runs, and writes an HTML page with these tables and plots. A run belongs
to the row that its recipe is named after. Several runs of a recipe count as seeds: their mean and
each value are given. Differences are between rows, as in the papers.
"""

import argparse
import sys
from pathlib import Path

from pfdet.atomic_write import replace_when_done
from pfdet.cli.report import DETECTIONS, detections_of
from pfdet.errors import InputError
from pfdet.evaluation.class_groups import training_images
from pfdet.evaluation.detections import read_detections
from pfdet.evaluation.run_directory import Run, find_runs
from pfdet.flags import Parser, integer
from pfdet.openimages.index import AnnotationIndex
from pfdet.report.comparison import compare, other_runs
from pfdet.report.comparison_page import write_comparison
from pfdet.report.comparison_text import markdown, omitted, terminal
from pfdet.report.examples import error_examples, example_images


def main() -> None:
    args = _parse_arguments()
    runs, unfinished = find_runs(args.runs, args.score)
    if not runs:
        raise InputError(f'{unfinished[0]}: no {args.score}; expected at least one scored run')
    frequency = None
    if args.train_index is not None:
        frequency = training_images(AnnotationIndex.open(args.train_index))
    compared, others = compare(runs, frequency), other_runs(runs)

    shown = _to_show(args, runs)
    images, errors = [], []
    if args.index is not None:
        detections = _detections_of(shown, args)
        if detections is not None:
            index = AnnotationIndex.open(args.index)
            found = read_detections(detections, index.classes)
            images = example_images(index, found, args.images)
            errors = error_examples(index, found, shown.score)
        else:
            names = args.detections or ' or '.join(DETECTIONS)
            print(f'{shown.path}: no {names}; the page shows no images', file=sys.stderr)
    write_comparison(
        args.out,
        compared,
        others,
        shown,
        examples=images,
        errors=errors,
        frequency=frequency,
        unfinished=unfinished,
    )
    if args.markdown is not None:
        with replace_when_done(args.markdown) as path:
            text = markdown([table for table in compared if table.n_run], others)
            path.write_text(f'{text}\n{omitted(compared)}\n', encoding='utf-8')
    print(terminal(compared, others))
    if unfinished:
        print(f'\nSkipped, without {args.score}: ' + ', '.join(map(str, unfinished)))
    print(f'\n{args.out}')


def _to_show(args: argparse.Namespace, runs: list[Run]) -> Run:
    if args.show is not None:
        for run in runs:
            if run.path.resolve() == args.show.resolve():
                return run
        raise InputError(f'{args.show}: --show expects one of the scored runs of --runs')
    detected = [run for run in runs if _detections_of(run, args) is not None]
    return max(detected or runs, key=lambda run: run.score['mAP'] or 0)


def _detections_of(run: Run, args: argparse.Namespace) -> Path | None:
    if args.detections is None:
        return detections_of(run.path)
    path = run.path / args.detections
    return path if path.exists() else None


def _parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        '--runs',
        type=Path,
        nargs='+',
        required=True,
        metavar='DIR',
        help='directories of runs, or directories that contain runs',
    )
    add('--out', type=Path, required=True, metavar='report.html')
    add('--markdown', type=Path, metavar='FILE', help='write the tables as Markdown, too')
    add(
        '--train-index',
        type=Path,
        metavar='INDEX',
        help='training set, to rank classes by their number of images for figure 5 and Table 4 '
        '(default: by their number of validation boxes)',
    )
    add(
        '--index',
        type=Path,
        metavar='INDEX',
        help='validation set, to show images with detections and the worst errors of a run',
    )
    add(
        '--show',
        type=Path,
        metavar='DIR',
        help='the run to show (default: the one with the highest mAP among those with detections)',
    )
    add(
        '--score',
        default='score.json',
        metavar='NAME',
        help="file name of a run's score (default: %(default)s)",
    )
    add(
        '--detections',
        metavar='NAME',
        help=f"file name of a run's detections (default: {' or '.join(DETECTIONS)})",
    )
    add(
        '--images',
        type=integer(0, 10_000),
        default=12,
        metavar='N',
        help='number of images to show (default: %(default)s)',
    )
    return parser.parse_args()
