"""The launchers, with fake mpiexec, srun and scontrol that print their arguments."""

import os
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from pfdet.training.preemption import STATUS

SCRIPTS = Path(__file__).resolve().parents[2] / 'mpi_scripts'
SHELL = sorted(SCRIPTS.glob('*.sh'))
VERSIONS = {
    'openmpi': 'mpiexec (OpenRTE) 4.1.2',
    'mpich': 'HYDRA build details:',
    'intel': 'Intel(R) MPI Library for Linux* OS, Version 2021.5',
    'prrte': 'prterun (Open MPI) 5.0.3',
}


def write_program(path: Path, source: str) -> None:
    path.write_text('#!/bin/bash\n' + textwrap.dedent(source))
    path.chmod(0o755)


@pytest.fixture
def fake_programs(tmp_path):
    """A directory of programs, and an environment with this directory first in PATH."""
    programs = tmp_path / 'programs'
    programs.mkdir()
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(('SLURM', 'NCCL', 'OMP', 'OPENBLAS', 'PFDET', 'MPIR', 'UCX'))
    }
    write_program(programs / 'nvidia-smi', 'for i in 0 1 2 3; do echo "GPU $i: V100"; done')
    write_program(programs / 'nproc', 'echo 64')
    # 24 cores with two hardware threads each, on two sockets.
    write_program(
        programs / 'lscpu',
        """
        echo '# CPU,Socket'
        for i in $(seq 0 47); do echo "$((i % 24)),$((i % 24 / 12))"; done""",
    )
    return programs, {**clean, 'PATH': f'{programs}:{clean["PATH"]}'}


def fake_mpiexec(programs: Path, version: str) -> None:
    write_program(
        programs / 'mpiexec',
        f"""
        [ "$1" != --version ] || {{ echo '{version}'; exit 0; }}
        printf '%s\\n' "$@"
        echo "threads $OMP_NUM_THREADS"
        exit 7""",
    )


def run(script: str, *args: str, env: dict) -> subprocess.CompletedProcess:
    return subprocess.run(
        [SCRIPTS / script, *args], env=env, text=True, capture_output=True, check=False, timeout=600
    )


def follows(lines: list[str], *words: str) -> bool:
    n = len(words)
    return any(tuple(lines[i : i + n]) == words for i in range(len(lines)))


@pytest.mark.parametrize('script', SHELL, ids=lambda path: path.name)
def test_bash_can_parse_it(script):
    assert os.access(script, os.X_OK)
    subprocess.run(['bash', '-n', script], check=True)


