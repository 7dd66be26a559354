"""The whole way through once, on a made data set: ``make quickstart``.

Every step is a command of its own, printed before it runs, so that it can be typed again.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

from pfdet.subprocesses import run_python

SPLITS = ('train', 'validation')


def main() -> None:
    started = time.perf_counter()
    args = parse_arguments()
    out = args.out
    data = out / 'data'
    truth = [
        '--boxes',
        data / 'validation-annotations-bbox.csv',
        '--labels',
        data / 'validation-annotations-human-imagelabels.csv',
        '--classes',
        data / 'class-descriptions.csv',
        '--hierarchy',
        data / 'hierarchy.json',
    ]

    if not args.resume and (out / 'run' / 'recipe.json').exists():
        shutil.rmtree(out / 'run')
    step('Draw a small Open Images: scenes, and what annotators would write of them')
    run_python(
        '-m',
        'pfdet.openimages.make_mini',
        '--out',
        data,
        '--images',
        args.images,
        '--seed',
        args.seed,
        '--force',
    )
    step('Compile the annotations to indexes')
    for split in SPLITS:
        run_python(
            '-m',
            'pfdet.openimages.build_index',
            '--boxes',
            data / f'{split}-annotations-bbox.csv',
            '--labels',
            data / f'{split}-annotations-human-imagelabels.csv',
            '--classes',
            data / 'class-descriptions.csv',
            '--hierarchy',
            data / 'hierarchy.json',
            '--images',
            data / split,
            '--out',
            out / f'{split}.index',
        )

    step('Score a network that has learnt nothing, to have something to compare with')
    train = [
        '-m',
        'pfdet',
        'train',
        '--recipe',
        'mini',
        '--seed',
        args.seed,
        '--train-index',
        out / 'train.index',
    ]
    predict = ['-m', 'pfdet', 'predict', '--index', out / 'validation.index']
    untrained = out / 'untrained'
    run_python(*train, '--out', untrained, '--iterations', 0)
    run_python(
        *predict, '--model', untrained, '--out', untrained / 'detections.parquet', ranks=args.ranks
    )
    run_python(
        '-m',
        'pfdet',
        'score',
        *truth,
        '--detections',
        untrained / 'detections.parquet',
        '--out',
        untrained / 'score.json',
        quiet=True,
    )

    step(f'Train on {args.ranks} ranks')
    run = out / 'run'
    run_python(
        *train,
        '--val-index',
        out / 'validation.index',
        '--out',
        run,
        '--resume',
        *args.train_flags,
        ranks=args.ranks,
    )
    step('Detect, score, and write the Kaggle submission')
    detections = run / 'detections.parquet'
    run_python(*predict, '--model', run, '--out', detections, ranks=args.ranks)
    run_python(
        '-m', 'pfdet', 'score', *truth, '--detections', detections, '--out', run / 'score.json'
    )
    run_python(
        '-m',
        'pfdet',
        'make-submission',
        '--detections',
        detections,
        '--classes',
        data / 'class-descriptions.csv',
        '--out',
        out / 'submission.csv',
    )

    step('Write the report')
    score, before = (json.loads((d / 'score.json').read_text()) for d in (run, untrained))
    seconds = time.perf_counter() - started
    report(out, score, before, seconds)
    print(
        f'quickstart: mAP={score["mAP"]:.2f} untrained={before["mAP"]:.2f} '
        f'submission={out / "submission.csv"} report={out / "report.html"} '
        f'seconds={seconds:.0f}'
    )


def report(out: Path, score: dict, before: dict, seconds: float, n_example: int = 12) -> None:
    """Write ``report.html`` of a finished quickstart.

    Args:
        out (path): The quickstart's directory.
        score, before (dict): Of the trained and of the untrained network, as in ``score.json``.
        seconds (float): How long it took until here.
        n_example (int): Validation images to show.
    """
    from pfdet.evaluation.class_groups import training_images
    from pfdet.evaluation.detections import read_detections
    from pfdet.openimages.index import AnnotationIndex
    from pfdet.report.examples import class_samples, examples
    from pfdet.report.run_page import write_report

    index = AnnotationIndex.open(out / 'validation.index')
    run = json.loads((out / 'run' / 'recipe.json').read_text())
    detections = read_detections(out / 'run' / 'detections.parquet', index.classes)
    write_report(
        out / 'report.html',
        'MiniOpenImages, from nothing',
        run['recipe'],
        json.loads((out / 'run' / 'log').read_text()),
        score,
        examples(index, detections, n_example),
        errors=class_samples(index, detections, score),
        frequency=training_images(AnnotationIndex.open(out / 'train.index')),
        facts={
            'Untrained': f'{before["mAP"]:.3f}',
            'Training images': run['run']['images'],
            'Validation images': len(index),
            'Ranks': run['run']['ranks'],
            'Iterations': run['run']['iterations'],
            'Wall time': f'{seconds / 60:.1f} min',
        },
        command='make quickstart',
    )


def step(title: str) -> None:
    print(f'\n== {title}', flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--out', type=Path, default=Path('quickstart'), help='default: %(default)s')
    add('--images', type=int, default=1000, help='to train on (default: %(default)s)')
    add('--ranks', type=int, default=2, help='MPI ranks (default: %(default)s)')
    add('--seed', type=int, default=0)
    add('--resume', action='store_true', help='go on with the training of an interrupted one')
    add('train_flags', nargs='*', help='passed on to train_multi.py, after --')
    return parser.parse_args()
