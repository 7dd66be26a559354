"""The examples of the documentation run as they stand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pfdet.evaluation.detections import Detections, write_detections
from pfdet.export import model_file
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import model_directory

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / 'docs' / 'examples'
SMALL = ['--set', 'min_size=(64, 64)', 'test_size=64', 'batch_size=2', 'n_roi=16', 'epochs=0.2']


def run(example: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / example, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    'example, recipe, settings',
    [
        ('loss.py', 'mini', ['loss=brier']),
        ('backbone.py', 'mini', ['backbone=plain']),
        ('recipe.py', 'my-recipe', []),
    ],
)
def test_an_extension_trains(example, recipe, settings, small_world, tmp_path):
    train = ['--recipe', recipe, '--train-index', small_world / 'train.index', '--out', tmp_path]
    printed = run(example, *train, '--iterations', 1, *SMALL, *settings)
    assert 'trained 1 iterations of 2 images' in printed
    with np.load(tmp_path / 'model.npz') as weights:
        assert all(np.isfinite(weights[name]).all() for name in weights.files)


def test_target_rule(small_world):
    assert 'loss' in run('target_rule.py', small_world / 'train.index')


def test_sampler(small_world):
    lines = run('sampler.py', small_world / 'train.index').splitlines()
    assert [int(line.split()[0]) for line in lines] == [1, 3, 5, 7]


def test_predict(small_world, tmp_path):
    train = ['--recipe', 'my-recipe', '--train-index', small_world / 'train.index']
    run('recipe.py', *train, '--out', tmp_path, '--iterations', 0, *SMALL, 'score_thresh=0.0')
    index = AnnotationIndex.open(small_world / 'validation.index')
    lines = run('predict.py', index.path, tmp_path).splitlines()
    assert lines and {line.split()[0] for line in lines} <= {index.image_id(i) for i in range(4)}


def test_exported(small_world, tmp_path):
    """Its detections are compared with those of pfdet predict in tests/export."""
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    train = ['--recipe', 'my-recipe', '--train-index', small_world / 'train.index']
    run('recipe.py', *train, '--out', tmp_path, '--iterations', 0, *SMALL, 'score_thresh=0.0')
    model_file.write(
        tmp_path / 'model.onnx',
        model_directory.read(tmp_path),
        model_directory.read_recipe(tmp_path).hierarchy,
    )
    index = AnnotationIndex.open(small_world / 'validation.index')
    lines = run('exported.py', tmp_path / 'model.onnx', index.image_path(0)).splitlines()
    assert lines and {line.split()[0] for line in lines} <= set(index.classes.mids)


@pytest.fixture(scope='module')
def exported(small_world, tmp_path_factory):
    """Detections of an index's images: all of one class but one, none in the last image."""
    out = tmp_path_factory.mktemp('detections')
    index = AnnotationIndex.open(small_world / 'validation.index')
    n = len(index) - 1
    label = np.zeros(n, np.int32)
    label[0] = 1
    detections = Detections(
        [index.image_id(i) for i in range(len(index))],
        np.arange(n, dtype=np.int32),
        label,
        np.linspace(0.25, 1, n, dtype=np.float32),
        np.tile(np.array([0, 0, 0.5, 0.5], np.float32), (n, 1)),
    )
    write_detections(out / 'd.parquet', detections, index.classes)
    return out / 'd.parquet', index


def test_pandas(exported):
    pytest.importorskip('pandas')
    path, index = exported
    lines = run('detections_pandas.py', path).splitlines()
    n = len(index) - 1
    assert lines[-1] == f'{n} detections, 1 images without'
    names = index.classes.names
    assert [line.split()[-2:] for line in lines if line.startswith(names[1])] == [['1', '0.2500']]
    # The best detection comes first.
    [header] = [k for k, line in enumerate(lines) if 'ImageID' in line]
    assert index.image_id(n - 1) in lines[header + 1] and names[0] in lines[header + 1]


def test_duckdb(exported):
    pytest.importorskip('duckdb')
    path, index = exported
    lines = run('detections_duckdb.py', path).splitlines()
    first, second = (index.classes.names[k] for k in (0, 1))
    assert lines[0].startswith(f'{first} {len(index) - 2} ')
    assert lines[1] == f'{second} 1 0.25 0.25'
    assert lines[2] == '0 images with a person and a car'


def test_fiftyone(exported, tmp_path):
    """FiftyOne needs MongoDB, which its package installs on some systems."""
    fiftyone = pytest.importorskip('fiftyone')
    try:
        fiftyone.list_datasets()
    except Exception as e:
        pytest.skip(f'FiftyOne has no database: {e}')
    path, index = exported
    results, truth = tmp_path / 'results.json', tmp_path / 'instances.json'
    given = ['--detections', path, '--index', index.path, '--ground-truth', truth]
    subprocess.run(
        [sys.executable, '-m', 'pfdet', 'export-detections', '--format', 'coco', '--out', results]
        + [str(argument) for argument in given],
        cwd=ROOT,
        check=True,
    )
    lines = run('detections_fiftyone.py', index.images, truth, results).splitlines()
    assert f'{len(index) - 1} detections in {len(index)} images' in lines


def test_every_example_is_tested_and_shown():
    source = Path(__file__).read_text()
    pages = ''.join(page.read_text() for page in (ROOT / 'docs').glob('*.md'))
    for example in EXAMPLES.glob('*.py'):
        assert f"'{example.name}'" in source and f'examples/{example.name}' in pages
