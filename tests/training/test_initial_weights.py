"""The record of what a run started from: ``"run"`` in its ``recipe.json``."""

import hashlib
import json
from pathlib import Path

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.links.backbone_file import write_backbone
from pfdet.training.initial_weights_file import check_backbone, initial_weights_facts

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / 'train' / 'train_multi.py'
SMALL = [
    '--set',
    'min_size=(64, 64)',
    'batch_size=2',
    'fpn_channel=16',
    'head_unit=32',
    'n_anchor=32',
    'n_roi=16',
    'aspect_chunk=1',
]
PREFIX = 'extractor/base/'


def train(mpiexec, world, out, *more, recipe='mini', iterations=1, check=True, ranks=1):
    return mpiexec(
        ranks,
        TRAIN,
        *('--recipe', recipe, '--scale', 'mini', '--train-index', world / 'train.index'),
        *('--out', out, '--iterations', iterations, '--snapshot-interval', 1, *more, *SMALL),
        check=check,
    )


def facts(out):
    """The record, without what every run has."""
    run = json.loads((out / 'recipe.json').read_text())['run']
    return {key: value for key, value in run.items() if key in KEYS}


KEYS = ('random_weights', 'init', 'init_sha256', 'init_kind', 'init_recipe')


def notes(done):
    return [line for line in done.stderr.splitlines() if line.startswith('note: ')]


@pytest.fixture(scope='module')
def model(small_world, tmp_path_factory, mpiexec):
    """A run that started from random weights, and what it printed."""
    out = tmp_path_factory.mktemp('model')
    return out, train(mpiexec, small_world, out)


@pytest.fixture(scope='module')
def backbone(model, tmp_path_factory):
    """A backbone file of the model's backbone."""
    path = tmp_path_factory.mktemp('backbone') / 'backbone.npz'
    with np.load(model[0] / 'model.npz') as file:
        arrays = {k.removeprefix(PREFIX): file[k] for k in file.files if k.startswith(PREFIX)}
    write_backbone(path, arrays)
    return path


def described(path, kind, recipe=None):
    return {
        'random_weights': False,
        'init': str(path),
        'init_sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
        'init_kind': kind,
        'init_recipe': recipe,
    }


def test_random_weights_are_recorded_and_said(model):
    out, done = model
    assert facts(out) == {'random_weights': True, 'init': None}
    assert notes(done) == [
        'note: This run started from random weights; its recipe starts from a backbone trained on '
        'ImageNet.'
    ]


def test_a_detector_in_place_of_a_backbone_is_recorded_and_said(
    model, small_world, tmp_path, mpiexec
):
    weights = model[0] / 'model.npz'
    done = train(mpiexec, small_world, tmp_path / 'run', '--init', weights)
    assert facts(tmp_path / 'run') == described(weights, 'detector', 'mini')
    (note,) = notes(done)
    assert 'started from a detector; its recipe starts from a backbone' in note


def test_a_backbone_file_is_what_a_backbone_starts_from(backbone, small_world, tmp_path, mpiexec):
    done = train(mpiexec, small_world, tmp_path / 'run', '--backbone', backbone)
    assert facts(tmp_path / 'run') == described(backbone, 'backbone')
    assert notes(done) == []


def test_a_detector_is_no_backbone(model, small_world, tmp_path, mpiexec):
    weights = model[0] / 'model.npz'
    done = train(
        mpiexec, small_world, tmp_path / 'run', '--backbone', weights, check=False, ranks=2
    )
    assert done.returncode == 2 and not (tmp_path / 'run').exists()
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('error')]
    assert f'--backbone {weights}: not a backbone file; expected one written by pfdet conv' in line


def test_resuming_keeps_the_record_of_the_start(model, backbone, small_world, tmp_path, mpiexec):
    """The weights of a resumed run are those of its snapshot; other weights are refused."""
    out, copy = tmp_path / 'run', tmp_path / 'model.npz'
    copy.write_bytes((model[0] / 'model.npz').read_bytes())
    # A recipe that fine-tunes another one needs weights to start, but none to resume.
    more = {'recipe': 'cs-table4-hybrid-s20'}
    refused = train(mpiexec, small_world, out, '--resume', check=False, **more)
    assert refused.returncode == 2
    assert 'starts from the weights of cs-table4-scratch-20' in refused.stderr
    train(mpiexec, small_world, out, '--random-weights', **more)
    assert facts(out) == {'random_weights': True, 'init': None}
    for iterations, weights in (2, ()), (3, ('--random-weights',)):
        done = train(mpiexec, small_world, out, '--resume', *weights, iterations=iterations, **more)
        assert facts(out) == {'random_weights': True, 'init': None}
        assert 'from random weights; its recipe starts from the weights of cs-' in notes(done)[0]
    other = ('--resume', '--backbone', backbone)
    refused = train(mpiexec, small_world, out, *other, check=False, iterations=4, **more)
    assert refused.returncode == 2
    assert f'started from random weights, not from the weights of {backbone}' in refused.stderr
    assert facts(out) == {'random_weights': True, 'init': None}


@pytest.mark.parametrize('recipe', ['missing', '{', '[]', '{"recipe": 3}'])
def test_weights_without_a_usable_recipe_have_no_name(recipe, tmp_path):
    path = tmp_path / 'model.npz'
    np.savez(path, x=np.zeros(3))
    if recipe != 'missing':
        (tmp_path / 'recipe.json').write_text(recipe)
    assert initial_weights_facts(path) == described(path, 'detector')


def test_kinds_of_files(tmp_path):
    write_backbone(tmp_path / 'b.npz', {'conv1/W': np.zeros(3, np.float32)}, ['fc/W'])
    assert initial_weights_facts(tmp_path / 'b.npz') == described(tmp_path / 'b.npz', 'backbone')
    check_backbone(tmp_path / 'b.npz')
    (tmp_path / 'text.npz').write_text('no archive')
    with pytest.raises(InputError, match='text.npz'):
        check_backbone(tmp_path / 'text.npz')
    with pytest.raises(InputError, match='absent.npz'):
        check_backbone(tmp_path / 'absent.npz')
    with pytest.raises(InputError, match='absent.npz'):
        initial_weights_facts(tmp_path / 'absent.npz')
