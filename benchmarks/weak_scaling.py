"""Weak scaling on CPUs: two ranks against one, one core per rank.

    python benchmarks/weak_scaling.py [--repeat 3] [--iterations 20] [-- OPTIONS OF train_multi.py]

Draws MiniOpenImages in a temporary folder and trains `--recipe mini`, with the same batch size per
rank and one thread per rank. The launcher pins every rank with its loader thread to one core, as on
a cluster; otherwise a single rank would load images on the other core. Runs of one and of two ranks
take turns. For comparison, two independent runs of one rank at the same time show what is lost to
shared caches, memory and other processes.

The counted iterations are one epoch of one rank, and two epochs of two ranks, so that both see the
same images. An iteration has the same images in every run of a kind, and other processes can only
slow it down, so the fastest of all runs counts. Prints the mean of these times, the mean of each
run, the efficiency (time of one rank over time of two), and the share of time in which a rank
waited for images. The goals are an efficiency of at least 0.90 and at most 1 % of waiting; the exit
status is 1 if one is missed.
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


def result(child: subprocess.Popen, out: Path) -> tuple[list[float], float]:
    """Seconds of every counted iteration, and the share of waiting."""
    if child.wait():
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
    return seconds, waited / sum(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--repeat', type=int, default=3, help='runs of each kind (default: %(default)s)'
    )
    parser.add_argument('--iterations', type=int, default=20, help='counted iterations per run')
    parser.add_argument('--no-pairs', action='store_true', help='skip the simultaneous runs')
    parser.add_argument('options', nargs='*', help='options of train_multi.py')
    args = parser.parse_args()

    times: dict[str, list[list[float]]] = {}
    waits: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix='pfdet-scaling-') as temporary:
        folder = Path(temporary)
        index = draw_data(folder / 'data', BATCH_SIZE * args.iterations)
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
                times.setdefault(name, []).extend(seconds for seconds, _ in results)
                waits.setdefault(name, []).append(max(share for _, share in results))
    means = {}
    for name, runs in times.items():
        means[name] = statistics.mean(map(min, zip(*runs, strict=True)))
        print(
            f'{name:18}{means[name]:8.3f} s per iteration  (runs '
            + ', '.join(f'{statistics.mean(run):.3f}' for run in runs)
            + f')  waiting for data {statistics.median(waits[name]):.2%}'
        )
    efficiency = means['one rank'] / means['two ranks']
    waiting = statistics.median(waits['two ranks'])
    if not args.no_pairs:
        print(
            f'efficiency of two runs at once: {means["one rank"] / means["two runs at once"]:.3f}'
        )
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
