"""Nothing of MPICH stays behind in /dev/shm, however a job ends."""

import mmap
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pfdet import shared_memory
from pfdet.subprocesses import ROOT
from pfdet.subprocesses import mpiexec as find_mpiexec

OLD = 2 * shared_memory._SECONDS_TO_START


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory, '_DIRECTORY', tmp_path)
    for name in shared_memory._LOCAL_RANK:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def segment(directory, name, age=OLD):
    path = directory / name
    path.write_bytes(bytes(4096))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_only_abandoned_segments_are_removed(directory):
    abandoned = [segment(directory, 'mpich_shm_1a2b_0'), segment(directory, 'mpich_vci_1a2b_12')]
    kept = [
        segment(directory, 'mpich_shm_77_0', age=10),
        segment(directory, 'mpich_shm_1a2b_0.bak'),
        segment(directory, 'nccl-1234'),
        segment(directory, 'mpich_shm_xyz_0'),
    ]
    used = segment(directory, 'mpich_shm_99_0')
    with open(used, 'r+b') as file, mmap.mmap(file.fileno(), 0):
        assert sorted(shared_memory.remove_abandoned()) == sorted(abandoned)
        assert sorted(directory.iterdir()) == sorted([*kept, used])
    assert shared_memory.remove_abandoned() == [used]


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can make a file of another user')
def test_segments_of_others_are_kept(directory):
    path = segment(directory, 'mpich_shm_1_0')
    os.chown(path, 12345, 12345)
    assert shared_memory.remove_abandoned() == [] and path.exists()


@pytest.mark.parametrize('name', shared_memory._LOCAL_RANK)
def test_one_rank_of_a_node_looks(name, directory, monkeypatch):
    path = segment(directory, 'mpich_shm_1_0')
    monkeypatch.setenv(name, '1')
    assert shared_memory.remove_abandoned() == [] and path.exists()
    monkeypatch.setenv(name, '0')
    assert shared_memory.remove_abandoned() == [path]


def test_a_missing_directory_is_no_error(directory, monkeypatch):
    monkeypatch.setattr(shared_memory, '_DIRECTORY', directory / 'none')
    assert shared_memory.remove_abandoned() == []
    shared_memory.remove_own()


# Print the segments that MPI has made, before anything removes them.
SEGMENTS = """
    import os, signal, sys, time
    from pathlib import Path

    import pfdet.compat
    from pfdet import shared_memory
    from pfdet.errors import InputError, run_command

    def print_segments():
        names = shared_memory._mapped('self')
        os.write(1, (' '.join(['segments', *sorted(names)]) + '\\n').encode())

    def main():
        from mpi4py import MPI
        rank = MPI.COMM_WORLD.rank
        print_segments()
        {body}

    run_command(main)
"""

ALL = "raise InputError('the index is not there')"
ENDS = {
    'all finish': ('pass', 0, None),
    'an error of all ranks': (ALL, 2, 'error: the index is not there'),
    'an error of one rank': (
        f'if rank == 1: {ALL}\n        time.sleep(600)',
        2,
        'error: the index is not there',
    ),
    'an error of the first rank': (
        f'if rank == 0: {ALL}\n        MPI.COMM_WORLD.Barrier()',
        2,
        'error: the index is not there',
    ),
    'an exception of all ranks': ('1 / 0', 1, 'ZeroDivisionError: division by zero'),
    'an exception of one rank': (
        'if rank == 2: 1 / 0\n        MPI.COMM_WORLD.Barrier()',
        1,
        'ZeroDivisionError: division by zero',
    ),
    'an interruption of all ranks': (
        'os.kill(os.getpid(), signal.SIGINT); time.sleep(600)',
        130,
        'interrupted',
    ),
    'an interruption of one rank': (
        'if rank == 1: os.kill(os.getpid(), signal.SIGTERM)\n        MPI.COMM_WORLD.Barrier()',
        143,
        'interrupted by SIGTERM',
    ),
    'a killed rank': (
        'from pfdet.training.communicators import communicator\n'
        '        communicator("packed")\n'
        '        if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\n'
        '        MPI.COMM_WORLD.Barrier()',
        9,
        None,
    ),
    'a crash of all ranks': (
        'from pfdet.training.communicators import communicator\n'
        '        communicator("packed")\n'
        '        MPI.COMM_WORLD.Barrier()\n'
        '        os.kill(os.getpid(), signal.SIGKILL)',
        9,
        None,
    ),
}


@pytest.mark.faults('shared memory left behind')
@pytest.mark.parametrize('end', ENDS)
def test_no_end_of_a_job_leaves_shared_memory(end, mpiexec):
    body, status, line = ENDS[end]
    # A job in the background of a script ignores SIGINT.
    reset = 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n'
    done = mpiexec(3, reset + textwrap.dedent(SEGMENTS.format(body=body)), check=False)
    assert done.returncode == status, done.stderr
    names = {name for found in re.findall('segments(.*)', done.stdout) for name in found.split()}
    assert len(names) == 1, done.stdout
    assert not any((Path('/dev/shm') / name).exists() for name in names)
    if line is not None:
        # Of one rank only, and nothing else but a traceback before it.
        assert done.stderr.splitlines()[-1] == line
        assert done.stderr.count(line) == 1
        if status != 1:
            assert done.stderr == line + '\n'


def test_ranks_of_two_proxies_are_ended():
    """As on two machines, of which each has a process of the launcher."""
    hosts = ['-launcher', 'fork', '-hosts', 'localhost:2,127.0.0.1:2']
    for status, body in (
        (2, f'if rank == 1: {ALL}\n        time.sleep(600)'),
        (2, f'if rank == 3: {ALL}\n        time.sleep(600)'),
        (2, ALL),
        (1, 'if rank == 2: 1 / 0\n        MPI.COMM_WORLD.Barrier()'),
    ):
        done = subprocess.run(
            [find_mpiexec(), *hosts, '-n', '4', sys.executable, '-c']
            + [textwrap.dedent(SEGMENTS.format(body=body))],
            env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == status, done.stderr
        assert done.stderr.count('error: ') == (status == 2)
