"""Writing a submission: time and peak memory against reading the same submission for validation.

    python benchmarks/submission.py [--check]
    python benchmarks/submission.py --detections 12000000 --shuffle

Input: images with 300 detections each over the 500 classes, as a Parquet file sorted by image, and
with --shuffle also the same rows in random order. The commands take turns in processes of their
own: pfdet make-submission, which reads, formats, writes and validates, and pfdet
validate-submission on its output. Memory is the peak of the whole process. It must not grow with
the number of detections, so a quarter of the images is measured, too.

12 million detections (Python 3.11, NumPy 2.4, pyarrow 26): make-submission takes 2.1 times the
processor time of validate-submission, since it validates, too, and 0.29 GB against 0.21 GB. For
shuffled rows it takes 4.0 times, and 0.29 GB.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from timing import Table, add_check, costs_in_turns, megabytes_text, status

from pfdet.evaluation.detections import Detections, detections_writer
from pfdet.openimages.classes import challenge_classes

ROOT = Path(__file__).resolve().parents[1]
CLASSES = challenge_classes()
PER_IMAGE = 300
IMAGES_AT_ONCE = 500
# Times the cost of validate-submission
TIME_GOAL, SHUFFLED_GOAL, MEMORY_GOAL = 3, 6, 2
# Times the memory for a quarter of the images
GROWTH_GOAL = 1.5


def draw(path: Path, n_image: int) -> None:
    """Write a file of random detections, sorted by image."""
    with detections_writer(path, CLASSES) as write:
        for begin in range(0, n_image, IMAGES_AT_ONCE):
            n = min(IMAGES_AT_ONCE, n_image - begin)
            rng = np.random.default_rng(begin)
            corner = np.sort(rng.random((n * PER_IMAGE, 2, 2), np.float32), axis=1)
            write(
                Detections(
                    [f'{i:016x}' for i in range(begin, begin + n)],
                    np.repeat(np.arange(n, dtype=np.int32), PER_IMAGE),
                    rng.integers(0, len(CLASSES), n * PER_IMAGE, np.int32),
                    rng.random(n * PER_IMAGE, np.float32),
                    corner.reshape(-1, 4),
                )
            )


def shuffle(path: Path, out: Path) -> None:
    """Write the rows of a file in random order."""
    table = pq.read_table(path)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), out)


def _apart(function: Callable, *args: object) -> None:
    # In another process: the peak memory of a child includes what its parent holds at the fork.
    process = multiprocessing.get_context('spawn').Process(target=function, args=args)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f'{function.__name__} failed')


def command(name: str, *args: object) -> list[object]:
    """A command of pfdet."""
    return [sys.executable, '-m', 'pfdet', name, *args]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--detections', type=int, default=1_200_000, metavar='N')
    parser.add_argument('--rounds', type=int, default=3, help='default: %(default)s')
    parser.add_argument('--shuffle', action='store_true', help='also rows in random order')
    add_check(parser)
    args = parser.parse_args()
    n_image = max(args.detections // PER_IMAGE, 4)
    with tempfile.TemporaryDirectory() as name:
        given, quarter, shuffled = (Path(name) / f'{f}.parquet' for f in ('all', 'part', 'mixed'))
        out, other = Path(name) / 'all.csv', Path(name) / 'other.csv'
        _apart(draw, given, n_image)
        _apart(draw, quarter, n_image // 4)
        commands = {
            'make': command('make-submission', '--detections', given, '--out', out),
            'quarter': command('make-submission', '--detections', quarter, '--out', other),
        }
        if args.shuffle:
            _apart(shuffle, given, shuffled)
            commands['shuffled'] = command(
                'make-submission', '--detections', shuffled, '--out', other
            )
        options = {
            'env': {**os.environ, 'PYTHONPATH': str(ROOT)},
            'stdout': subprocess.DEVNULL,
        }
        # The file to validate; not counted.
        costs_in_turns({'make': commands['make']}, 1, **options)
        commands['validate'] = command('validate-submission', out)
        costs = costs_in_turns(commands, args.rounds, **options)
        size = out.stat().st_size / 1e6
    print(f'{n_image * PER_IMAGE:,} detections in {n_image:,} images, {size:.0f} MB of text')
    table = Table()
    validate, make = costs['validate'], costs['make']
    kinds = [('make-submission', make, TIME_GOAL)]
    if args.shuffle:
        kinds.append(('make-submission, shuffled rows', costs['shuffled'], SHUFFLED_GOAL))
    for title, cost, goal in kinds:
        table.share(title, cost.processor, validate.processor, 'validate-submission', goal)
        table.share(
            '  peak memory',
            cost.memory,
            validate.memory,
            'validate-submission',
            MEMORY_GOAL,
            megabytes_text,
        )
    table.share(
        'make-submission, peak memory',
        make.memory,
        costs['quarter'].memory,
        'a quarter of the images',
        GROWTH_GOAL,
        megabytes_text,
    )
    return status(table.missed, args.check)


if __name__ == '__main__':
    sys.exit(main())
