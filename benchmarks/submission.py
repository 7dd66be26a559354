"""Writing a submission: time and peak memory against reading the same submission for validation.

    python benchmarks/submission.py
    python benchmarks/submission.py --detections 12000000

Input: images with 300 detections each over the 500 classes, as a Parquet file sorted by image, and
with --shuffle also the same rows in random order. The commands run one after another in processes
of their own: pfdet make-submission, which reads, formats, writes and validates, and pfdet
validate-submission on its output. Both are repeated, and the fastest run of each counts. Memory is
the peak of the whole process. It must not grow with the number of detections, so a quarter of the
images is measured, too.

12 million detections, on two busy cores (Python 3.11, NumPy 2.4, pyarrow 26): make-submission takes
2.1 times the processor time of validate-submission (14.6 s and 6.9 s), since it validates, too, and
0.29 GB against 0.21 GB. For shuffled rows it takes 4.0 times (27.5 s) and 0.29 GB.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from pfdet.evaluation.detections import Detections, detections_writer
from pfdet.openimages.classes import challenge_classes

ROOT = Path(__file__).resolve().parents[1]
CLASSES = challenge_classes()
PER_IMAGE = 300
IMAGES_AT_ONCE = 500


class Cost(NamedTuple):
    """Of one process: wall-clock and processor time in seconds, and peak memory in GB."""

    wall: float
    processor: float
    memory: float


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


def run(command: str, *args: object, repeat: int = 1) -> Cost:
    """Run a command of pfdet several times; the lowest costs."""
    costs = []
    for _ in range(repeat):
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, '-m', 'pfdet', command, *map(str, args)],
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f'pfdet {command} ended with {os.waitstatus_to_exitcode(status)}')
        unit = 1 if sys.platform == 'darwin' else 1024
        costs.append(
            Cost(
                time.perf_counter() - start,
                usage.ru_utime + usage.ru_stime,
                usage.ru_maxrss * unit / 1e9,
            )
        )
    return Cost(*map(min, zip(*costs)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--detections', type=int, default=1_200_000, metavar='N')
    parser.add_argument('--repeat', type=int, default=3, metavar='N')
    parser.add_argument('--shuffle', action='store_true', help='also rows in random order')
    args = parser.parse_args()
    n_image = max(args.detections // PER_IMAGE, 4)
    with tempfile.TemporaryDirectory() as name:
        given, quarter, out = (Path(name) / f for f in ('d.parquet', 'q.parquet', 's.csv'))
        _apart(draw, given, n_image)
        _apart(draw, quarter, n_image // 4)
        writing = '--out', out, '--detections'
        small = run('make-submission', *writing, quarter, repeat=args.repeat)
        made = run('make-submission', *writing, given, repeat=args.repeat)
        read = run('validate-submission', out, repeat=args.repeat)
        rows = [('make-submission', made), ('validate-submission', read)]
        rows.append(('make-submission of a quarter', small))
        if args.shuffle:
            _apart(shuffle, given, quarter)
            sorting = run('make-submission', *writing, quarter, repeat=args.repeat)
            rows.insert(1, ('make-submission of shuffled rows', sorting))
        size = out.stat().st_size / 1e6
    print(f'{n_image * PER_IMAGE:,} detections in {n_image:,} images, {size:.0f} MB of text')
    for text, cost in rows:
        print(
            f'  {text:34} {cost.wall:6.1f} s, {cost.processor:6.1f} s of processor time, '
            f'{cost.memory:.2f} GB'
        )
    print('  ratios to validate-submission')
    for text, cost in rows[:-1]:
        if cost is not read:
            print(
                f'  {text:34} {cost.wall / read.wall:6.2f}   '
                f'{cost.processor / read.processor:6.2f}                      '
                f'{cost.memory / read.memory:.2f}'
            )


if __name__ == '__main__':
    main()