@pytest.mark.parametrize('flavor', VERSIONS)
def test_mpiexec_binds_cores_and_passes_the_environment(fake_programs, flavor, tmp_path):
    programs, env = fake_programs
    fake_mpiexec(programs, VERSIONS[flavor])
    hosts = tmp_path / 'hosts'
    hosts.write_text('a\nb\n')
    env = {**env, 'NCCL_IB_HCA': 'mlx5_0', 'SECRET': 'x', 'PYTHONPATH': '/code'}
    done = run(
        'mpiexec_gpus.sh',
        '-n',
        '512',
        '--hostfile',
        str(hosts),
        'python',
        'train.py',
        '--out',
        'a b',
        env=env,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 7, 'the status is that of mpiexec'
    assert follows(lines, '-n', '512')
    # The command comes after all options, unchanged, with its space.
    assert lines[-5:] == ['python', 'train.py', '--out', 'a b', 'threads 6']
    text = ' '.join(lines)
    assert 'SECRET' not in text
    if flavor in ('openmpi', 'prrte'):
        assert follows(lines, '--map-by', 'ppr:4:node:PE=6')
        assert follows(lines, '--bind-to', 'core')
        assert follows(lines, '--hostfile', str(hosts))
        assert follows(lines, '-x', 'NCCL_IB_HCA') and follows(lines, '-x', 'OMP_NUM_THREADS')
    else:
        assert follows(lines, '-ppn', '4') and follows(lines, '-f', str(hosts))
        names = lines[lines.index('-genvlist') + 1].split(',')
        assert {'NCCL_IB_HCA', 'OMP_NUM_THREADS', 'PATH', 'PYTHONPATH'} <= set(names)
    if flavor == 'mpich':
        assert follows(lines, '-bind-to', 'core:6')
    if flavor == 'intel':
        assert follows(lines, '-genv', 'I_MPI_PIN_DOMAIN', '6:compact')


def test_mpiexec_on_one_machine(fake_programs):
    """One rank per GPU with equal shares of the cores; options and variables take precedence."""
    programs, env = fake_programs
    fake_mpiexec(programs, VERSIONS['mpich'])
    lines = run('mpiexec_gpus.sh', 'true', env=env).stdout.splitlines()
    assert follows(lines, '-n', '4') and follows(lines, '-bind-to', 'core:6')
    lines = run('mpiexec_gpus.sh', '-n', '1', 'true', env=env).stdout.splitlines()
    assert follows(lines, '-n', '1') and follows(lines, '-bind-to', 'core:24')
    lines = run(
        'mpiexec_gpus.sh', '--cores', '3', 'true', env={**env, 'OMP_NUM_THREADS': '2'}
    ).stdout.splitlines()
    assert follows(lines, '-bind-to', 'core:3') and lines[-1] == 'threads 2'
    # A container with fewer processors than the machine has cores.
    write_program(programs / 'nproc', 'echo 8')
    assert follows(
        run('mpiexec_gpus.sh', 'true', env=env).stdout.splitlines(), '-bind-to', 'core:2'
    )


def test_mpiexec_print_starts_nothing(fake_programs):
    programs, env = fake_programs
    fake_mpiexec(programs, VERSIONS['openmpi'])
    done = run('mpiexec_gpus.sh', '--print', '-n', '2', 'echo', 'a b', env=env)
    assert done.returncode == 0
    assert 'threads' not in done.stdout
    assert r'a\ b' in done.stdout


@pytest.mark.parametrize(
    'args, message',
    [
        ([], 'no command'),
        (['-n', '0', 'true'], '-n 0: expected a whole number'),
        (['-n'], '-n: expected a value'),
        (['-n', '5', 'true'], 'more than 4 per machine'),
        (['--hostfile', '/none', 'true'], '/none: no such file'),
        (['--flavor', 'lam', 'true'], 'lam: expected openmpi, mpich or intel'),
        (['--ranks', '5', 'true'], '--ranks: no such option'),
    ],
)
def test_mpiexec_refuses(fake_programs, args, message):
    programs, env = fake_programs
    fake_mpiexec(programs, VERSIONS['mpich'])
    done = run('mpiexec_gpus.sh', *args, env=env)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count('\n') == 1


def test_unknown_mpiexec_is_refused(fake_programs):
    programs, env = fake_programs
    fake_mpiexec(programs, 'LAM 6.5')
    done = run('mpiexec_gpus.sh', 'true', env=env)
    assert done.returncode == 2 and '--flavor' in done.stderr


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_requeue.sh'])
def test_srun(fake_programs, script):
    programs, env = fake_programs
    write_program(programs / 'srun', 'printf "%s\\n" "$@"\necho "threads $OMP_NUM_THREADS"\nexit 3')
    done = run(
        script,
        'python',
        'train.py',
        '--out',
        'a b',
        env={**env, 'SLURM_CPUS_PER_TASK': '4', 'PFDET_SRUN_MPI': 'pmi2'},
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 3, 'the status is that of srun'
    assert {
        '--mpi=pmi2',
        '--gpus-per-task=1',
        '--gpu-bind=none',
        '--cpus-per-task=4',
        '--cpu-bind=cores',
        '--kill-on-bad-exit=0',
    } <= set(lines)
    assert lines[-1] == 'threads 4'
    command = ['python', 'train.py', '--out', 'a b']
    assert lines[lines.index('python') : -1] == command + ['--resume'] * (
        script != 'slurm_train.sh'
    )
    assert run(script, env=env).returncode == 2


def directives(script: str) -> set[str]:
    return {
        line.split()[1]
        for line in (SCRIPTS / script).read_text().splitlines()
        if line.startswith('#SBATCH')
    }


def test_slurm_directives_are_read():
    """sbatch reads them only before the first command."""
    for script in 'slurm_train.sh', 'slurm_requeue.sh':
        lines = (SCRIPTS / script).read_text().splitlines()
        first = next(i for i, line in enumerate(lines) if line and not line.startswith('#'))
        assert not any(line.startswith('#SBATCH') for line in lines[first:])
        assert {'--nodes=64', '--ntasks-per-node=8', '--gpus-per-task=1'} <= directives(script)
    assert {'--signal=B:USR1@600', '--requeue', '--open-mode=append'} <= directives(
        'slurm_requeue.sh'
    )


def requeue_run(fake_programs, tmp_path, status: int, number: int | None, **more: str):
    """Run the requeue script, signal it, and return its status and scontrol's arguments."""
    programs, env = fake_programs
    requeued, ready = tmp_path / 'requeued', tmp_path / 'ready'
    ready.unlink(missing_ok=True)
    # Like ranks that write a snapshot: they handle the signal and end later.
    write_program(
        programs / 'srun',
        f"""
        asked=
        trap 'asked=1; echo noted' USR1
        touch {ready}
        for i in $(seq {6000 if number else 1}); do
            sleep 0.1
            [ -z "$asked" ] || {{ sleep 0.3; exit {status}; }}
        done
        exit {99 if number else status}""",
    )
    write_program(programs / 'scontrol', f'echo "$@" > {requeued}')
    process = subprocess.Popen(
        [SCRIPTS / 'slurm_requeue.sh', 'python', 'train.py'],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**env, 'SLURM_JOB_ID': '42', **more},
    )
    if number:
        deadline = time.monotonic() + 600
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
    stdout, stderr = process.communicate(timeout=600)
    return (
        process.returncode,
        requeued.read_text().split() if requeued.exists() else None,
        stdout,
        stderr,
    )


@pytest.mark.parametrize('number', [signal.SIGUSR1, signal.SIGTERM])
def test_requeue_after_a_signal(fake_programs, tmp_path, number):
    returned, requeued, stdout, stderr = requeue_run(fake_programs, tmp_path, STATUS, number)
    assert returned == 0 and requeued == ['requeue', '42']
    assert 'noted' in stdout and 'signalling the ranks' in stderr


def test_signal_to_finished_or_failing_ranks(fake_programs, tmp_path):
    """If the ranks are already done, or fail, the job ends with their status."""
    for status in 0, 1:
        returned, requeued, _, _ = requeue_run(fake_programs, tmp_path, status, signal.SIGUSR1)
        assert returned == status and requeued is None


@pytest.mark.parametrize('status', [0, 1, 137])
def test_requeues_only_after_a_snapshot(fake_programs, tmp_path, status):
    returned, requeued, _, _ = requeue_run(fake_programs, tmp_path, status, None)
    assert returned == status and requeued is None


def test_requeue_gives_up_after_max_restarts(fake_programs, tmp_path):
    """Slurm may signal the ranks directly, without signalling this script."""
    returned, requeued, _, _ = requeue_run(
        fake_programs, tmp_path, STATUS, None, SLURM_RESTART_COUNT='4', MAX_RESTARTS='5'
    )
    assert returned == 0 and requeued == ['requeue', '42']
    (tmp_path / 'requeued').unlink()
    returned, requeued, _, stderr = requeue_run(
        fake_programs, tmp_path, STATUS, None, SLURM_RESTART_COUNT='5', MAX_RESTARTS='5'
    )
    assert returned == STATUS and requeued is None and 'giving up' in stderr
