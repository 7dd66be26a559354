"""The log: one writer, one validation per entry."""

import errno
import json
import os
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import chainer
import pytest

from pfdet.errors import InputError
from pfdet.training.reports import Log, line


class Trainer:
    """The parts of a trainer that the log uses."""

    is_before_training = False
    elapsed_time = 2.5

    def __init__(self, out):
        # Chainer's LogReport writes to this directory.
        self.out = str(out)
        self.updater = SimpleNamespace(epoch=1, iteration=0)
        self.observation = {}

    def step(self, log, **observation):
        self.updater.iteration += 1
        self.observation = {'lr': 0.1, **observation}
        log(self)


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / 'run' / 'log', lambda trainer: trainer.updater.iteration % 3 == 0)


def test_log_has_the_means_and_is_the_only_file(log, tmp_path):
    trainer = Trainer(tmp_path / 'chainer')
    for loss in 1.0, 2.0, 6.0, 10.0, 10.0, 13.0, 99.0:
        trainer.step(log, **{'main/loss': loss})
    entries = json.loads((tmp_path / 'run' / 'log').read_text())
    assert [(e['iteration'], e['main/loss']) for e in entries] == [(3, 3.0), (6, 11.0)]
    assert entries[0] == {
        'main/loss': 3.0,
        'lr': pytest.approx(0.1),
        'epoch': 1,
        'iteration': 3,
        'elapsed_time': 2.5,
    }
    # LogReport would write chainer/log by way of a directory chainer/log????????.
    assert os.listdir(tmp_path) == ['run'] and os.listdir(tmp_path / 'run') == ['log']


def test_entry_has_the_last_of_several_validations(log, tmp_path):
    trainer = Trainer(tmp_path)
    trainer.step(log, **{'main/loss': 1.0})
    trainer.step(log, **{'main/loss': 1.0, 'validation/mAP': 0.25})
    trainer.step(log, **{'main/loss': 4.0, 'validation/mAP': 0.75})
    for _ in range(3):
        trainer.step(log, **{'main/loss': 1.0})
    first, second = log.log
    assert first['validation/mAP'] == 0.75 and first['main/loss'] == 2.0
    assert 'mAP 0.7500' in line(first, 1.0)
    assert 'validation/mAP' not in second


def test_log_continues_from_a_snapshot_of_chainers_log(log, tmp_path):
    """And with validations of an entry that is not complete yet."""
    older = chainer.training.extensions.LogReport(trigger=lambda trainer: False)
    assert log.name == older.name is None and log.default_name == older.default_name
    trainer = Trainer(tmp_path)
    trainer.step(older, **{'main/loss': 1.0, 'validation/mAP': 0.25})
    older._log = [{'iteration': 0}]
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(older)
    log.serialize(chainer.serializers.NpzDeserializer(serializer.target))
    trainer.step(log, **{'main/loss': 2.0, 'validation/mAP': 0.75})
    trainer.step(log, **{'main/loss': 3.0})
    assert [entry['iteration'] for entry in log.log] == [0, 3]
    assert log.log[1]['main/loss'] == 2.0 and log.log[1]['validation/mAP'] == 0.75


def test_full_disk_is_one_line_and_keeps_the_log(log, tmp_path, monkeypatch):
    trainer = Trainer(tmp_path)
    for _ in range(3):
        trainer.step(log, **{'main/loss': 1.0})
    before = (tmp_path / 'run' / 'log').read_text()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr('pathlib.Path.write_text', full)
    with pytest.raises(InputError, match='log: cannot be written: No space left') as e:
        for _ in range(3):
            trainer.step(log, **{'main/loss': 1.0})
    assert '\n' not in str(e.value)
    assert (tmp_path / 'run' / 'log').read_text() == before
    assert os.listdir(tmp_path / 'run') == ['log']
