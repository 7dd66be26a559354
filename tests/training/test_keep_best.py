"""The weights with the best validation mAP."""

import json
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import model_directory
from pfdet.training.communicators import communicator
from pfdet.training.keep_best import KeepBest
from pfdet.training.run_options import RunOptions
from pfdet.training.train import train


class Network(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.w = chainer.Parameter(np.zeros(1, np.float32))


def follow(out, scores, resume=False):
    """Run the extension over iterations with these scores; :obj:`None` is no validation."""
    network, validation = Network(), SimpleNamespace(score=None)
    keep = KeepBest(out, network, validation, resume)
    for iteration, score in enumerate(scores, 1):
        network.w.array[:] = iteration
        if score is not None:
            validation.score = {'mAP': score, 'AP': {}}
        keep(SimpleNamespace(updater=SimpleNamespace(iteration=iteration)))
    return keep


def kept(out):
    if not (out / 'best.npz').exists():
        return None
    with np.load(out / 'best.npz') as arrays:
        weights = float(arrays['w'][0])
    score = json.loads((out / 'best.json').read_text())
    assert score['iteration'] == weights
    return score['iteration'], score['mAP']


@pytest.mark.parametrize(
    'scores, expected',
    [
        ([None, None], None),
        ([0.2, None, 0.5, None, 0.4], (3, 0.5)),
        # The first of equal ones
        ([0.5, 0.5, 0.5], (1, 0.5)),
        ([0.0], (1, 0.0)),
        ([0.1, 0.2, 0.3], (3, 0.3)),
    ],
)
def test_the_first_highest_is_kept(scores, expected, tmp_path):
    follow(tmp_path, scores)
    assert kept(tmp_path) == expected


def test_a_validation_without_any_class_is_never_the_best(tmp_path):
    network, validation = Network(), SimpleNamespace(score={'mAP': None})
    keep = KeepBest(tmp_path, network, validation)
    validation.score = {'mAP': None}
    keep(SimpleNamespace(updater=SimpleNamespace(iteration=1)))
    assert not (tmp_path / 'best.npz').exists() and keep.best is None


def test_a_resumed_run_compares_with_before_and_a_new_one_does_not(tmp_path):
    follow(tmp_path, [0.1, 0.5])
    follow(tmp_path, [0.3, 0.4, 0.5], resume=True)
    assert kept(tmp_path) == (2, 0.5)
    follow(tmp_path, [0.3, 0.4, 0.6], resume=True)
    assert kept(tmp_path) == (3, 0.6)
    follow(tmp_path, [None])
    assert kept(tmp_path) is None
    follow(tmp_path, [0.2])
    assert kept(tmp_path) == (1, 0.2)


@pytest.mark.parametrize('text', ['', 'null', '{}', '{"mAP": null}', '{"mAP": "a"}', '{"mAP": 7}'])
def test_a_damaged_score_is_one_line(text, tmp_path):
    follow(tmp_path, [0.1])
    (tmp_path / 'best.json').write_text(text)
    with pytest.raises(InputError, match=r'best\.json'):
        follow(tmp_path, [], resume=True)


def test_a_run(small_world, tmp_path):
    index = AnnotationIndex.open(small_world / 'train.index')
    validation = AnnotationIndex.open(small_world / 'validation.index')
    recipe = recipes.override(
        recipes.find('mini', 'mini'), ['min_size=(64,64)', 'test_sizes=(64,)', 'n_roi=16']
    )
    comm, _ = communicator()
    options = RunOptions(iterations=4, keep_best=True, val_interval=0.01, log_interval=1)
    with pytest.raises(InputError, match='--keep-best: needs a validation set'):
        train(recipe, index, tmp_path / 'run', comm, options)
    assert train(recipe, index, tmp_path / 'run', comm, options, val_index=validation)
    log = json.loads((tmp_path / 'run' / 'log').read_text())
    found = [entry['validation/mAP'] for entry in log if 'validation/mAP' in entry]
    assert len(found) > 1
    best = json.loads((tmp_path / 'run' / 'best.json').read_text())
    assert best['mAP'] == max(found)
    model = model_directory.read(tmp_path / 'run', weights=tmp_path / 'run' / 'best.npz')
    assert model_directory.weights_note(model).endswith('best.npz')
