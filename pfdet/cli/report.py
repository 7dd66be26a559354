"""Write a page about one training run: figures, images with detections, curves, AP and errors.

    pfdet report RUN --index validation.index --train-index train.index

The page needs the run's detections in the validation set, detections.parquet or validation.parquet
of pfdet predict, to show images and errors; and score.json of pfdet score, which is computed from
the detections and the index if it is missing. Sections without data are omitted.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.flags import Parser, integer

#: File names of a run's detections in the validation set, in order of preference.
DETECTIONS = ('detections.parquet', 'validation.parquet')


def main() -> None:
    args = parse_arguments()
    detections = args.detections or detections_of(args.run)
    if detections is None:
        print(
            f'{args.run}: no {" or ".join(DETECTIONS)}; the page shows no images and errors',
            file=sys.stderr,
        )
    elif args.index is None:
        print(
            'no --index, the index of the validation set; the page shows no images and errors',
            file=sys.stderr,
        )
    out = args.out or args.run / 'report.html'
    score = write_report_of_run(
        out,
        args.run,
        index=args.index,
        train_index=args.train_index,
        detections=detections,
        score_file=args.score,
        title=args.title,
        n_example=args.images,
    )
    text = 'no class has ground truth' if score['mAP'] is None else f'mAP {score["mAP"]:.3f}'
    print(f'{out}: {text}')


def detections_of(run: Path) -> Path | None:
    """The file of a run's detections in the validation set, if it has one."""
    return next((run / name for name in DETECTIONS if (run / name).exists()), None)


def write_report_of_run(
    out: Path,
    run: Path,
    *,
    index: Path | None = None,
    train_index: Path | None = None,
    detections: Path | None = None,
    score_file: Path | None = None,
    title: str | None = None,
    facts: Mapping[str, Any] | None = None,
    command: str | None = None,
    n_example: int = 12,
) -> Mapping[str, Any]:
    """Write the page of a run.

    Args:
        out (path): The HTML file.
        run (path): Output directory of the run.
        index (path): Index of the validation set.
        train_index (path): Index of the training set, for the number of images per class.
        detections (path): Detections in the validation set.
        score_file (path): Their score; by default ``score.json`` of the run. A score that is
            missing there is computed from detections and index.
        title (str): By default the name of the recipe.
        facts (mapping): Further key figures, before those of the run.
        command (str): The command that made the run.
        n_example (int): Number of validation images to show.

    Returns:
        mapping: The score.

    Raises:
        InputError: A file cannot be read, or there is neither a score nor what it is computed from.
    """
    from pfdet.evaluation.class_groups import training_images
    from pfdet.evaluation.detections import read_detections
    from pfdet.evaluation.run_directory import read_run
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.report.examples import error_examples, example_images
    from pfdet.report.run_page import write_report

    opened = found = None
    if index is not None:
        opened = AnnotationIndex.open(index)
        if detections is not None:
            found = read_detections(detections, opened.classes)
    path = score_file or run / 'score.json'
    score = None
    if score_file is None and not path.exists():
        if found is None:
            raise InputError(
                f'{path}: missing; expected that of pfdet score, or detections in {run} and '
                '--index INDEX, of which it is computed'
            )
        score = _score(opened, found)
    content = read_run(run, path.absolute(), score)
    examples, errors = [], []
    if found is not None:
        examples = example_images(opened, found, n_example)
        errors = error_examples(opened, found, content.score)
    own = {
        'Training images': content.facts.get('images'),
        'Validation images': None if opened is None else len(opened),
        'Ranks': content.facts.get('ranks'),
        'Iterations': content.facts.get('iterations'),
        'Seed': content.seed,
    }
    write_report(
        out,
        title or f'{content.name}, {run.resolve().name}',
        content.recipe,
        content.log,
        content.score,
        examples,
        errors=errors,
        frequency=None
        if train_index is None
        else training_images(AnnotationIndex.open(train_index)),
        run=content.facts,
        facts={
            **(facts or {}),
            **{name: value for name, value in own.items() if value is not None},
        },
        command=command,
    )
    return content.score


def _score(index, detections) -> dict[str, Any]:
    from pfdet.evaluation.average_precision import average_precision, score_dict
    from pfdet.evaluation.ground_truth import ground_truth_of_index

    result = average_precision(detections, ground_truth_of_index(index), len(index.classes))
    return score_dict(result, index.classes, index.hierarchy)


def parse_arguments() -> argparse.Namespace:
    """Parse and check the arguments."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add('run', type=Path, metavar='RUN', help='--out directory of a training run')
    add('--index', type=Path, metavar='INDEX', help='validation set, to show images and errors')
    add(
        '--train-index',
        type=Path,
        metavar='INDEX',
        help='training set, for the number of images per class (default: validation boxes)',
    )
    add(
        '--detections',
        type=Path,
        metavar='FILE',
        help=f'detections in the validation set (default: {" or ".join(DETECTIONS)} of RUN)',
    )
    add('--score', type=Path, metavar='FILE', help='their score (default: score.json of RUN)')
    add('--out', type=Path, metavar='FILE', help='the page (default: report.html in RUN)')
    add('--title', metavar='TEXT', help='heading (default: the recipe and the directory)')
    add(
        '--images',
        type=integer(0, 10_000),
        default=12,
        metavar='N',
        help='number of images to show (default: %(default)s)',
    )
    return parser.parse_args()
