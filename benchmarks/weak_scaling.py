"""Weak scaling on CPUs: two ranks against one, one core per rank.

    python benchmarks/weak_scaling.py [--rounds 3] [--check] [-- OPTIONS OF train_multi.py]

Draws MiniOpenImages in a temporary folder and trains `--recipe mini`, with the same batch size per
rank and one thread per rank. The launcher pins every rank with its loader thread to one core, as on
a cluster; otherwise a single rank would load images on the other core. Runs of one and of two ranks
take turns. For comparison, two independent runs of one rank at the same time show what is lost to
shared caches, memory and other processes.

The counted iterations are one epoch of one rank, and two epochs of two ranks, so that both see the
same images. An iteration has the same images in every run of a kind, and other processes can only
slow it down, so the fastest of all runs counts. Prints the mean of these times, the mean of each
run, the efficiency (time of one rank over time of two), and the share of time in which a rank
waited for images. The goals are an efficiency of at least 0.90 and at most 1 % of waiting.

Ranks wait for each other many times in an iteration, so another process on one of the cores slows
both. The measurement needs two idle cores, and processor time does not replace them, because a
waiting rank computes, too. If the runs of one rank got less than 85 % of their core, other
processes had the rest, and the goals are not judged.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from timing import add_check, status

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / 'train' / 'train_multi.py'
BATCH_SIZE = 4
GOAL = 0.90
GOAL_WAITING = 0.01
# Below this share of the core, other processes slow the runs.
IDLE = 0.85


def draw_data(out: Path, n_image: int) -> Path:
    """Draw a training set; return the path of its index."""
    from pfdet.openimages.build_index import build_index
    from pfdet.openimages.make_mini import make_mini
    from pfdet.openimages.mini.knobs import Knobs

    with contextlib.redirect_stdout(io.StringIO()):
        make_mini(out, Knobs(images=n_image, validation_images=1), workers=1)
        build_index(
            out / 'train-annotations-bbox.csv',
            out / 'train-annotations-human-imagelabels.csv',
            out / 'class-descriptions.csv',
            out / 'hierarchy.json',
            out / 'train',
            out / 'train.index',
        )
    return out / 'train.index'


def start(
    index: Path, out: Path, n_rank: int, core: int, iterations: int, options: list[str]
) -> subprocess.Popen:
    """Start a training run on consecutive cores, from ``core`` on."""
    own_mpiexec = Path(sys.executable).with_name('mpiexec')
    launcher = str(own_mpiexec) if own_mpiexec.exists() else shutil.which('mpiexec')
    cores = ','.join(str(core + rank) for rank in range(n_rank))
    command = [
        launcher,
        '-bind-to',
        f'user:{cores}',
        '-n',
        str(n_rank),
        sys.executable,
        str(TRAIN),
        '--recipe',
        'mini',
        '--train-index',
        str(index),
        '--out',
        str(out),
        '--iterations',
        str(2 * iterations),
        '--log-interval',
        '1',
        '--snapshot-interval',
        '1000000',
        *options,
        '--set',
        f'batch_size={BATCH_SIZE}',
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=dict(os.environ, OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1', PYTHONPATH=str(ROOT)),
    )


class Run(NamedTuple):
    """A finished run.

    Attributes:
        seconds (list of float): Of every counted iteration.
        waiting (float): Share of time in which a rank waited for images.
        share (float): Processor time of all ranks over the time that their cores had.
    """

    seconds: list[float]
    waiting: float
    share: float


def result(child: subprocess.Popen, out: Path, n_rank: int, started: float) -> Run:
    """Wait for the end of a run, and read its log."""
    _, ended, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(ended)
    if child.returncode:
        raise SystemExit(f'a run failed with status {child.returncode}')
    entries = json.loads((out / 'log').read_text())
    # The first half is warm-up.
    half = len(entries) // 2
    ends = [entry['elapsed_time'] for entry in entries[half - 1 :]]
    seconds = [b - a for a, b in zip(ends, ends[1:], strict=False)]
    waited = sum(
        s * entry['waiting_for_data'] for s, entry in zip(seconds, entries[half:], strict=True)
    )
    shutil.rmtree(out)
    processor = usage.ru_utime + usage.ru_stime
    return Run(seconds, waited / sum(seconds), processor / (n_rank * wall))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--rounds', type=int, default=3, help='runs of each kind (default: %(default)s)'
    )
    parser.add_argument('--iterations', type=int, default=20, help='counted iterations per run')
    parser.add_argument('--no-pairs', action='store_true', help='skip the simultaneous runs')
    add_check(parser)
    parser.add_argument('options', nargs='*', help='options of train_multi.py')
    args = parser.parse_args()

    found: dict[str, list[Run]] = {}
    waits: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix='pfdet-scaling-') as temporary:
        folder = Path(temporary)
        index = draw_data(folder / 'data', BATCH_SIZE * args.iterations)
        cases = {'one rank': [(1, 0)], 'two ranks': [(2, 0)], 'two runs at once': [(1, 0), (1, 1)]}
        if args.no_pairs:
            del cases['two runs at once']
        for k in range(args.rounds):
            for name, runs in cases.items():
                outs = [folder / f'{k}-{i}' for i in range(len(runs))]
                started = time.perf_counter()
                children = [
                    start(index, out, n, core, args.iterations, args.options)
                    for out, (n, core) in zip(outs, runs, strict=True)
                ]
                results = [
                    result(child, out, n, started)
                    for child, out, (n, _) in zip(children, outs, runs, strict=True)
                ]
                found.setdefault(name, []).extend(results)
                waits.setdefault(name, []).append(max(run.waiting for run in results))
    return status(report(found, waits), args.check)


def report(found: dict[str, list[Run]], waits: dict[str, list[float]]) -> int:
    """Print the results; return the number of missed goals."""
    means = {}
    for name, runs in found.items():
        means[name] = statistics.mean(map(min, zip(*(run.seconds for run in runs), strict=True)))
        print(
            f'{name:18}{means[name]:8.3f} s per iteration  (runs '
            + ', '.join(f'{statistics.mean(run.seconds):.3f}' for run in runs)
            + f')  waiting for data {statistics.median(waits[name]):.2%}'
        )
    efficiency = means['one rank'] / means['two ranks']
    waiting = statistics.median(waits['two ranks'])
    if 'two runs at once' in means:
        print(
            f'efficiency of two runs at once: {means["one rank"] / means["two runs at once"]:.3f}'
        )
    share = max(run.share for run in found['one rank'])
    idle = share >= IDLE
    good = efficiency >= GOAL, waiting <= GOAL_WAITING
    verdicts = [('reached' if g else 'MISSED') if idle else 'not judged' for g in good]
    print(f'efficiency of two ranks: {efficiency:.3f}  goal at least {GOAL}: {verdicts[0]}')
    print(f'waiting for data: {waiting:.2%}  goal at most {GOAL_WAITING:.0%}: {verdicts[1]}')
    if not idle:
        print(
            f'other processes run on these cores: a rank alone got {share:.0%} of its core, and '
            f'the goals need {IDLE:.0%}'
        )
    return good.count(False) if idle else 0


if __name__ == '__main__':
    sys.exit(main())
