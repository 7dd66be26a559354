"""Snapshots: atomic writes, detection of damage, and removal of old ones."""

import errno
import os
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import chainer
import chainer.memory_layouts  # needed by chainer.links.Linear, which does not import it
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.iterators.sharded import ShardedIterator
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
    assert 'CRC' in checkpoints.problem(path)


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


class RealTrainer:
    """A trainer with all that a training run saves."""

    def __init__(self):
        network = chainer.Chain()
        with network.init_scope():
            network.fc = chainer.links.Linear(3, 2)
            network.bn = chainer.links.BatchNormalization(2)
        optimizer = chainer.optimizers.CorrectedMomentumSGD().setup(network)
        iterator = ShardedIterator(range(1000), lambda *args: args, 4)
        updater = chainer.training.StandardUpdater(iterator, optimizer)
        self.trainer = chainer.training.Trainer(updater, (1, 'epoch'))
        # As if it was running.
        self.trainer._start_at = 0.0

    def step(self):
        updater = self.trainer.updater
        for param in updater.get_optimizer('main').target.params():
            param.grad = np.ones_like(param.array)
        updater.get_optimizer('main').update()
        next(updater.get_iterator('main'))
        updater.iteration += 1
        return self

    def state(self):
        serializer = chainer.serializers.DictionarySerializer()
        serializer.save(self.trainer)
        return serializer.target


FC = 'updater/model:main/fc/W'
VELOCITY = 'updater/optimizer:main/fc/W/v'
POSITION = 'updater/iterator:main/position'
PREVIOUS = 'updater/iterator:main/previous_position'
OBJECT = np.array([print], object)


def test_whole_state_of_a_trainer_is_read_back(tmp_path):
    one = RealTrainer().step().step()
    path = tmp_path / 'iter_00000002.npz'
    checkpoints.write(path, one.state(), {})
    for other in RealTrainer(), RealTrainer().step():
        checkpoints.load(other.trainer, path)
        # The time goes on.
        for name in one.state().keys() - {'_snapshot_elapsed_time'}:
            np.testing.assert_array_equal(other.state()[name], one.state()[name], err_msg=name)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({FC: None}, 'not a snapshot of this run: lacks updater/model:main/fc/W'),
        ({FC: np.ones((2, 4), np.float32)}, r'fc/W has shape \(2, 4\); expected \(2, 3\)'),
        ({FC: np.ones((1, 3), np.float32)}, r'fc/W has shape \(1, 3\)'),
        ({FC: np.full((2, 3), np.nan, np.float32)}, 'fc/W has nan'),
        ({FC: OBJECT}, 'fc/W: has pickled Python objects'),
        ({'updater/model:main/bn/avg_var': -np.ones(2, np.float32)}, 'bn/avg_var has -1.0'),
        ({VELOCITY: np.full((2, 3), np.inf, np.float32)}, 'fc/W/v has inf'),
        ({VELOCITY: np.ones(3, np.float32)}, r'fc/W/v has shape \(3,\); expected \(2, 3\)'),
        ({VELOCITY: np.ones((9, 9), np.float32)}, r'fc/W/v has shape \(9, 9\)'),
        ({POSITION: 2**62}, 'at image 4611686018427387904 of the sequence; expected at least 1'),
        ({POSITION: -5}, 'at image -5'),
        ({POSITION: 1}, 'iteration 2 at image 1'),
        ({POSITION: [8, 8]}, 'expected a snapshot of this run'),
        ({POSITION: 'eight'}, 'expected a snapshot of this run'),
        ({POSITION: OBJECT}, 'position: has pickled Python objects'),
        ({POSITION: None}, 'lacks updater/iterator:main/position'),
        ({POSITION: np.nan}, 'expected a snapshot of this run'),
        ({PREVIOUS: -4}, 'after image -4'),
        ({PREVIOUS: 2**40}, 'after image 1099511627776'),
        ({'updater/iteration': -1}, 'iteration -1'),
        ({'updater/iteration': 2**62}, 'iteration 4611686018427387904'),
        ({'updater/iteration': 1.5}, 'iteration: TypeError'),
        ({'updater/optimizer:main/fc/W/t': 'a'}, 'fc/W/t: invalid literal'),
    ],
)
@pytest.mark.parametrize('n_step', [0, 1])
def test_impossible_states_are_refused(tmp_path, changes, message, n_step):
    path = tmp_path / 'iter_00000002.npz'
    state = {**RealTrainer().step().step().state(), **changes}
    np_state = {name: np.asarray(value) for name, value in state.items() if value is not None}
    checkpoints.write(path, np_state, {})
    assert checkpoints.problem(path) is None
    trainer = RealTrainer()
    for _ in range(n_step):
        trainer.step()
    with pytest.raises(InputError, match=message) as e:
        checkpoints.load(trainer.trainer, path)
    assert str(e.value).startswith(f'{path}: ') and '\n' not in str(e.value)


@pytest.mark.parametrize(
    'run, message',
    [
        ('{"seed": ', 'not JSON'),
        ('[' * 100_000, 'nested too deeply'),
        ('[1]', 'it is not an object'),
        ('', 'not JSON'),
        (np.arange(3), 'not JSON'),
        (OBJECT, 'pickled Python objects'),
    ],
)
def test_bad_description_of_the_run(tmp_path, run, message):
    path = tmp_path / 'iter_00000002.npz'
    with open(path, 'wb') as file:
        np.savez(file, pfdet_run=run)
    with pytest.raises(InputError, match=rf'^{path}: .*pfdet_run: .*{message}'):
        checkpoints.read_run(path)


def test_files_that_are_no_snapshots_are_damaged_at_once(tmp_path):
    """Nothing waits for a pipe, reads a device to its end, or removes a directory."""
    os.mkfifo(tmp_path / 'iter_00000005.npz')
    (tmp_path / 'iter_00000004.npz').symlink_to('/dev/zero')
    (tmp_path / 'iter_00000003.npz').mkdir()
    good = tmp_path / 'iter_00000002.npz'
    checkpoints.write(good, STATE, {})
    lines = []
    path, damaged = checkpoints.newest(tmp_path, lines.append)
    assert path == good and [p.name for p in damaged] == ['iter_00000005.npz', 'iter_00000004.npz']
    assert 'damaged snapshot (cannot be read: a named pipe' in lines[0]
    assert 'damaged snapshot (cannot be read: a device' in lines[1]
    snapshot = checkpoints.Snapshot(tmp_path, keep=1)
    snapshot.damaged = damaged
    snapshot(Trainer(6))
    assert names(tmp_path) == ['iter_00000003.npz', 'iter_00000006.npz']


def test_snapshot_of_objects_without_checksum_is_damaged(tmp_path):
    """Reading it would execute code."""
    path = tmp_path / 'iter_00000002.npz'
    np.savez(path, a=np.zeros(3), b=OBJECT)
    assert 'array b: has pickled Python objects' in checkpoints.problem(path)


def test_a_snapshot_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, synced = tmp_path / 'iter_00000001.npz', []
    real = os.fsync

    def fsync(handle):
        synced.append((os.fstat(handle).st_size, path.exists()))
        real(handle)

    monkeypatch.setattr(os, 'fsync', fsync)
    checkpoints.write(path, {'x': np.arange(999.0)}, {})
    assert (path.stat().st_size, False) in synced
