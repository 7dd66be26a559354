"""Verification of large files once per node."""

import os
import subprocess
import sys
import time

import pytest

from pfdet.files import verified_files
from pfdet.files.cache import cache_directory


class Verifier:
    """Counts verifications; the file is damaged if it starts with ``b'bad'``."""

    def __init__(self, path):
        self.path = path
        self.n = 0

    def open(self):
        """Verify the file if needed; return how often it has been read so far."""
        with open(self.path, 'rb') as f:

            def verify():
                self.n += 1
                if f.read(3) == b'bad':
                    raise ValueError('damaged')

            verified_files.verify_once(self.path, f.fileno(), verify)
        return self.n


@pytest.fixture
def verifier(tmp_path, monkeypatch):
    monkeypatch.setenv('PFDET_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(verified_files, 'SMALL', 100)
    path = tmp_path / 'file'
    path.write_bytes(b'x' * 200)
    return Verifier(path)


@pytest.fixture
def settled(monkeypatch):
    """All files count as changed long ago."""
    monkeypatch.setattr(verified_files, '_RECENT', -1e9)


def test_a_file_is_verified_once(verifier, settled):
    assert [verifier.open() for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    'change',
    [
        lambda path: path.write_bytes(b'y' * 200),
        lambda path: path.write_bytes(b'x' * 201),
        lambda path: os.utime(path, ns=(0, 0)),
        # Its own content and times, but another file.
        lambda path: os.replace(copy_of(path), path),
        # Restored times do not hide a change: the time of change remains.
        lambda path: keep_mtime(path, b'z' * 200),
    ],
    ids=['content', 'size', 'time', 'inode', 'content with restored time'],
)
def test_a_changed_file_is_verified_again(verifier, settled, change):
    verifier.open()
    # The resolution of the times of files is that of the system's clock ticks.
    time.sleep(0.05)
    change(verifier.path)
    assert [verifier.open() for _ in range(2)] == [2, 2]


def copy_of(path):
    copy = path.with_name('copy')
    copy.write_bytes(path.read_bytes())
    status = path.stat()
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    return copy


def keep_mtime(path, content):
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_damaged_file_is_never_remembered(verifier, settled):
    verifier.path.write_bytes(b'bad' * 100)
    for _ in range(2):
        with pytest.raises(ValueError, match='damaged'):
            verifier.open()
    assert verifier.n == 2


@pytest.mark.parametrize(
    'name, value',
    [('_VALID', 0.0), ('SMALL', 1000), ('_boot', lambda: str(time.monotonic_ns()))],
    ids=['a day later', 'a small file', 'after a restart'],
)
def test_what_is_not_remembered(verifier, settled, monkeypatch, name, value):
    monkeypatch.setattr(verified_files, name, value)
    assert [verifier.open() for _ in range(3)] == [1, 2, 3]


def test_a_file_that_was_just_changed_is_not_remembered(verifier):
    os.utime(verifier.path)
    assert [verifier.open() for _ in range(2)] == [1, 2]


@pytest.mark.parametrize('content', [b'', b'\xff\0\n' * 9, b'1 2 3', b'x' * 10**5])
def test_a_damaged_record_is_replaced(verifier, settled, content):
    verifier.open()
    (record,) = (cache_directory() / 'verified').iterdir()
    record.write_bytes(content)
    assert [verifier.open() for _ in range(2)] == [2, 2]


def test_without_a_cache_directory_each_process_verifies(verifier, settled, monkeypatch):
    # A file in the place of the directory.
    monkeypatch.setenv('PFDET_CACHE', str(verifier.path))
    assert [verifier.open() for _ in range(2)] == [1, 2]
    monkeypatch.delenv('PFDET_CACHE')
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setenv('HOME', 'nowhere')
    assert verifier.open() == 3


def test_processes_at_the_same_time_verify_once(verifier, tmp_path):
    program = """
import os, sys, time
from pfdet.files import verified_files
verified_files.SMALL, verified_files._RECENT = 100, -1e9
path, log = sys.argv[1:]

def verify():
    with open(log, 'a') as f:
        print(os.getpid(), file=f)
    # All others are waiting, or have come too late.
    time.sleep(0.5)

print('ready', flush=True)
sys.stdin.readline()
with open(path, 'rb') as f:
    verified_files.verify_once(path, f.fileno(), verify)
"""
    log = tmp_path / 'log'
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', program, verifier.path, log],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == 'ready\n'
    for process in processes:
        process.stdin.write('\n')
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=600)
        assert process.returncode == 0
    assert len(log.read_text().split()) == 1


def test_old_records_are_removed(verifier, settled):
    directory = cache_directory() / 'verified'
    directory.mkdir(parents=True)
    for name, age in (('old', 60), ('new', 2)):
        (directory / name).touch()
        os.utime(directory / name, (time.time() - age * 86400,) * 2)
    verifier.open()
    names = {path.name for path in directory.iterdir()}
    assert 'new' in names and 'old' not in names and len(names) == 2


@pytest.mark.parametrize(
    'variables, expected',
    [
        ({'PFDET_CACHE': '/a/b', 'XDG_CACHE_HOME': '/x', 'HOME': '/h'}, '/a/b'),
        ({'XDG_CACHE_HOME': '/x', 'HOME': '/h'}, '/x/pfdet'),
        ({'XDG_CACHE_HOME': 'relative', 'HOME': '/h'}, '/h/.cache/pfdet'),
        ({'PFDET_CACHE': '', 'XDG_CACHE_HOME': '', 'HOME': '/h'}, '/h/.cache/pfdet'),
        ({'HOME': '/h'}, '/h/.cache/pfdet'),
    ],
)
def test_cache_directory(monkeypatch, variables, expected):
    for name in 'PFDET_CACHE', 'XDG_CACHE_HOME', 'HOME':
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_directory()) == expected
