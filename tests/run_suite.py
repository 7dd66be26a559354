"""Run the test suite as on other machines: with other OpenBLAS kernels, or under load.

    python tests/run_suite.py --kernels Haswell SkylakeX Zen Sandybridge --threads 1 2
    python tests/run_suite.py --busy 2 --times 3

The closing line of each run is printed, and its output is written to a file in LOGS. OpenBLAS uses
the kernels of the processor type in OPENBLAS_CORETYPE. Types whose instructions this processor
lacks are skipped with a message.
"""

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Compute a product, then print the kernels that NumPy's OpenBLAS used.
PROBE = """
import numpy, threadpoolctl
numpy.ones((99, 99), 'f') @ numpy.ones((99, 99), 'f')
print(*{library.get('architecture', '?') for library in threadpoolctl.threadpool_info()})
"""


def main() -> int:
    args = parse_arguments()
    args.logs.mkdir(parents=True, exist_ok=True)
    failed = 0
    for kernel, threads, n in itertools.product(
        args.kernels or [None], args.threads or [None], range(args.times)
    ):
        changes = {}
        name = f'busy{args.busy}-{n}' if args.busy else f'run{n}'
        if kernel is not None:
            changes['OPENBLAS_CORETYPE'] = kernel
            name = f'{kernel}-{name}'
        if threads is not None:
            changes.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
            name += f'-{threads}threads'
        environment = {**os.environ, **changes}
        probe = subprocess.run(
            [sys.executable, '-c', PROBE],
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        if probe.returncode < 0:
            print(f'{name}: skipped, this processor lacks the instructions', flush=True)
            continue
        with busy_processes(args.busy):
            line, status = run(environment, args.logs / f'{name}.log', args.pytest)
        failed += status != 0
        print(f'{name} (kernels {probe.stdout.strip()}): {line}', flush=True)
    return 1 if failed else 0


def run(environment: dict[str, str], log: Path, arguments: list[str]) -> tuple[str, int]:
    """Run the tests; return pytest's closing line and its exit status."""
    started = time.monotonic()
    with log.open('w', encoding='utf-8') as out:
        status = subprocess.run(
            [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *arguments],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
    return (
        f'{lines[-1] if lines else "no output"} '
        f'[{time.monotonic() - started:.0f} s, status {status}]'
    ), status


@contextlib.contextmanager
def busy_processes(n: int) -> Iterator[None]:
    """Run ``n`` processes that use a core each."""
    processes = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--kernels', nargs='+', metavar='CORETYPE', help='such as Haswell Zen (default: automatic)')
    add('--threads', nargs='+', type=int, help='numbers of BLAS threads (default: automatic)')
    add(
        '--busy',
        type=int,
        default=0,
        help='number of busy processes in the background (default: 0)',
    )
    add('--times', type=int, default=1, help='runs per configuration (default: 1)')
    add('--logs', type=Path, default=ROOT / 'build' / 'suite', help='default: build/suite')
    add('--pytest', nargs=argparse.REMAINDER, default=[], help='arguments of pytest')
    return parser.parse_args()


if __name__ == '__main__':
    sys.exit(main())
