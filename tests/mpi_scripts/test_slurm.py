"""Training under Slurm. Skipped where it is absent (Debian: slurm-wlm and munge)."""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pfdet.compat  # noqa: F401

import pytest

from pfdet import mpi

sys.path.insert(0, str(Path(__file__).parent))
from slurm_cluster import PROGRAMS, SlurmCluster, find  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, '-m', 'pfdet', 'train', '--recipe', 'mini', '--log-interval', '1']
SMALL = ['--set', 'min_size=(64,64)', 'n_anchor=32', 'n_roi=16']
ON_THIS_MACHINE = ['--chdir', ROOT, '--nodes=1', '--ntasks-per-node=2', '--cpus-per-task=1']
# The directives of the scripts ask for GPUs, and this overrides them.
ON_THIS_MACHINE += ['--gpus-per-task=0', '--time=60']

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        not all(map(find, PROGRAMS)) or os.geteuid() != 0,
        reason='Slurm and Munge are not installed, or this user cannot start them',
    ),
]


@pytest.fixture(scope='module')
def cluster():
    # Sockets have short paths, shorter than those of pytest's directories.
    folder = Path(tempfile.mkdtemp(prefix='slurm-', dir='/tmp'))
    try:
        with SlurmCluster(folder) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait(condition, cluster, printed: Path):
    deadline = time.monotonic() + 500
    while not condition():
        text = printed.read_text() if printed.exists() else ''
        assert time.monotonic() < deadline, text + cluster.logs()
        time.sleep(0.3)


def iterations_of(out: Path) -> list[int]:
    if not (out / 'log').exists():
        return []
    return [entry['iteration'] for entry in json.loads((out / 'log').read_text())]


def test_a_preempted_job_is_requeued_and_resumes(cluster, small_world, tmp_path):
    out, printed = tmp_path / 'run', tmp_path / 'printed'
    script = ROOT / 'mpi_scripts/slurm_requeue.sh'
    train = [*TRAIN, '--train-index', small_world / 'train.index', '--out', out]
    job = cluster.submit(
        *(*ON_THIS_MACHINE, '--partition=low', '--output', printed, script),
        *(*train, '--iterations', 40, *SMALL),
    )
    wait(lambda: len(iterations_of(out)) > 2, cluster, printed)
    other = cluster.submit('--partition=high', '--exclusive', '--output=/dev/null', '--wrap=true')
    wait(lambda: 'requeueing' in printed.read_text(), cluster, printed)
    wait(lambda: cluster.job(other)['JobState'] == 'COMPLETED', cluster, printed)
    wait(lambda: cluster.job(job)['JobState'] == 'PENDING', cluster, printed)
    stopped = iterations_of(out)[-1]
    assert stopped < 40 and not (out / 'model.npz').exists()
    assert f'stopped by SIGTERM after iteration {stopped}' in printed.read_text()
    # Slurm lets a requeued job wait for two minutes.
    cluster.run('scontrol', 'update', f'JobId={job}', 'StartTime=now')
    wait(lambda: cluster.job(job)['JobState'] == 'COMPLETED', cluster, printed)
    text = printed.read_text()
    assert cluster.job(job)['Restarts'] == '1', text
    assert f'iter_{stopped:08}.npz: iteration {stopped}' in text and 'written by 2 ranks' in text
    assert iterations_of(out) == list(range(1, 41))
    assert (out / 'model.npz').exists()


def test_two_ranks_find_each_other(cluster, small_world, tmp_path):
    out, printed = tmp_path / 'run', tmp_path / 'printed'
    script = ROOT / 'mpi_scripts/slurm_train.sh'
    train = [*TRAIN, '--train-index', small_world / 'train.index', '--out', out]
    job = cluster.submit(
        *(*ON_THIS_MACHINE, '--output', printed, script, *train, '--iterations', 1, *SMALL)
    )
    wait(lambda: cluster.job(job)['JobState'] == 'COMPLETED', cluster, printed)
    assert json.loads((out / 'recipe.json').read_text())['run']['ranks'] == 2


def test_srun_alone_is_refused(cluster, small_world, tmp_path):
    """``srun`` without a plugin: MPICH's ranks would each train alone, and Open MPI's end."""
    out, printed = tmp_path / 'run', tmp_path / 'printed'
    train = [*TRAIN, '--train-index', small_world / 'train.index', '--out', out]
    command = ' '.join(map(str, ['srun', '--mpi=none', *train]))
    job = cluster.submit('--chdir', ROOT, '-n', 2, '--output', printed, f'--wrap={command}')
    wait(lambda: cluster.job(job)['JobState'] == 'FAILED', cluster, printed)
    text = printed.read_text()
    assert not out.exists()
    if mpi.library().family != 'MPICH':
        pytest.skip('MPICH is not the library: this one ends the ranks itself')
    assert cluster.job(job)['ExitCode'] == '2:0'
    errors = [line for line in text.splitlines() if line.startswith('error:')]
    assert len(errors) == 1 and '2 ranks (SLURM_STEP_NUM_TASKS=2)' in errors[0]
    assert '--mpi=pmi2' in errors[0]
