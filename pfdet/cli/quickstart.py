"""Data, training, prediction, score and report on a small drawn data set: make quickstart.

    pfdet quickstart --out quickstart --images 1000 --ranks 2

Each step is a command, printed before it runs, so that it can be typed again.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

from pfdet.flags import SEED, Parser, integer
from pfdet.subprocesses import flags, run_pfdet

SPLITS = ('train', 'validation')


def main() -> None:
    started = time.perf_counter()
    args = parse_arguments()
    out = args.out
    run, untrained, data = out / 'run', out / 'untrained', out / 'data'
    if not args.resume and (run / 'recipe.json').exists():
        shutil.rmtree(run)

    step('Draw a small Open Images: scenes, and what annotators would write of them')
    run_pfdet('make-mini', *flags(out=data, images=args.images, seed=args.seed), '--force')
    step('Compile the annotations to indexes')
    for split in SPLITS:
        index = out / f'{split}.index'
        run_pfdet('index', *annotations(data, split), *flags(images=data / split, out=index))

    step('Score an untrained network, for comparison')
    train = ['train', *flags(recipe='mini', seed=args.seed, train_index=out / 'train.index')]
    run_pfdet(*train, *flags(out=untrained, iterations=0))
    predict_and_score(out, untrained, args.ranks, quiet=True)
    step(f'Train on {args.ranks} ranks')
    run_pfdet(
        *train,
        *flags(val_index=out / 'validation.index', out=run),
        '--resume',
        *args.train_flags,
        ranks=args.ranks,
    )
    step('Detect, score, and write the Kaggle submission')
    predict_and_score(out, run, args.ranks)
    run_pfdet(
        'make-submission',
        *flags(detections=run / 'detections.parquet', classes=data / 'class-descriptions.csv'),
        *flags(out=out / 'submission.csv'),
    )

    step('Write the report')
    score, before = (json.loads((d / 'score.json').read_text()) for d in (run, untrained))
    seconds = time.perf_counter() - started
    report(out, before, seconds)
    print(
        f'quickstart: mAP={score["mAP"]:.2f} untrained={before["mAP"]:.2f} '
        f'submission={out / "submission.csv"} report={out / "report.html"} '
        f'seconds={seconds:.0f}'
    )


def annotations(data: Path, split: str) -> list[object]:
    """The flags that name the annotation files of a split."""
    return flags(
        boxes=data / f'{split}-annotations-bbox.csv',
        labels=data / f'{split}-annotations-human-imagelabels.csv',
        classes=data / 'class-descriptions.csv',
        hierarchy=data / 'hierarchy.json',
    )


def predict_and_score(out: Path, model: Path, ranks: int, quiet: bool = False) -> None:
    """Write ``detections.parquet`` and ``score.json`` of a model for the validation images."""
    detections = model / 'detections.parquet'
    index = out / 'validation.index'
    run_pfdet('predict', *flags(model=model, index=index, out=detections), ranks=ranks)
    run_pfdet(
        'score',
        *annotations(out / 'data', 'validation'),
        *flags(detections=detections, out=model / 'score.json'),
        quiet=quiet,
    )


def report(out: Path, before: dict, seconds: float, n_example: int = 12) -> None:
    """Write ``report.html`` of a finished quickstart.

    Args:
        out (path): The quickstart's directory.
        before (dict): ``score.json`` of the untrained network.
        seconds (float): Duration so far.
        n_example (int): Number of validation images to show.
    """
    from pfdet.cli.report import write_report_of_run

    run = json.loads((out / 'run' / 'recipe.json').read_text())
    random = run['run']['random_weights']
    write_report_of_run(
        out / 'report.html',
        out / 'run',
        index=out / 'validation.index',
        train_index=out / 'train.index',
        detections=out / 'run' / 'detections.parquet',
        title='MiniOpenImages, trained '
        + ('from random weights' if random else 'from given weights'),
        facts={'Untrained': f'{before["mAP"]:.3f}', 'Wall time': f'{seconds / 60:.1f} min'},
        command='make quickstart',
        n_example=n_example,
    )


def step(title: str) -> None:
    print(f'\n== {title}', flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add('--out', type=Path, default=Path('quickstart'), help='default: %(default)s')
    add(
        '--images',
        type=integer(1, 1_000_000),
        default=1000,
        help='training images (default: %(default)s)',
    )
    add('--ranks', type=integer(1, 1024), default=2, help='MPI ranks (default: %(default)s)')
    add('--seed', type=SEED, default=0, help='of data and training (default: %(default)s)')
    add('--resume', action='store_true', help='resume an interrupted training')
    add('train_flags', nargs='*', help='after --: arguments for pfdet train')
    return parser.parse_args()
