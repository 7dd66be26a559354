"""The log for TensorBoard, read back by a plain reader and by TensorBoard's; other extensions."""

import importlib.util
import json
import struct
import sys
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import pytest
from chainer import training

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.training.communicators import communicator
from pfdet.training.run_options import RunOptions
from pfdet.training.tensorboard import TensorBoard
from pfdet.training.train import train


@pytest.fixture(scope='module')
def run(small_world):
    """Call it as ``run(out, n_iteration, **options)`` to train a tiny model."""
    index = AnnotationIndex.open(small_world / 'train.index')
    validation = AnnotationIndex.open(small_world / 'validation.index')
    recipe = recipes.override(
        recipes.find('mini', 'mini'), ['min_size=(64,64)', 'test_sizes=(64,)', 'n_roi=16']
    )
    comm, _ = communicator()

    def run(out, n_iteration, extensions=(), **options):
        options = RunOptions(iterations=n_iteration, **options)
        return train(recipe, index, out, comm, options, val_index=validation, extensions=extensions)

    return run


def crc32c(data):
    """Bit by bit, as the format defines it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    """Read the records of an event file, and verify their checksums."""
    data, begin = path.read_bytes(), 0
    while begin < len(data):
        length, crc = struct.unpack_from('<QI', data, begin)
        assert masked(data[begin : begin + 8]) == crc
        content = data[begin + 12 : begin + 12 + length]
        assert masked(content) == struct.unpack_from('<I', data, begin + 12 + length)[0]
        yield content
        begin += 16 + length


def points(directory):
    """By tag, the value at each iteration, by the rule for files of a resumed run."""
    event_pb2 = pytest.importorskip('tensorboardX.proto.event_pb2')
    found = {}
    for path in sorted((directory / 'tensorboard').iterdir()):
        for record in records(path):
            event = event_pb2.Event.FromString(record)
            if event.session_log.status == event_pb2.SessionLog.START:
                for values in found.values():
                    for step in [step for step in values if step >= event.step]:
                        del values[step]
            for value in event.summary.value:
                values = found.setdefault(value.tag, {})
                assert event.step not in values, 'two points at one iteration'
                values[event.step] = value.simple_value
    return found


def points_of_tensorboard(directory):
    """The same by TensorBoard's own reader."""
    name = 'tensorboard.backend.event_processing.event_accumulator'
    reader = importlib.import_module(name)
    accumulator = reader.EventAccumulator(str(directory / 'tensorboard'))
    accumulator.Reload()
    found = {}
    for tag in accumulator.Tags()['scalars']:
        events = accumulator.Scalars(tag)
        found[tag] = {event.step: event.value for event in events}
        assert len(found[tag]) == len(events), 'two points at one iteration'
    return found


def expected(log, validated):
    found = {}
    for entry in log:
        for name, value in entry.items():
            if name != 'iteration' and not name.startswith('validation/'):
                found.setdefault(name, {})[entry['iteration']] = pytest.approx(value, rel=1e-6)
    found['validation/mAP'] = {i: pytest.approx(mean, rel=1e-6) for i, mean in validated.items()}
    return found


class Validations(training.Extension):
    """Notes the results of validations."""

    trigger = 1, 'iteration'

    def __init__(self):
        self.found = {}

    def __call__(self, trainer):
        if 'validation/mAP' in trainer.observation:
            self.found[trainer.updater.iteration] = trainer.observation['validation/mAP']


