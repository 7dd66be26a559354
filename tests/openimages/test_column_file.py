"""Files of columns: every damaged byte is found on opening, and large files are read once."""

import io
import math
import os
import zlib

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.files import verified_files
from pfdet.openimages import column_file
from pfdet.openimages.column_file import map_columns, write_columns

COLUMNS = {
    'a': np.arange(37, dtype=np.int32),
    'b': np.linspace(0, 1, 30, dtype=np.float32).reshape(10, 3),
    'empty': np.zeros((0, 4), np.float32),
    'c': np.arange(129, dtype=np.uint8),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'x.columns'
    write_columns(path, 'test', COLUMNS, {'note': 'n'})
    return path


def test_columns_are_read_back(path):
    columns, header = map_columns(path, 'test')
    assert list(columns) == list(COLUMNS) and header['note'] == 'n'
    for name, expected in COLUMNS.items():
        assert columns[name].dtype == expected.dtype and not columns[name].flags.writeable
        np.testing.assert_array_equal(columns[name], expected)


def test_a_flipped_bit_in_any_byte_is_one_line(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    found = set()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r'x\.columns: ') as e:
            map_columns(path, 'test')
        assert '\n' not in str(e.value)
        found.add(str(e.value).partition(': ')[2].partition(';')[0])
    assert found >= {
        'the header is damaged',
        'column a is damaged (checksum mismatch)',
        'column b is damaged (checksum mismatch)',
        'column c is damaged (checksum mismatch)',
        'bytes between the columns are damaged',
    }


def test_checksums_are_those_of_the_bytes_of_the_columns(path):
    """Computed here without the package."""
    whole = path.read_bytes()
    _, header = map_columns(path, 'test')
    start = len(whole) - header['data_size']
    for name, entry in header['columns'].items():
        begin = start + entry['offset']
        size = math.prod(entry['shape']) * np.dtype(entry['dtype']).itemsize
        assert entry['crc32'] == zlib.crc32(whole[begin : begin + size])
        assert whole[begin : begin + size] == COLUMNS[name].tobytes()


def test_a_large_file_is_read_once(path, tmp_path, monkeypatch):
    monkeypatch.setenv('PFDET_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(verified_files, 'SMALL', 0)
    monkeypatch.setattr(verified_files, '_RECENT', -1e9)
    verify, n = column_file._verify, []
    monkeypatch.setattr(column_file, '_verify', lambda *args: n.append(1) or verify(*args))
    for _ in range(3):
        map_columns(path, 'test')
    assert len(n) == 1
    damaged = bytearray(path.read_bytes())
    damaged[-70] ^= 4
    path.write_bytes(damaged)
    for _ in range(2):
        with pytest.raises(InputError, match='column c is damaged'):
            map_columns(path, 'test')
    assert len(n) == 3


def test_an_error_of_the_disk_is_one_line(path, monkeypatch):
    """Not a signal, as it would be if the file was verified through its mapping."""

    class Unreadable(io.FileIO):
        def read(self, size=-1):
            if self.tell() > 400:
                raise OSError(5, os.strerror(5))
            return super().read(size)

    monkeypatch.setattr(column_file, 'open', lambda path, *_, **__: Unreadable(path), raising=False)
    with pytest.raises(InputError, match='cannot read the test: Input/output error'):
        map_columns(path, 'test')


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    for name in 'pipe', '.':
        with pytest.raises(InputError, match='cannot read the test'):
            map_columns(tmp_path / name, 'test')
