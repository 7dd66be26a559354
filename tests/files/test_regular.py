"""Only regular files are opened, and anything else is an error at once."""

import os
import socket

import pytest

from pfdet.files.regular import NotRegularFileError, read_bytes, regular_file

CONTENT = bytes(range(256)) * 300


def test_reads_regular_files_and_links(tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(CONTENT)
    (tmp_path / 'link').symlink_to(path)
    for name in 'a', 'link':
        assert read_bytes(tmp_path / name) == CONTENT
        assert read_bytes(str(tmp_path / name), 100) == CONTENT[:100]
        assert read_bytes(tmp_path / name, 1 << 40) == CONTENT
        with open(tmp_path / name, 'rb', opener=regular_file) as file:
            assert file.read() == CONTENT
            assert not os.get_inheritable(file.fileno())
    (tmp_path / 'empty').touch()
    assert read_bytes(tmp_path / 'empty') == b'' == read_bytes(path, 0)
    with open(tmp_path / 'text', 'w', opener=regular_file) as file:
        file.write('ä\n')
    with open(tmp_path / 'text', encoding='utf-8', opener=regular_file) as file:
        assert file.read() == 'ä\n'


def test_short_reads_are_continued(tmp_path, monkeypatch):
    """As a network file system may return them."""
    path = tmp_path / 'a'
    path.write_bytes(CONTENT)
    read = os.read
    monkeypatch.setattr(os, 'read', lambda handle, n: read(handle, min(n, 1000)))
    assert read_bytes(path) == CONTENT and read_bytes(path, 1500) == CONTENT[:1500]


@pytest.fixture
def special(tmp_path):
    """Paths that are not regular files, with what they are."""
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'link to a pipe').symlink_to(tmp_path / 'pipe')
    (tmp_path / 'link to a device').symlink_to('/dev/zero')
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as server:
        # The length of a socket's path is limited.
        os.chdir(tmp_path)
        server.bind('socket')
        os.chdir(here)
        yield {
            tmp_path / 'pipe': 'a named pipe',
            tmp_path / 'link to a pipe': 'a named pipe',
            tmp_path / 'link to a device': 'a device',
            tmp_path / 'socket': 'a socket',
            '/dev/null': 'a device',
            '/dev/full': 'a device',
        }


def test_everything_else_is_an_error(special):
    n_open = len(os.listdir('/proc/self/fd'))
    for path, kind in special.items():
        for read in read_bytes, lambda path: open(path, opener=regular_file):
            with pytest.raises(NotRegularFileError) as e:
                read(path)
            assert e.value.strerror == f'{kind}; expected a regular file'
            assert e.value.filename == str(path)
    assert len(os.listdir('/proc/self/fd')) == n_open


def test_usual_errors_stay(tmp_path):
    (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
    for path, error in (
        (tmp_path, IsADirectoryError),
        (tmp_path / 'absent', FileNotFoundError),
        (tmp_path / 'loop', OSError),
        ('a\0b', ValueError),
    ):
        for read in read_bytes, lambda path: open(path, opener=regular_file):
            with pytest.raises(error) as e:
                read(path)
            assert not isinstance(e.value, NotRegularFileError)


def test_large_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / 'sparse'
    with open(path, 'wb') as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(os, 'read', None)
    with pytest.raises(OSError, match='has 1,099,511,627,776 bytes, more than 1,000,000'):
        read_bytes(path, max_size=1_000_000)


def test_system_calls(tmp_path, monkeypatch):
    """Reading costs one stat more than opening."""
    path = tmp_path / 'a'
    path.write_bytes(CONTENT)
    calls = []
    for name in 'open', 'fstat', 'stat', 'lstat', 'read', 'close':
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, call=call: calls.append(name) or call(*args)
        )
    read_bytes(path)
    monkeypatch.undo()
    assert calls == ['open', 'fstat', 'read', 'close']
