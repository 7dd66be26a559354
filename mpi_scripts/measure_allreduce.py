"""Time all-reduces on 2 to 64 ranks of this machine, to check the scaling model.

    python mpi_scripts/measure_allreduce.py --out FILE.json [--ranks 2 4 8 16 32 64]

Runs `allreduce_benchmark.py` with MPICH's mpiexec for each number of ranks and each of MPICH's
algorithms, and merges the percentiles into one file. Runs that are in the file already are
replaced, the others are kept, so a sweep can be measured in pieces.

If there are more ranks than cores, ranks wait for their turn on a core. MPICH is set to yield as
soon as there is nothing to receive. By default it polls a thousand times first, which would
dominate the measurement.
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
# MPICH's general algorithms instead of those for shared memory, and early yielding
SETTINGS = {
    'MPIR_CVAR_DEVICE_COLLECTIVES': 'none',
    'MPIR_CVAR_POLLS_BEFORE_YIELD': '1',
    'MPIR_CVAR_ENABLE_HEAVY_YIELD': '1',
    'OMP_NUM_THREADS': '1',
}


def main() -> None:
    args = parse_arguments()
    own_mpiexec = Path(sys.executable).with_name('mpiexec')
    launcher = str(own_mpiexec) if own_mpiexec.exists() else shutil.which('mpiexec')
    if launcher is None:
        raise InputError('mpiexec not found, neither next to the interpreter nor on PATH')
    kept = json.loads(args.out.read_text())['runs'] if args.out.exists() else []
    runs = {(run['algorithm'], run['ranks']): run for run in kept}
    to_do = [(a, n) for n in args.ranks for a in args.algorithms]
    for algorithm, n_rank in tqdm(to_do, disable=None):
        runs[algorithm, n_rank] = measure(launcher, algorithm, n_rank, args)
        merged = {
            'command': 'python mpi_scripts/measure_allreduce.py',
            'settings': SETTINGS,
            'runs': [runs[key] for key in sorted(runs)],
        }
        with replace_when_done(args.out) as path:
            path.write_text(as_text(merged))


def measure(launcher: str, algorithm: str, n_rank: int, args: argparse.Namespace) -> dict:
    """Run the benchmark once.

    Raises:
        InputError: The run failed, or the library is not MPICH.
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
        raise InputError(f'{report["library"]}: has no setting for the algorithm; expected MPICH')
    return {
        'algorithm': algorithm,
        'ranks': n_rank,
        'cores': report['cores_per_node'],
        'library': report['library'],
        'repetitions': report['repetitions'],
        'bytes': [row['bytes'] for row in report['allreduce']],
        **{f'p{p}': [round(row[f'p{p}'], 8) for row in report['allreduce']] for p in (10, 50, 90)},
    }


def as_text(merged: dict) -> str:
    """Format as JSON with one run per line."""
    runs = ',\n  '.join(json.dumps(run) for run in merged['runs'])
    head = json.dumps({k: v for k, v in merged.items() if k != 'runs'}, indent=1)
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
