"""The all-reduce benchmark under mpiexec: its output, and its check of the results."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / 'mpi_scripts'
BENCHMARK = SCRIPTS / 'allreduce_benchmark.py'
QUICK = '--repetitions', 3, '--seconds', 0.0001


def ordered(row: dict) -> bool:
    return 0 < row['min'] <= row['p10'] <= row['p50'] <= row['p90'] <= row['max']


def test_plain_mpi(mpiexec, tmp_path):
    out = tmp_path / 'out.json'
    mpiexec(
        2, BENCHMARK, '--sizes', 1, '4K', '10000', '--max-size', '9999999', *QUICK, '--out', out
    )
    report = json.loads(out.read_text())
    assert (report['ranks'], report['group_size'], report['communicator']) == (2, 2, 'mpi')
    assert str(tmp_path) in report['command'] and report['command'].startswith('mpiexec -n 2 ')
    # At least one number is sent.
    assert [row['bytes'] for row in report['allreduce']] == [4, 4096, 10000]
    for row in report['allreduce']:
        assert ordered(row) and row['calls'] >= 1
        # With two ranks, each sends and receives the message once.
        assert row['bus_GBps'] == pytest.approx(row['bytes'] / row['p50'] / 1e9)
    assert report['batch_normalization'] == []


@pytest.mark.parametrize(
    'flags, sent',
    [(('--communicator', 'packed', '--dtype', 'float16'), 2), (('--communicator', 'naive'), 4)],
)
def test_communicators_in_groups(mpiexec, tmp_path, flags, sent):
    out = tmp_path / 'out.json'
    done = mpiexec(
        4,
        BENCHMARK,
        *flags,
        '--group-size',
        2,
        '--sizes',
        1,
        1000,
        '--bn-channels',
        3,
        '--bn-shape',
        1,
        4,
        5,
        *QUICK,
        '--out',
        out,
    )
    report = json.loads(out.read_text())
    assert [row['bytes'] for row in report['allreduce']] == [sent, 1000]
    (row,) = report['batch_normalization']
    assert (row['channels'], row['shape']) == (3, [1, 4, 5])
    assert all(
        ordered(row[kind][way])
        for kind in ('plain', 'multi_node')
        for way in ('forward', 'backward')
    )
    assert '3 channels, backward' in done.stdout and done.stdout.count('1000') == 1


def test_default_sizes_end_with_the_gradients():
    sys.path.insert(0, str(SCRIPTS))
    from allreduce_benchmark import DEFAULT_SIZES
    from scaling.detector import read_detector

    assert DEFAULT_SIZES[0] == 4
    assert DEFAULT_SIZES[-1] == 4 * read_detector().n_parameter


def test_wrong_results_are_detected(mpiexec):
    done = mpiexec(
        2,
        f"""
        import sys
        sys.path[:0] = [{str(SCRIPTS)!r}]
        import allreduce_benchmark as benchmark
        from mpi4py import MPI

        class OnlyOwn:
            rank, size = MPI.COMM_WORLD.rank, 2
            def Allreduce(self, send, received):
                received[:] = send

        try:
            benchmark.MPIAllreduce(OnlyOwn(), 'float32').prepare(64)
        except RuntimeError as e:
            assert 'wrong' in str(e)
        else:
            raise SystemExit('not detected')""",
    )
    assert done.returncode == 0


def test_slowest_rank_counts(mpiexec):
    mpiexec(
        3,
        f"""
        import sys
        sys.path[:0] = [{str(SCRIPTS)!r}]
        import time
        import allreduce_benchmark as benchmark
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        seconds, calls = benchmark.time_repetitions(
            lambda: time.sleep(0.02 * world.rank), world, 2, 0.1)
        assert (seconds >= 0.04).all() and 1 <= calls <= 3, (seconds, calls)
        assert len(set(world.allgather(calls))) == 1""",
    )


def test_imports_are_few():
    """With hundreds of ranks on a machine, the imports of each matter."""
    program = (
        'import sys; sys.argv = ["x", "--sizes", "4", "--repetitions", "1"]\n'
        f'sys.path[:0] = [{str(SCRIPTS)!r}, {str(SCRIPTS.parent)!r}]\n'
        'import allreduce_benchmark; allreduce_benchmark.main()\n'
        'print(*sorted({m.split(".")[0] for m in sys.modules}))'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], text=True, capture_output=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert 'mpi4py' in loaded and not loaded & {'chainer', 'chainermn', 'scipy', 'cupy', 'cv2'}


@pytest.mark.parametrize(
    'flags, message',
    [
        (('--communicator', 'flat'), 'needs GPUs'),
        (('--communicator', 'star'), 'no such communicator'),
        (('--dtype', 'float16'), 'take --communicator packed'),
        (('--sizes', '3x'), '3x: expected bytes'),
        (('--group-size', '2'), 'a divisor of the 1 ranks'),
        (('--repetitions', '0'), '--repetitions 0: expected an integer from 1 to'),
    ],
)
def test_refuses(flags, message):
    done = subprocess.run(
        [sys.executable, BENCHMARK, *flags],
        text=True,
        capture_output=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 2 and message in done.stderr and done.stderr.count('\n') == 1


def test_sweep_merges_runs(tmp_path):
    out = tmp_path / 'sweep.json'
    for n in '1', '2', '1':
        done = subprocess.run(
            [
                sys.executable,
                SCRIPTS / 'measure_allreduce.py',
                '--ranks',
                n,
                '--algorithms',
                'ring',
                '--sizes',
                '64',
                '128',
                '--repetitions',
                '3',
                '--out',
                out,
            ],
            text=True,
            capture_output=True,
            check=False,
            env=environment(),
        )
        assert done.returncode == 0, done.stderr
    sweep = json.loads(out.read_text())
    assert [(run['algorithm'], run['ranks']) for run in sweep['runs']] == [('ring', 1), ('ring', 2)]
    for run in sweep['runs']:
        assert run['bytes'] == [64, 128]
        assert np.shape(run['p50']) == (2,) and np.min(run['p50']) > 0
    assert sweep['settings']['MPIR_CVAR_DEVICE_COLLECTIVES'] == 'none'


def environment() -> dict:
    import os

    return {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': os.pathsep.join(
            filter(None, [str(SCRIPTS.parent), os.environ.get('PYTHONPATH')])
        ),
    }