def test_a_run_that_is_killed_and_resumed(run, tmp_path):
    """The run loses iteration 5, of which there is a point already, and does it again."""
    pytest.importorskip('tensorboardX')
    has_other = importlib.util.find_spec('tensorboard') is not None
    readers = [points, points_of_tensorboard] if has_other else [points]
    validations, out = Validations(), tmp_path / 'run'
    given = dict(tensorboard=True, snapshot_interval=2, val_interval=0.125)
    given['extensions'] = [validations]
    assert run(out, 5, log_interval=2, **given)
    log = json.loads((out / 'log').read_text())
    assert [entry['iteration'] for entry in log] == [2, 4, 5]
    assert len(validations.found) > 1
    for read in readers:
        assert read(out) == expected(log, validations.found)
    (out / 'snapshots' / 'iter_00000005.npz').unlink()
    assert run(out, 8, log_interval=2, resume=True, **given)
    log = json.loads((out / 'log').read_text())
    assert [entry['iteration'] for entry in log] == [2, 4, 6, 8]
    for read in readers:
        assert read(out) == expected(log, validations.found)
    assert {'main/loss', 'lr', 'epoch', 'elapsed_time', 'validation/mAP'} <= points(out).keys()
    assert len(list((out / 'tensorboard').iterdir())) == 2


def test_the_past_of_a_run_that_had_none(run, tmp_path):
    pytest.importorskip('tensorboardX')
    out = tmp_path / 'run'
    assert run(out, 2, log_interval=1)
    assert not (out / 'tensorboard').exists()
    assert run(out, 4, log_interval=1, resume=True, tensorboard=True)
    log = json.loads((out / 'log').read_text())
    assert points(out)['main/loss'] == {
        entry['iteration']: pytest.approx(entry['main/loss'], rel=1e-6) for entry in log
    }
    assert list(points(out)['main/loss']) == [1, 2, 3, 4]


def test_values_are_in_the_file_at_once(tmp_path):
    """So that killing the process loses none."""
    pytest.importorskip('tensorboardX')
    log = []
    trainer = SimpleNamespace(
        updater=SimpleNamespace(iteration=0),
        observation={},
        get_extension=lambda name: SimpleNamespace(log=log),
    )
    board = TensorBoard(tmp_path)
    board.initialize(trainer)
    for iteration in 1, 2, 3:
        trainer.updater.iteration = iteration
        trainer.observation = {'validation/mAP': None if iteration == 1 else 0.5}
        if iteration != 2:
            log.append({'iteration': iteration, 'lr': 0.25 * iteration, 'validation/mAP': 0.5})
        board(trainer)
        found = points(tmp_path)
        assert found['lr'] == {i: 0.25 * i for i in (1, 3) if i <= iteration}
        assert found.get('validation/mAP', {}) == {i: 0.5 for i in (2, 3) if i <= iteration}


def test_runs_that_start_in_the_same_second_keep_their_files(tmp_path):
    pytest.importorskip('tensorboardX')
    trainer = SimpleNamespace(
        updater=SimpleNamespace(iteration=0),
        get_extension=lambda name: SimpleNamespace(log=[]),
    )
    for _ in range(3):
        TensorBoard(tmp_path).initialize(trainer)
    assert len(list((tmp_path / 'tensorboard').iterdir())) == 3


def test_without_the_package(run, tmp_path, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    message = r'^--tensorboard: tensorboardX is not installed; expected: pip install pfdet\[tens'
    with pytest.raises(InputError, match=message):
        run(tmp_path / 'run', 1, tensorboard=True)
    assert not (tmp_path / 'run').exists()
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
    monkeypatch.setitem(sys.modules, 'tensorboardX.proto.event_pb2', None)
    with pytest.raises(InputError, match='tensorboardX .*; expected: pip install'):
        TensorBoard(tmp_path)


def test_extensions(run, tmp_path):
    """Those of Chainer and plain functions; a resumed run may have others."""
    seen = []

    @training.make_extension(trigger=(2, 'iteration'))
    def note(trainer):
        log = trainer.get_extension('LogReport').log
        seen.append((trainer.updater.iteration, float(trainer.observation['main/loss']), len(log)))

    plain = []
    out = tmp_path / 'run'
    run(out, 4, log_interval=1, extensions=[note])
    entries = json.loads((out / 'log').read_text())
    assert seen == [(k, pytest.approx(entries[k - 1]['main/loss']), k) for k in (2, 4)]

    def each(trainer):
        plain.append(trainer.updater.iteration)

    run(out, 6, log_interval=1, resume=True, extensions=[each])
    assert plain == [5, 6] and len(seen) == 2
