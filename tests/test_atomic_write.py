"""Tests of atomic writes and of the removal of unfinished files."""

import os
import resource
import shutil
import stat

import numpy as np
import pytest

from pfdet.atomic_write import (
    directory_when_done,
    new_directory_when_done,
    remove_unfinished,
    replace_when_done,
)
from pfdet.errors import InputError


def test_file_appears_when_finished(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'score.json'
    with replace_when_done(path) as unfinished:
        unfinished.write_text('{}')
        assert not path.exists()
        # The same folder, so that renaming does not copy; the same suffix, which writers depend on.
        assert unfinished.parent == path.parent
        assert unfinished.suffix == '.json'
    assert path.read_text() == '{}'
    assert os.listdir(path.parent) == ['score.json']


def test_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / 'score.json'
    path.write_text('old')
    with pytest.raises(RuntimeError), replace_when_done(path) as unfinished:
        unfinished.write_text('ne')
        raise RuntimeError
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['score.json']


def test_path_may_be_a_string_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replace_when_done('plain.txt') as unfinished:
        unfinished.write_bytes(b'x')
    assert (tmp_path / 'plain.txt').read_bytes() == b'x'


@pytest.mark.parametrize('umask', [0o022, 0o077])
def test_file_mode_follows_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replace_when_done(tmp_path / 'x') as unfinished:
            unfinished.write_text('x')
        mode = stat.S_IMODE(os.stat(tmp_path / 'x').st_mode)
        assert mode == 0o666 & ~umask
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_full_disk_is_an_input_error_and_keeps_the_old_file(tmp_path):
    """A limit on the file size simulates a full disk."""
    path = tmp_path / 'score.json'
    path.write_text('old')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        for write in (
            lambda file: file.write(b'x' * 2000),
            lambda file: np.zeros(2000).tofile(file),
        ):
            with (
                pytest.raises(InputError, match=r'score\.json: cannot be written: \w+'),
                replace_when_done(path) as unfinished,
                open(unfinished, 'wb') as file,
            ):
                write(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['score.json']


def test_impossible_directory_is_an_input_error(tmp_path):
    (tmp_path / 'file').write_text('')
    with (
        pytest.raises(InputError, match='score.json: cannot be written'),
        replace_when_done(tmp_path / 'file' / 'score.json'),
    ):
        pass


def test_other_os_errors_are_not_converted(tmp_path):
    with pytest.raises(FileNotFoundError), replace_when_done(tmp_path / 'x'):
        open(tmp_path / 'absent')
    with pytest.raises(OSError, match='strange'), replace_when_done(tmp_path / 'x'):
        raise OSError('strange')


def test_unfinished_files_of_killed_writers_are_removed(tmp_path):
    kept = ['iter_1.npz', '.iter_2-abcd.npz', '.other-abcdefgh.npz', 'log', '.log-abcdefgh.npz']
    for name in [*kept, '.iter_2-abcdefgh.npz', '.iter_30-_bcd3fgh.npz', '.log-abcdefgh']:
        (tmp_path / name).write_text('')
    remove_unfinished(tmp_path, 'iter_*.npz', 'log')
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    remove_unfinished(tmp_path / 'absent', 'log')


def test_directory_in_the_place_of_the_file(tmp_path):
    (tmp_path / 'log').mkdir()
    (tmp_path / '.log-abcdefgh').mkdir()
    with pytest.raises(InputError, match=r'log: cannot be written: Is a directory; expected a f'):
        with replace_when_done(tmp_path / 'log'):
            raise AssertionError('nothing is written first')
    remove_unfinished(tmp_path, 'log')
    assert sorted(os.listdir(tmp_path)) == ['.log-abcdefgh', 'log']


def test_a_synced_file_is_on_the_disk_before_its_name_appears(tmp_path, monkeypatch):
    path, calls = tmp_path / 'snapshot.npz', []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        name = os.readlink(f'/proc/self/fd/{handle}')
        calls.append('directory' if name == str(tmp_path) else 'file')
        real_fsync(handle)

    def replace(source, target):
        calls.append('rename')
        real_replace(source, target)

    monkeypatch.setattr(os, 'fsync', fsync)
    monkeypatch.setattr(os, 'replace', replace)
    with replace_when_done(path, sync=True) as unfinished:
        unfinished.write_text('x')
    assert calls == ['file', 'rename', 'directory']


def test_a_directory_that_is_removed_meanwhile_is_an_input_error(tmp_path):
    """Where the block notices it, and where only the renaming does."""
    path = tmp_path / 'run' / 'log'
    with pytest.raises(InputError, match=r'run/log: cannot be written: No such file or directory'):
        with replace_when_done(path) as unfinished:
            shutil.rmtree(path.parent)
            unfinished.open('r+b')
    with pytest.raises(InputError, match=r'run/log: cannot be written: No such file or directory'):
        with replace_when_done(path) as unfinished, unfinished.open('wb') as file:
            shutil.rmtree(path.parent)
            file.write(b'x')
    with pytest.raises(InputError, match=r'run/log: cannot be written: Not a directory'):
        with replace_when_done(path):
            shutil.rmtree(path.parent)
            path.parent.write_text('')
    assert os.listdir(tmp_path) == ['run']


def test_an_error_of_another_file_is_not_of_this_one(tmp_path):
    with pytest.raises(FileNotFoundError, match='input'):
        with replace_when_done(tmp_path / 'log'):
            (tmp_path / 'input').read_text()
    assert not os.listdir(tmp_path)


def test_a_directory_appears_as_a_whole(tmp_path):
    out = tmp_path / 'a' / 'out'
    with pytest.raises(RuntimeError), directory_when_done(out) as unfinished:
        (unfinished / 'x').write_text('half')
        assert not out.exists() and unfinished.parent == out.parent
        raise RuntimeError
    assert list(out.parent.iterdir()) == []
    for text in 'first', 'second':
        with directory_when_done(out) as unfinished:
            (unfinished / text).write_text(text)
        assert [path.name for path in out.iterdir()] == [text]
        assert list(out.parent.iterdir()) == [out]
    umask = os.umask(0)
    os.umask(umask)
    assert out.stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_new_directory_replaces_nothing(tmp_path):
    out = tmp_path / 'out'
    # What a process left that was killed.
    (tmp_path / '.out-abcdefgh').mkdir()
    (tmp_path / '.out-abcdefgh' / 'x').write_text('half')
    out.mkdir()
    with new_directory_when_done(out) as unfinished:
        (unfinished / 'x').write_text('whole')
    assert {path.name for path in tmp_path.iterdir()} == {'out'}
    with (
        pytest.raises(InputError, match='out: is not empty; expected a new directory'),
        new_directory_when_done(out),
    ):
        raise AssertionError
    assert (out / 'x').read_text() == 'whole'
    with (
        pytest.raises(InputError, match='x: is a file; expected a directory, or none'),
        new_directory_when_done(out / 'x'),
    ):
        raise AssertionError
