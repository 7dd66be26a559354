"""evaluate/predict.py, and reading models with other test settings than their own."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.evaluation.detections import read_detections
from pfdet.functions.concurrent_softmax import concurrent_softmax_score
from pfdet.functions.softmax import softmax_score
from pfdet.openimages.classes import Classes
from pfdet.openimages.concurrent_rates import (
    concurrent_rates,
    with_hierarchy,
    write_concurrent_rates,
)
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import build, model_directory

ROOT = Path(__file__).resolve().parents[2]
PREDICT = ROOT / 'evaluate' / 'predict.py'


@pytest.fixture(scope='module')
def model(small_world, tmp_path_factory):
    """The directory of an untrained model with softmax."""
    out = tmp_path_factory.mktemp('model')
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.override(recipes.find('mini', 'mini'), ['loss=softmax', 'batch_size=2'])
    model_directory.write_recipe(out, recipe, index.classes, index.hierarchy, {})
    model_directory.write_weights(out, build.detector(recipe, len(index.classes)))
    return out


def test_trained_with_softmax_tested_with_concurrent_softmax(small_world, model, tmp_path):
    path = small_world / 'train.index'
    index = AnnotationIndex.open(path)
    x = np.random.default_rng(0).normal(size=(7, len(index.classes) + 1)).astype(np.float32)
    own = model_directory.read(model)
    np.testing.assert_allclose(own.network.head._score(x), softmax_score(x), rtol=1e-6)
    assert own.rates is None

    counted = concurrent_rates(index)
    write_concurrent_rates(tmp_path / 'rates.npz', counted, index.classes)
    rates = with_hierarchy(counted.rates, index.hierarchy)
    np.save(tmp_path / 'rates.npy', rates)
    for source in path, tmp_path / 'rates.npz', tmp_path / 'rates.npy':
        read = model_directory.read(model, ['score=concurrent_softmax'], source)
        np.testing.assert_array_equal(read.rates, rates)
        score = read.network.head._score(x)
        np.testing.assert_allclose(score, concurrent_softmax_score(x, rates), rtol=1e-6)
        assert not np.allclose(score, softmax_score(x))
    without_hierarchy = model_directory.read(
        model, ['score=concurrent_softmax', 'hierarchy_rate=0'], path
    ).rates
    assert (without_hierarchy[index.hierarchy.ancestors] == 0).all()
    for setting, rates, message in (
        ('score=concurrent_softmax', None, 'rates.npy: missing.* --rates INDEX'),
        ('score=sigmoid', None, "score='sigmoid': does not go with loss='softmax'"),
        (
            'backbone=resnet50',
            None,
            'backbone=resnet50: cannot be changed after training; .*suppression_iou',
        ),
        ('nonsense=1', None, "unknown recipe field 'nonsense'"),
        ('score=concurrent_softmax', PREDICT, 'predict.py'),
    ):
        with pytest.raises(InputError, match=message):
            model_directory.read(model, [setting], rates)


def test_rates_of_an_index_with_more_classes(small_world, model, tmp_path):
    index = AnnotationIndex.open(small_world / 'train.index')
    pick = np.arange(len(index.classes))[::-2]
    some = index.classes.pick(pick)
    rates = model_directory.read_rates(
        small_world / 'train.index', some, index.hierarchy.pick(pick), 1.0
    )
    whole = with_hierarchy(concurrent_rates(index).rates, index.hierarchy)
    np.testing.assert_array_equal(rates, whole[np.ix_(pick, pick)])
    with pytest.raises(InputError, match='train.index: lacks class /m/nowhere'):
        model_directory.read_rates(
            small_world / 'train.index', Classes(('/m/nowhere',), ('N',)), index.hierarchy, 1.0
        )


def test_augmented_on_ranks(small_world, model, tmp_path, mpiexec):
    """With all options, one rank and two ranks write equal files."""
    options = [
        '--model',
        model,
        '--index',
        small_world / 'validation.index',
        '--sizes',
        64,
        96,
        '--flip',
        '--score-thresh',
        0.02,
        '--nmw-thresh',
        0.4,
        '--max-per-image',
        9,
        '--set',
        'score=concurrent_softmax',
        'test_proposals=(50, 20)',
        '--rates',
        small_world / 'train.index',
        '--out',
    ]
    for ranks in 1, 2:
        mpiexec(ranks, PREDICT, *options, tmp_path / f'{ranks}.parquet')
    one, two = (
        read_detections(tmp_path / f'{n}.parquet', model_directory.read(model).classes)
        for n in (1, 2)
    )
    assert len(one) and (np.bincount(one.image) <= 9).all() and one.score.min() >= 0.02
    for name in 'image', 'label':
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_allclose(one.bbox, two.bbox, atol=1e-5)


def test_resumes_after_an_image_is_repaired(small_world, model, tmp_path):
    shutil.copytree(small_world, tmp_path / 'world')
    index = AnnotationIndex.open(tmp_path / 'world' / 'train.index')

    def run(out, *options):
        return subprocess.run(
            [
                sys.executable,
                str(PREDICT),
                *map(str, ('--model', model, '--index', index.path, '--out', out, *options)),
            ],
            cwd=ROOT,
            text=True,
            capture_output=True,
            timeout=600,
            check=False,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
        )

    # The image that is processed last: all parts but its own are finished before the error.
    from pfdet.inference.predict import padded_shapes
    from pfdet.inference.resumable import plan_parts
    from pfdet.openimages.dataset import OpenImagesDataset

    read = model_directory.read(model)
    shapes = padded_shapes(
        read.network,
        OpenImagesDataset(index),
        np.arange(24),
        model_directory.predict_settings(read.recipe),
    )
    parts = plan_parts(shapes, 2)
    assert len(parts) >= 3
    path = index.image_path(int(parts[-1].images[-1]))
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    out = tmp_path / 'd.parquet'
    stopped = run(out)
    assert stopped.returncode == 2 and path.name in stopped.stderr and not out.exists()
    path.write_bytes(whole)
    other = run(out, '--no-suppression')
    assert other.returncode == 2 and other.stderr.count('\n') == 1
    assert 'settings.suppression was nmw, now none' in other.stderr
    done = run(out)
    n = 24 - len(parts[-1].images)
    assert f'24 images, {n} of them from before' in done.stdout, done.stderr
    assert run(tmp_path / 'whole.parquet').returncode == 0
    assert out.read_bytes() == (tmp_path / 'whole.parquet').read_bytes()


@pytest.mark.parametrize(
    'options, message',
    [
        (['--score-thresh', 2], '--score-thresh 2: expected a number from 0 to 1'),
        (['--score-thresh', 'nan'], '--score-thresh nan: expected'),
        (['--max-per-image', 0], '--max-per-image 0: expected an integer from 1 to'),
        (['--sizes', 640, 0], '--sizes 0: expected an integer from 16'),
        (['--out', 'd.json'], '--out d.json: expected a name ending in'),
    ],
)
def test_invalid_options(options, message, monkeypatch):
    monkeypatch.setattr(
        sys,
        'argv',
        ['predict.py', '--model', 'm', '--index', 'i', '--out', 'd.csv', *map(str, options)],
    )
    from pfdet.cli import predict

    with pytest.raises(InputError) as e, contextlib.redirect_stderr(io.StringIO()):
        predict.parse_arguments()
    assert message in str(e.value)
