"""pfdet predict and detect before the end of a training, and with given weights."""

import sys

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet import recipes
from pfdet.cli import detect, predict
from pfdet.errors import InputError
from pfdet.evaluation.detections import read_detections
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import build, checkpoints, model_directory


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(main, *arguments):
        monkeypatch.setattr(sys, 'argv', ['pfdet', *map(str, arguments)])
        main()
        return capsys.readouterr()

    return run


@pytest.fixture
def run(small_world, tmp_path):
    """A run with a snapshot after iteration 7 and ``best.npz``, each with other weights."""
    index = AnnotationIndex.open(small_world / 'validation.index')
    recipe = recipes.override(
        recipes.find('mini', 'mini'), ['test_sizes=(64,)', 'batch_size=2', 'max_per_image=20']
    )
    directory = tmp_path / 'run'
    model_directory.write_recipe(directory, recipe, index.classes, index.hierarchy, {})
    network = build.detector(recipe, len(index.classes))
    # All scores are then sigmoid(-1) = 0.27, or sigmoid(1) = 0.73.
    network.head.conf.W.array[...] = 0
    network.head.conf.b.array[...] = -1
    model_directory.write_weights(directory, network)
    with np.load(directory / 'model.npz') as arrays:
        state = {f'updater/model:main/detector/{name}': arrays[name] for name in arrays.files}
    (directory / 'model.npz').unlink()
    checkpoints.write(directory / 'snapshots' / 'iter_00000007.npz', state, {})
    network.head.conf.b.array[...] = 1
    model_directory.write_weights(directory, network, 'best.npz')
    return directory


def test_predict_says_which_snapshot_it_takes(run, small_world, command):
    index = small_world / 'validation.index'
    classes = AnnotationIndex.open(index).classes
    arguments = ('--model', 'run', '--index', index)
    note = 'run has no model.npz, since its training has not ended; the weights are those of the'
    printed = command(predict.main, *arguments, '--out', 'a.parquet')
    assert f'note: {note} snapshot run/snapshots/iter_00000007.npz\n' in printed.err
    before = read_detections('a.parquet', classes)

    weights = ('--weights', 'run/best.npz')
    printed = command(predict.main, *arguments, *weights, '--out', 'b.parquet')
    assert 'note: the weights are those of run/best.npz\n' in printed.err
    best = read_detections('b.parquet', classes)
    np.testing.assert_allclose(before.score, 0.2689, atol=1e-3)
    np.testing.assert_allclose(best.score, 0.7311, atol=1e-3)
    assert len(best) and len(before)

    (run / 'best.npz').rename(run / 'model.npz')
    printed = command(predict.main, *arguments, '--out', 'c.parquet')
    assert 'note' not in printed.err
    np.testing.assert_array_equal(read_detections('c.parquet', classes).score, best.score)
    given = ('--weights', 'run/snapshots/iter_00000007.npz')
    command(predict.main, *arguments, *given, '--out', 'd.parquet')
    np.testing.assert_array_equal(read_detections('d.parquet', classes).score, before.score)


def test_detect_says_it_as_well(run, small_world, command):
    photograph = AnnotationIndex.open(small_world / 'validation.index').image_path(0)
    arguments = (photograph, '--model', 'run', '--out', 'out', '--no-pictures')
    printed = command(detect.main, *arguments)
    assert 'note: run has no model.npz' in printed.err
    assert printed.out.startswith('0 detections in 1 photographs')
    printed = command(detect.main, *arguments, '--weights', 'run/best.npz')
    assert printed.err == '' and int(printed.out.split()[0]) > 0


@pytest.mark.parametrize(
    'main, arguments',
    [
        (predict.main, ('--index', 'x.index', '--out', 'x.parquet')),
        (detect.main, ('x.jpg', '--out', 'out')),
    ],
)
def test_weights_that_do_not_go_with_the_model(main, arguments, command):
    given = ('--model', 'a.onnx', '--weights', 'b.npz')
    with pytest.raises(InputError, match='--weights b.npz: a.onnx has its weights'):
        command(main, *given, *arguments)


def test_weights_that_are_missing(run, small_world, command):
    arguments = ('--model', 'run', '--index', small_world / 'validation.index', '--out', 'x.csv')
    with pytest.raises(InputError, match=r'run/worst\.npz'):
        command(predict.main, *arguments, '--weights', 'run/worst.npz')
