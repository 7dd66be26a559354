"""Snapshots: atomic writes, detection of damage, and removal of old ones."""

import errno
import os
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.training import checkpoints

STATE = {
    'updater/model:main/W': np.arange(600, dtype=np.float32).reshape(20, 30),
    'updater/iteration': np.array(7),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'snapshots' / 'iter_00000007.npz'
    checkpoints.write(path, STATE, {'seed': 3})
    return path


class Trainer:
    """The parts of a trainer that a snapshot uses."""

    def __init__(self, iteration=0, weight=1.0):
        self.updater = SimpleNamespace(iteration=iteration)
        self.weight = np.array([weight])

    def serialize(self, serializer):
        self.weight = serializer['updater']('weight', self.weight)


def names(directory):
    return sorted(os.listdir(directory))


def test_snapshot_is_read_back(path):
    assert checkpoints.problem(path) is None
    assert checkpoints.read_run(path) == {'seed': 3}
    with np.load(path) as file:
        for name, value in STATE.items():
            np.testing.assert_array_equal(file[name], value)


def test_checksum_is_the_sha256_of_the_archive(path, tmp_path):
    """It can be verified without pfdet."""
    import hashlib

    content = path.read_bytes()
    archive, digest = content[:-64], content[-64:]
    archive, _, line = archive.rpartition(b'\n')
    assert line == b'pfdet snapshot, SHA-256 of what precedes: '
    assert hashlib.sha256(archive).hexdigest().encode() == digest


def test_every_flipped_bit_is_detected(path):
    """Except in the text of the checksum line: then the checksums inside the archive are used."""
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    size = len(content) - 64 - len('\npfdet snapshot, SHA-256 of what precedes: ')
    for offset in [
        0,
        size - 1,
        *rng.integers(0, size, 60),
        *range(len(content) - 64, len(content)),
    ]:
        damaged = bytearray(content)
        damaged[offset] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        assert checkpoints.problem(path) == 'wrong checksum', offset


def test_every_truncation_is_detected(path):
    """A complete archive with an incomplete checksum line is accepted, as in older versions."""
    content = path.read_bytes()
    archive = len(content) - 64 - len('\npfdet snapshot, SHA-256 of what precedes: ')
    for size in [0, 1, 100, *range(200, archive, 97), archive - 1]:
        path.write_bytes(content[:size])
        assert checkpoints.problem(path) is not None, size
    for size in archive, archive + 10, len(content) - 1:
        path.write_bytes(content[:size])
        assert checkpoints.problem(path) is None
        assert checkpoints.read_run(path) == {'seed': 3}


def test_missing_snapshot_cannot_be_read(path):
    path.unlink()
    assert 'cannot be read' in checkpoints.problem(path)


def test_snapshot_without_checksum_is_readable(tmp_path):
    """Older versions used Chainer's ``save_npz``."""
    path = tmp_path / 'iter_00000002.npz'
    chainer.serializers.save_npz(str(path), Trainer(2, weight=5.0), compression=False)
    assert checkpoints.newest(tmp_path) == (path, [])
    assert checkpoints.read_run(path) == {}
    trainer = Trainer()
    checkpoints.load(trainer, path)
    assert trainer.weight == 5
    content = bytearray(path.read_bytes())
    content[content.index(np.array([5.0]).tobytes())] ^= 1
    path.write_bytes(content)
    assert 'checksum' in checkpoints.problem(path)


def test_newest_undamaged_snapshot_is_found_with_warnings(tmp_path):
    assert checkpoints.newest(tmp_path) == (None, [])
    snapshot = checkpoints.Snapshot(tmp_path, {'seed': 1}, keep=4)
    for i in 8, 9, 10, 11:
        snapshot(Trainer(i, weight=i))
    eight, nine, ten, eleven = (tmp_path / name for name in names(tmp_path))
    eleven.write_bytes(eleven.read_bytes()[:-200])
    content = bytearray(ten.read_bytes())
    content[len(content) // 2] ^= 255
    ten.write_bytes(content)
    # The temporary file of a killed writer.
    (tmp_path / '.iter_00000012-abcdefgh.npz').write_bytes(b'PK')
    lines = []
    assert checkpoints.newest(tmp_path, lines.append) == (nine, [eleven, ten])
    assert len(lines) == 2 and str(eleven) in lines[0] and str(ten) in lines[1]
    assert not any('\n' in line for line in lines)
    assert names(tmp_path) == [p.name for p in (eight, nine, ten, eleven)]
    trainer = Trainer()
    checkpoints.load(trainer, nine)
    assert trainer.weight == 9 and checkpoints.read_run(nine) == {'seed': 1, 'iteration': 9}

    # The next snapshot replaces the damaged ones.
    snapshot.damaged = [eleven, ten]
    snapshot(Trainer(10))
    assert names(tmp_path) == [p.name for p in (eight, nine, ten)]
    assert checkpoints.problem(ten) is None


def test_only_damaged_snapshots_are_an_error_and_kept(path):
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r'all snapshots are damaged \(1\)'):
        checkpoints.newest(path.parent, lambda line: None)
    assert path.exists()


def test_newest_snapshots_are_kept(tmp_path):
    snapshot = checkpoints.Snapshot(tmp_path, keep=2)
    for i in 99_999_999, 100_000_000, 100_000_001:
        snapshot(Trainer(i))
    # Sorted by number, not by name.
    assert names(tmp_path) == ['iter_100000000.npz', 'iter_100000001.npz']
    with pytest.raises(ValueError, match='at least 1'):
        checkpoints.Snapshot(tmp_path, keep=0)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_nonfinite_weights_are_not_written(tmp_path, value):
    snapshot = checkpoints.Snapshot(tmp_path)
    with pytest.raises(InputError, match='iteration 3: weight is not finite'):
        snapshot(Trainer(3, weight=value))
    assert names(tmp_path) == []


def test_full_disk_keeps_the_previous_snapshot(tmp_path, monkeypatch):
    snapshot = checkpoints.Snapshot(tmp_path, keep=1)
    snapshot(Trainer(1))

    def write(self, data):
        self.n_left = getattr(self, 'n_left', 300) - len(data)
        if self.n_left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    monkeypatch.setattr(checkpoints._HashedFile, 'write', write)
    with pytest.raises(InputError, match=r'iter_00000002\.npz: cannot be written: No space left'):
        snapshot(Trainer(2))
    assert names(tmp_path) == ['iter_00000001.npz']
    assert checkpoints.problem(tmp_path / 'iter_00000001.npz') is None


def test_snapshot_of_another_network_is_rejected(path):
    with pytest.raises(InputError, match=r'iter_00000007\.npz: not a snapshot of this run'):
        checkpoints.load(Trainer(), path)
