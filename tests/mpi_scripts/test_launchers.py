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
        if not k.startswith(('SLURM', 'NCCL', 'OMP', 'OPENBLAS', 'PFDET', 'MPI', 'UCX'))
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
    env['MPI4PY_LIBMPI'] = '/opt/mpi/lib/libmpi.so.40'
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
        for name in 'NCCL_IB_HCA', 'OMP_NUM_THREADS', 'MPI4PY_LIBMPI':
            assert follows(lines, '-x', name)
    else:
        assert follows(lines, '-ppn', '4') and follows(lines, '-f', str(hosts))
        names = lines[lines.index('-genvlist') + 1].split(',')
        expected = {'NCCL_IB_HCA', 'OMP_NUM_THREADS', 'PATH', 'PYTHONPATH', 'MPI4PY_LIBMPI'}
        assert expected <= set(names)
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


# Open MPI's mpiexec ends its ranks at every signal but USR1; MPICH's at SIGHUP and a second SIGINT.
FAKE_MPIEXEC = """
[ "$1" != --version ] || { echo '%s'; exit 0; }
asked= status=75 interrupted=
note() { asked=-asked; echo "noted $1"; }
end() { echo killed; exit 1; }
if [ %s = openmpi ]; then
    trap 'note USR1' USR1
    trap end TERM INT HUP
else
    trap 'note USR1' USR1
    trap 'note TERM' TERM
    trap '[ -z "$interrupted" ] || end; interrupted=1; note INT; status=130' INT
    trap end HUP
fi
touch "$READY"
for i in $(seq 6000); do
    sleep 0.1
    [ ! -e "$FINISH" ] || { echo "snapshot$asked"; exit $status; }
done
exit 99"""


@pytest.mark.parametrize(
    'flavor, signals, expected',
    [
        ('openmpi', ['TERM'], (75, ['noted USR1', 'snapshot-asked'])),
        ('openmpi', ['HUP'], (129, ['noted USR1', 'snapshot-asked'])),
        ('openmpi', ['INT'], (130, ['noted USR1', 'snapshot-asked'])),
        ('openmpi', ['USR1'], (75, ['noted USR1', 'snapshot-asked'])),
        # A scheduler may send several.
        ('openmpi', ['USR1', 'TERM', 'TERM'], (75, [*['noted USR1'] * 3, 'snapshot-asked'])),
        # A second Ctrl-C ends it.
        ('openmpi', ['INT', 'INT'], (1, ['noted USR1', 'killed'])),
        ('mpich', ['TERM'], (75, ['noted TERM', 'snapshot-asked'])),
        ('mpich', ['HUP'], (129, ['noted USR1', 'snapshot-asked'])),
        ('mpich', ['INT'], (130, ['noted INT', 'snapshot-asked'])),
        ('mpich', ['USR1'], (75, ['noted USR1', 'snapshot-asked'])),
        ('mpich', ['HUP', 'TERM'], (129, ['noted USR1', 'noted TERM', 'snapshot-asked'])),
        ('mpich', ['INT', 'INT'], (1, ['noted INT', 'killed'])),
        ('intel', ['HUP'], (129, ['noted USR1', 'snapshot-asked'])),
    ],
    ids=lambda value: '-'.join(value) if isinstance(value, list) else str(value)[:7],
)
def test_signals_reach_the_ranks_as_their_mpiexec_forwards_them(
    fake_programs, tmp_path, flavor, signals, expected
):
    programs, env = fake_programs
    write_program(programs / 'mpiexec', FAKE_MPIEXEC % (VERSIONS[flavor], flavor))
    ready, printed, finish = (tmp_path / name for name in ('ready', 'printed', 'finish'))
    with printed.open('w') as out:
        # In a session of its own, as from a terminal: Ctrl-C goes to the whole process group.
        process = subprocess.Popen(
            [SCRIPTS / 'mpiexec_gpus.sh', 'python', 'train.py'],
            env={**env, 'READY': str(ready), 'FINISH': str(finish)},
            stdout=out,
            start_new_session=True,
        )
        wait_for(ready.exists, process)
        for k, name in enumerate(signals):
            os.killpg(process.pid, getattr(signal, f'SIG{name}'))
            # Signals that are pending at the same time are one.
            wait_for(lambda n=k: len(printed.read_text().splitlines()) > n, process)
        finish.touch()
        status = process.wait(timeout=600)
    assert (status, printed.read_text().splitlines()) == expected


