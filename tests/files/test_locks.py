"""Locks of outputs: one process at a time, and released by the end of the process."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pfdet.errors import InputError
from pfdet.files import locks
from pfdet.files.locks import output_lock, output_lock_of_ranks

HOLD = """
import sys
from pfdet.files.locks import output_lock
with output_lock(sys.argv[1], sys.argv[2] == 'directory'):
    print('held', flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def hold():
    """Start a process that holds a lock until its standard input ends."""
    processes = []

    def start(out, kind):
        process = subprocess.Popen(
            [sys.executable, '-c', HOLD, str(out), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == 'held\n'
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('kind', ['directory', 'file'])
@pytest.mark.parametrize('end', ['exit', signal.SIGTERM, signal.SIGKILL])
def test_second_process_is_refused_until_the_first_ends(tmp_path, hold, kind, end):
    out = tmp_path / 'a' / 'out'
    first = hold(out, kind)
    with pytest.raises(InputError) as e, output_lock(out, kind == 'directory'):
        pass
    message = f'{out}: in use by process {first.pid} on {os.uname().nodename}, which writes there'
    assert str(e.value).startswith(message) and '\n' not in str(e.value)
    # Another output is free.
    with output_lock(tmp_path / 'a' / 'other', kind == 'directory'):
        pass
    if end == 'exit':
        first.communicate('\n', timeout=600)
    else:
        first.send_signal(end)
        first.wait(600)
    with output_lock(out, kind == 'directory'):
        pass


@pytest.mark.parametrize('is_directory', [True, False])
def test_nothing_is_left(tmp_path, is_directory):
    out = tmp_path / 'out'
    for _ in range(2):
        with pytest.raises(KeyError), output_lock(out, is_directory):
            assert len(os.listdir(out if is_directory else tmp_path)) == 1
            raise KeyError
        assert os.listdir(tmp_path) == (['out'] if is_directory else [])
        if is_directory:
            assert os.listdir(out) == []


def test_the_same_process_is_refused_too(tmp_path):
    with output_lock(tmp_path / 'x'):
        with pytest.raises(InputError, match=f'in use by process {os.getpid()} on'):
            with output_lock(tmp_path / 'x'):
                pass
        # Being refused does not release the lock.
        with pytest.raises(InputError, match='in use'), output_lock(tmp_path / 'x'):
            pass


def test_lock_that_is_removed_while_waiting_is_taken_again(tmp_path, monkeypatch):
    """Between opening the file and locking it, its owner may have removed it."""
    out, flock = tmp_path / 'x', fcntl.flock
    removed = []

    def flock_after_removal(handle, operation):
        if not removed:
            removed.append(os.stat(tmp_path / '.x.lock').st_ino)
            os.unlink(tmp_path / '.x.lock')
        flock(handle, operation)

    monkeypatch.setattr(locks.fcntl, 'flock', flock_after_removal)
    with output_lock(out):
        assert removed
        with pytest.raises(InputError, match='in use'), output_lock(out):
            pass


FORK_AND_DIE = """
import os, signal, sys, time
from pfdet.files.locks import output_lock
with output_lock(sys.argv[1]):
    if os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    print('held', flush=True)
    sys.stdin.read()
"""


def test_child_process_does_not_prolong_the_lock(tmp_path):
    """A worker that outlives a killed command must not keep the output locked."""
    out = tmp_path / 'x'
    process = subprocess.Popen(
        [sys.executable, '-c', FORK_AND_DIE, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.wait(600)
    # The child is alive until the end of its standard input.
    assert process.stdout.readline() == 'held\n'
    assert (tmp_path / '.x.lock').exists()
    with output_lock(out):
        pass
    process.stdin.close()
    assert process.stdout.read() == ''


def test_child_process_does_not_release_the_lock(tmp_path):
    out = tmp_path / 'x'
    context = output_lock(out)
    context.__enter__()
    child = os.fork()
    if child == 0:
        try:
            context.__exit__(None, None, None)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(InputError, match='in use'), output_lock(out):
        pass
    context.__exit__(None, None, None)
    with output_lock(out):
        pass


@pytest.mark.parametrize(
    'error', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=lambda e: errno.errorcode[e]
)
def test_file_system_without_locks(tmp_path, monkeypatch, capsys, error):
    def flock(handle, operation):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(locks.fcntl, 'flock', flock)
    with output_lock(tmp_path / 'x'):
        pass
    line = capsys.readouterr().err
    assert line.startswith(f'note: {tmp_path} is on a file system without locks')
    assert line.count('\n') == 1


def test_outputs_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    for out, is_directory, message in (
        (tmp_path / 'file', True, '.*file is not a directory'),
        (tmp_path / 'file' / 'x', False, '.*file is not a directory'),
        (tmp_path / ('n' * 300), False, 'File name too long'),
    ):
        with pytest.raises(InputError, match=f'cannot be written: {message}') as e:
            with output_lock(out, is_directory):
                pass
        assert str(out) in str(e.value) and '\n' not in str(e.value)


def test_all_ranks_raise_the_error_of_the_first(tmp_path):
    sent = []

    def rank(number):
        def bcast(value):
            if number == 0:
                sent.append(value)
            return sent[-1]

        return SimpleNamespace(rank=number, mpi_comm=SimpleNamespace(bcast=bcast))

    with output_lock_of_ranks(tmp_path, rank(0), is_directory=True):
        with output_lock_of_ranks(tmp_path, rank(1), is_directory=True):
            pass
        with pytest.raises(InputError, match='in use'), output_lock(tmp_path, is_directory=True):
            pass
        for number in 0, 1:
            with pytest.raises(InputError, match='in use by process'):
                with output_lock_of_ranks(tmp_path, rank(number), is_directory=True):
                    pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('out', ['.', '/'])
def test_an_output_without_a_name_is_refused(out):
    with (
        pytest.raises(InputError, match=r'^[./]: a directory; expected the path of a file'),
        output_lock(out),
    ):
        pass
