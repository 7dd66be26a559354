"""Weak scaling: two ranks that train on twice the images, against one, each on a core of its own.

    python benchmarks/weak_scaling.py [--repeat 3] [--iterations 20] [-- OPTIONS OF train_multi.py]

Draws MiniOpenImages in a temporary folder and trains `--recipe mini` there, with the same batch a
rank, one thread a rank, and every rank and its loader thread pinned to one core by the launcher, as
on a cluster: without pinning, one rank has the other's core for loading. Runs of one rank and of
two take turns. For comparison, two runs of one rank at the same time, which send each other
nothing: what they lose, they lose to shared caches, memory and whatever else the machine does.

The iterations that count are one epoch of one rank, and two epochs of two: the same images, not by
chance wider ones. An iteration has the same images in every run of a kind, so what else the machine
does only adds to some of its times: the quickest of all runs counts. Prints the mean of these over
the iterations, and each run's own mean; the efficiency, one rank's time over that of two; and the
share of the time in which some rank waited for its images. The exit status is 1 if a goal is
missed: efficiency at least 0.90, and at most 1 % waiting.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / 'train' / 'train_multi.py'
BATCH_SIZE = 4
GOAL = 0.90
GOAL_WAITING = 0.01


def make_data(out: Path, n_image: int) -> Path:
    """Draw a training set; return its index."""
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
    """Begin a training run on some cores from ``core`` on."""
    beside = Path(sys.executable).with_name('mpiexec')
    launcher = str(beside) if beside.exists() else shutil.which('mpiexec')
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


def result(child: subprocess.Popen, out: Path) -> tuple[list[float], float]:
    """Seconds of every iteration that counts, and the share of waiting."""
    if child.wait():
        raise SystemExit(f'a run has failed with status {child.returncode}')
    entries = json.loads((out / 'log').read_text())
    # The first half is to warm up.
    half = len(entries) // 2
    ends = [entry['elapsed_time'] for entry in entries[half - 1 :]]
    seconds = [b - a for a, b in zip(ends, ends[1:], strict=False)]
    waited = sum(
        s * entry['waiting_for_data'] for s, entry in zip(seconds, entries[half:], strict=True)
    )
    shutil.rmtree(out)
    return seconds, waited / sum(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--repeat', type=int, default=3, help='runs of each (default: %(default)s)')
    parser.add_argument('--iterations', type=int, default=20, help='of a run that are counted')
    parser.add_argument('--no-pairs', action='store_true', help='leave out runs at the same time')
    parser.add_argument('options', nargs='*', help='for train_multi.py')
    args = parser.parse_args()

    found: dict[str, list[list[float]]] = {}
    waits: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix='pfdet-scaling-') as temporary:
        folder = Path(temporary)
        index = make_data(folder / 'data', BATCH_SIZE * args.iterations)
        cases = {'one rank': [(1, 0)], 'two ranks': [(2, 0)], 'two runs at once': [(1, 0), (1, 1)]}
        if args.no_pairs:
            del cases['two runs at once']
        for k in range(args.repeat):
            for name, runs in cases.items():
                outs = [folder / f'{k}-{i}' for i in range(len(runs))]
                children = [
                    start(index, out, n, core, args.iterations, args.options)
                    for out, (n, core) in zip(outs, runs, strict=True)
                ]
                results = [result(child, out) for child, out in zip(children, outs, strict=True)]
                found.setdefault(name, []).extend(seconds for seconds, _ in results)
                waits.setdefault(name, []).append(max(share for _, share in results))
    means = {}
    for name, runs in found.items():
        means[name] = statistics.mean(map(min, zip(*runs, strict=True)))
        print(
            f'{name:18}{means[name]:8.3f} s an iteration  (runs '
            + ', '.join(f'{statistics.mean(run):.3f}' for run in runs)
            + f')  waiting for data {statistics.median(waits[name]):.2%}'
        )
    efficiency = means['one rank'] / means['two ranks']
    waiting = statistics.median(waits['two ranks'])
    if not args.no_pairs:
        print(f'of two runs at once: {means["one rank"] / means["two runs at once"]:.3f}')
    print(
        f'efficiency of two ranks: {efficiency:.3f}  goal at least {GOAL}: '
        + ('reached' if efficiency >= GOAL else 'MISSED')
    )
    print(
        f'waiting for data: {waiting:.2%}  goal at most {GOAL_WAITING:.0%}: '
        + ('reached' if waiting <= GOAL_WAITING else 'MISSED')
    )
    return int(efficiency < GOAL or waiting > GOAL_WAITING)


if __name__ == '__main__':
    sys.exit(main())