def wait_for(condition, process):
    """Wait until a condition is met or the process has ended."""
    deadline = time.monotonic() + 600
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize('status', [0, 7, 75])
def test_the_status_is_that_of_open_mpi(fake_programs, status):
    programs, env = fake_programs
    version = '[ "$1" != --version ] || { echo "mpiexec (Open MPI) 5.0.3"; exit 0; }'
    write_program(programs / 'mpiexec', f'{version}\nexit {status}')
    assert run('mpiexec_gpus.sh', 'true', env=env).returncode == status


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_requeue.sh'])
@pytest.mark.parametrize('gpus', ['1', 'v100:1', '0', None])
def test_srun(fake_programs, script, gpus):
    programs, env = fake_programs
    write_program(programs / 'srun', 'printf "%s\\n" "$@"\necho "threads $OMP_NUM_THREADS"\nexit 3')
    env = {**env, 'SLURM_CPUS_PER_TASK': '4', 'PFDET_SRUN_MPI': 'pmi2'}
    if gpus is not None:
        env['SLURM_GPUS_PER_TASK'] = gpus
    done = run(script, 'python', 'train.py', '--out', 'a b', env=env)
    lines = done.stdout.splitlines()
    assert done.returncode == 3, 'the status is that of srun'
    options = {'--mpi=pmi2', '--cpus-per-task=4', '--cpu-bind=cores', '--kill-on-bad-exit=0'}
    assert options <= set(lines)
    # A cluster without GPUs refuses to give any.
    asked = [line for line in lines if line.startswith('--gpu')]
    expected = [f'--gpus-per-task={gpus}', '--gpu-bind=none'] if gpus not in ('0', None) else []
    assert asked == expected
    assert lines[-1] == 'threads 4'
    command = ['python', 'train.py', '--out', 'a b']
    assert lines[lines.index('python') : -1] == command + ['--resume'] * (
        script != 'slurm_train.sh'
    )
    assert run(script, env=env).returncode == 2


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_requeue.sh'])
def test_srun_gets_the_plugin_of_the_library(fake_programs, script, tmp_path):
    """The library is that of the command's Python, whatever other ones are installed."""
    programs, env = fake_programs
    write_program(programs / 'srun', 'echo "$1"')
    asks = '[ "$*" = "-m pfdet.mpi" ] && echo {}'
    write_program(programs / 'python', asks.format('of-path'))
    other = tmp_path / 'other/bin'
    other.mkdir(parents=True)
    write_program(other / 'python', asks.format('of-other'))
    write_program(other / 'pfdet', 'exit 1')
    write_program(programs / 'wrapper', 'exit 1')
    for command, expected in (
        ('python', 'of-path'),
        (str(other / 'python'), 'of-other'),
        (str(other / 'pfdet'), 'of-other'),
        ('wrapper', 'of-path'),
    ):
        assert run(script, command, 'train', env=env).stdout == f'--mpi={expected}\n'
    given = run(script, 'python', 'x', env={**env, 'PFDET_SRUN_MPI': 'mine'})
    assert given.stdout == '--mpi=mine\n'
    write_program(programs / 'python', 'exit 2')
    refused = run(script, 'python', 'x', env=env)
    assert refused.returncode == 2 and refused.stdout == ''
    assert 'set PFDET_SRUN_MPI' in refused.stderr and refused.stderr.count('\n') == 1


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
        env={**env, 'SLURM_JOB_ID': '42', 'PFDET_SRUN_MPI': 'pmi2', **more},
    )
    if number:
        wait_for(ready.exists, process)
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
