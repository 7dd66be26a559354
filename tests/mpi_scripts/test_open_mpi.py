"""Training with the system's Open MPI. Skipped where there is none (Debian: openmpi-bin)."""

import ctypes.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pfdet.training.preemption import STATUS

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = 'libmpi.so.40'
MPIEXEC = shutil.which('mpiexec.openmpi')
SMALL = ['--recipe', 'mini', '--set', 'min_size=(64,64)', 'n_anchor=32', 'n_roi=16']

pytestmark = pytest.mark.skipif(
    MPIEXEC is None or ctypes.util.find_library('mpi') is None, reason='Open MPI is not installed'
)


@pytest.fixture
def environment() -> dict[str, str]:
    return {
        **os.environ,
        'MPI4PY_LIBMPI': LIBRARY,
        'MPIEXEC': str(MPIEXEC),
        'OMP_NUM_THREADS': '1',
        # Containers, and machines with fewer cores than ranks.
        'OMPI_ALLOW_RUN_AS_ROOT': '1',
        'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
        'OMPI_MCA_rmaps_base_oversubscribe': '1',
        'OMPI_MCA_mpi_yield_when_idle': '1',
    }


def start(world: Path, out: Path, iterations: int, environment: dict) -> subprocess.Popen:
    train = [sys.executable, '-m', 'pfdet', 'train', *SMALL, '--log-interval', '1', '--resume']
    with (out.parent / 'printed').open('a') as printed:
        return subprocess.Popen(
            [ROOT / 'mpi_scripts/mpiexec_gpus.sh', '-n', '2', '--per-node', '2', '--cores', '1']
            + [*train, '--train-index', world / 'train.index', '--out', out]
            + ['--iterations', str(iterations)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )


def iterations_of(out: Path) -> list[int]:
    return [entry['iteration'] for entry in json.loads((out / 'log').read_text())]


@pytest.mark.soak
def test_sigterm_to_the_launcher_leaves_a_snapshot(small_world, tmp_path, environment):
    out, printed = tmp_path / 'run', tmp_path / 'printed'
    process = start(small_world, out, 1000, environment)
    deadline = time.monotonic() + 500
    while not (out / 'log').exists() or not iterations_of(out):
        assert process.poll() is None and time.monotonic() < deadline, printed.read_text()
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=500) == STATUS, printed.read_text()
    stopped = iterations_of(out)[-1]
    assert (out / 'snapshots' / f'iter_{stopped:08}.npz').exists()
    assert f'stopped by SIGUSR1 after iteration {stopped}' in printed.read_text()

    process = start(small_world, out, stopped + 1, environment)
    assert process.wait(timeout=500) == 0, printed.read_text()
    assert iterations_of(out) == list(range(1, stopped + 2))
    assert (out / 'model.npz').exists()


def test_the_launcher_of_another_library_is_refused(small_world, tmp_path, environment):
    """MPICH's ``mpiexec`` starts ranks with Open MPI, which then does not find the others."""
    beside = Path(sys.executable).with_name('mpiexec')
    if not beside.exists():
        pytest.skip('the environment has no MPICH')
    command = [sys.executable, '-W', 'ignore', '-m', 'pfdet', 'train', *SMALL]
    done = subprocess.run(
        [beside, '-n', '2', *command]
        + ['--train-index', small_world / 'train.index', '--out', tmp_path / 'run'],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 2
    assert done.stdout == '' and done.stderr.count('\n') == 1
    assert done.stderr.startswith('error: the launcher started 2 ranks (PMI_SIZE=2), but MPI has 1')
    assert str(MPIEXEC) in done.stderr and 'Open MPI v4' in done.stderr
    assert not (tmp_path / 'run').exists()


def test_the_report_names_the_library_and_its_launcher(environment):
    done = subprocess.run(
        [sys.executable, '-m', 'pfdet.compat'],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = {line[:13].strip(): line[13:] for line in done.stdout.splitlines()}
    assert lines['MPI'].startswith('Open MPI v')
    assert LIBRARY in lines['MPI library']
    assert lines['mpiexec'] == f'{MPIEXEC} (Open MPI)'
