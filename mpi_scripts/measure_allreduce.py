"""All-reduces on 2 to 64 ranks of this machine, for the scaling model to be checked against.

    python mpi_scripts/measure_allreduce.py --out FILE.json [--ranks 2 4 8 16 32 64]

Runs `allreduce_benchmark.py` with MPICH's mpiexec for each number of ranks and each algorithm,
which MPICH is told to use, and joins the percentiles to one file. Runs that the file already has
are measured again and replaced, the others kept: so a sweep can be made piece by piece.

More ranks than cores wait for each other's turns on a core. MPICH is told to give up its turn as
soon as there is nothing to receive; by default it looks a thousand times, and what is then measured
is that.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError, run_command

BENCHMARK = Path(__file__).with_name('allreduce_benchmark.py')
ALGORITHMS = ('ring', 'recursive_doubling', 'reduce_scatter_allgather')
# MPICH's own algorithms instead of those for shared memory, and polite waiting.
SETTINGS = {
    'MPIR_CVAR_DEVICE_COLLECTIVES': 'none',
    'MPIR_CVAR_POLLS_BEFORE_YIELD': '1',
    'MPIR_CVAR_ENABLE_HEAVY_YIELD': '1',
    'OMP_NUM_THREADS': '1',
}


def main() -> None:
    args = parse_arguments()
    beside = Path(sys.executable).with_name('mpiexec')
    launcher = str(beside) if beside.exists() else shutil.which('mpiexec')
    if launcher is None:
        raise InputError('there is no mpiexec, neither beside the interpreter nor on PATH')
    kept = json.loads(args.out.read_text())['runs'] if args.out.exists() else []
    runs = {(run['algorithm'], run['ranks']): run for run in kept}
    to_do = [(a, n) for n in args.ranks for a in args.algorithms]
    for algorithm, n_rank in tqdm(to_do, disable=None):
        runs[algorithm, n_rank] = measure(launcher, algorithm, n_rank, args)
        joined = {
            'command': 'python mpi_scripts/measure_allreduce.py',
            'settings': SETTINGS,
            'runs': [runs[key] for key in sorted(runs)],
        }
        with replace_when_done(args.out) as path:
            path.write_text(as_text(joined))


def measure(launcher: str, algorithm: str, n_rank: int, args: argparse.Namespace) -> dict:
    """One run of the benchmark.

    Raises:
        InputError: It failed, or the library is not MPICH.
    """
    root = BENCHMARK.parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get('PYTHONPATH')]))
    environment = {
        **os.environ,
        **SETTINGS,
        'MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM': algorithm,
        'PYTHONPATH': path,
    }
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / 'out.json'
        command = [
            launcher,
            '-n',
            str(n_rank),
            sys.executable,
            str(BENCHMARK),
            '--sizes',
            *args.sizes,
            '--repetitions',
            str(args.repetitions),
            '--out',
            str(out),
        ]
        done = subprocess.run(
            command,
            env=environment,
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            raise InputError(
                f'{algorithm} on {n_rank} ranks ended with status '
                f'{done.returncode}: {done.stdout[-500:]}'
            )
        report = json.loads(out.read_text())
    if 'MPICH' not in report['library']:
        raise InputError(
            f'{report["library"]}: cannot be told which algorithm to take; expected MPICH'
        )
    return {
        'algorithm': algorithm,
        'ranks': n_rank,
        'cores': report['cores_per_node'],
        'library': report['library'],
        'repetitions': report['repetitions'],
        'bytes': [row['bytes'] for row in report['allreduce']],
        **{f'p{p}': [round(row[f'p{p}'], 8) for row in report['allreduce']] for p in (10, 50, 90)},
    }


def as_text(joined: dict) -> str:
    """JSON with a run a line."""
    runs = ',\n  '.join(json.dumps(run) for run in joined['runs'])
    head = json.dumps({k: v for k, v in joined.items() if k != 'runs'}, indent=1)
    return f'{head[:-2]},\n "runs": [\n  {runs}\n ]\n}}\n'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.json')
    parser.add_argument('--ranks', type=int, nargs='+', default=(2, 4, 8, 16, 32, 64))
    parser.add_argument('--algorithms', nargs='+', choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument(
        '--sizes', nargs='+', metavar='BYTES', default=('4K', '16K', '64K', '256K', '1M', '8M')
    )
    parser.add_argument('--repetitions', type=int, default=9)
    return parser.parse_args()


if __name__ == '__main__':
    run_command(main)
