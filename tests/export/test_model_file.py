"""Files of exported detectors: errors, and the commands that write and use them."""

import hashlib
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pfdet.compat  # noqa: F401

import cv2
import numpy as np
import onnx
import pytest

from pfdet import optional_packages, recipes
from pfdet.cli import export, predict
from pfdet.errors import InputError
from pfdet.evaluation.detections import read_detections
from pfdet.export import model_file
from pfdet.export.detector import METADATA, onnx_model
from pfdet.export.onnx_detector import OnnxDetector
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import build, model_directory

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def run(small_world, tmp_path_factory, randomized):
    """The directory of an untrained model with concurrent softmax, and its classes."""
    out = tmp_path_factory.mktemp('run')
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.override(
        recipes.find('cs-table2-concurrent-concurrent', 'mini'),
        ['batch_size=2', 'test_sizes=(64, 96)', 'fpn_channel=8', 'test_proposals=(80, 60)'],
    )
    network = randomized(build.detector(recipe, len(index.classes)))
    network.rpn.conf.W.array[...] *= 10
    network.head.conf.W.array[...] *= 3
    model_directory.write_recipe(out, recipe, index.classes, index.hierarchy, {})
    model_directory.write_weights(out, network)
    rates = np.random.default_rng(0).uniform(0, 1, (len(index.classes),) * 2)
    model_directory.write_rates(out, rates.astype(np.float32))
    return out


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command: ``call(main, *arguments)`` returns its standard output."""

    def call_one(main, *arguments):
        monkeypatch.setattr(sys, 'argv', ['pfdet', *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return call_one


def test_from_a_run_to_detections(run, small_world, tmp_path, call, assert_same_up_to_rounding):
    """A run, its exported file, and the run in ONNX Runtime detect the same objects."""
    file = tmp_path / 'new' / 'model.onnx'
    said = call(export.main, run, '--out', file)
    assert re.search(r'model.onnx: detector, \d+ classes, .* random input: \d(e-0\d)?\n', said)
    index = small_world / 'validation.index'
    classes = AnnotationIndex.open(index).classes
    found = []
    options = '--flip', '--sizes', 64, '--score-thresh', 0.3, '--max-per-image', 10_000
    for name, model in (
        ('chainer', (run, '--backend', 'chainer')),
        ('onnxruntime', (run, '--backend', 'onnxruntime')),
        ('file', (file,)),
    ):
        out = tmp_path / f'{name}.parquet'
        call(predict.main, '--model', *model, '--index', index, '--out', out, *options)
        found.append(read_detections(out, classes))
    for other in found[1:]:
        assert_same_up_to_rounding(found[0], other, atol=1e-4)
    assert len(found[0]) > 100


def test_parts_of_another_backend_are_not_reused(run, small_world, tmp_path, call, monkeypatch):
    index, out = small_world / 'validation.index', tmp_path / 'd.parquet'
    arguments = '--model', run, '--index', index, '--out', out, '--sizes', 64
    with monkeypatch.context() as patch:
        patch.setattr(OnnxDetector, 'predict', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call(predict.main, *arguments, '--backend', 'onnxruntime')
    with pytest.raises(InputError, match='has parts of another prediction.*backend'):
        call(predict.main, *arguments)
    call(predict.main, *arguments, '--backend', 'onnxruntime')


def test_module_of_the_package(run, tmp_path, call):
    with pytest.raises(SystemExit) as e:
        call(
            lambda: runpy.run_module('pfdet.export', run_name='__main__'),
            *(run, '--out', tmp_path / 'trunk.onnx', '--part', 'trunk', '--no-check'),
        )
    assert e.value.code == 0
    model = onnx.load(tmp_path / 'trunk.onnx')
    assert {v.name for v in model.graph.output} >= {'p2', 'p6', 'loc', 'conf', 'anchor'}
    with pytest.raises(
        InputError, match='trunk.onnx: is the trunk of a detector; expected a whole'
    ):
        OnnxDetector(tmp_path / 'trunk.onnx')


def test_settings_at_export_and_after_it(run, tmp_path, call):
    file = tmp_path / 'm.onnx'
    call(export.main, run, '--out', file, '--no-check', '--set', 'test_proposals=(9, 5)')
    model = model_file.read(file, ['score_thresh=0.25', 'test_sizes=(50,)'])
    assert model.recipe.test_proposals == (9, 5)
    assert model.recipe.score_thresh == 0.25 and model.recipe.test_sizes == (50,)
    (out,) = model.network.predict([np.zeros((3, 64, 64), np.uint8)])
    assert len(out[0]) <= 5
    # Setting what is set already changes nothing.
    model_file.read(file, ['test_proposals=(9, 5)', 'rpn_nms=0.7'])
    for setting in 'test_proposals=(9, 6)', 'rpn_nms=0.5', 'score=softmax', 'expand_scores=False':
        name = setting.partition('=')[0]
        with pytest.raises(InputError, match=f'--set {name}=.*: is fixed in .*m.onnx; expected'):
            model_file.read(file, [setting])
    with pytest.raises(InputError, match='epochs=3: cannot be changed after training'):
        model_file.read(file, ['epochs=3'])


def test_other_weights_of_a_run(run, tmp_path, call):
    """Not only the final ones; the file has the checksum of the ones it was made from."""
    network = model_directory.read(run).network
    network.head.conf.W.array[...] *= -1
    model_directory.write_weights(tmp_path, network, 'best.npz')
    stored = {}
    for name, options in ('final', ()), ('best', ('--weights', tmp_path / 'best.npz')):
        file = tmp_path / f'{name}.onnx'
        call(export.main, run, '--out', file, '--no-check', *options)
        detector = OnnxDetector(file)
        stored[name] = detector.metadata['weights']
        (found,) = detector.predict([np.zeros((3, 64, 64), np.uint8)])
        stored[f'scores of {name}'] = found[1]
    assert stored['final'] == hashlib.sha256((run / 'model.npz').read_bytes()).hexdigest()
    assert stored['best'] == hashlib.sha256((tmp_path / 'best.npz').read_bytes()).hexdigest()
    assert abs(stored['scores of best'] - stored['scores of final']).max() > 1e-3


def test_every_prediction_field_is_either_free_or_fixed():
    """The settings of prediction are free; what the graph has is not."""
    free = set(model_file.FREE_FIELDS)
    assert free <= set(recipes.recipe.fields_that(at_test=True))
    recipe = recipes.find('mini', 'mini')
    network = build.detector(recipe, 3)
    fixed = set(recipes.recipe.fields_that(at_test=True)) - free
    for name in fixed - {'score', 'expand_scores', 'hierarchy_rate'}:
        changed = {'rpn_nms': 0.3, 'test_proposals': (7, 5)}[name]
        other = build.detector(recipes.override(recipe, [f'{name}={changed}']), 3)
        assert onnx_model(other) != onnx_model(network)
    assert onnx_model(build.detector(recipe, 3)) == onnx_model(network)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['RUN', '--out', 'm.npz'], '--out m.npz: expected a name ending in .onnx'),
        (['nowhere', '--out', 'm.onnx'], 'nowhere/recipe.json: No such file'),
        (['RUN', '--out', 'm.onnx', '--set', 'epochs=3'], 'cannot be changed after training'),
        (['RUN', '--out', 'RUN/recipe.json/m.onnx'], 'cannot be written'),
    ],
)
def test_export_of_bad_input(arguments, message, run, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [a.replace('RUN', str(run)) for a in arguments]
    with pytest.raises(InputError, match=message):
        call(export.main, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--backend', 'chainer'], '--backend chainer: .*m.onnx runs in onnxruntime'),
        (['--rates', 'r.npy'], '--rates r.npy: .*m.onnx has its rates'),
        ([], 'm.onnx: No such file or directory; expected a model of pfdet export'),
    ],
)
def test_prediction_of_bad_input(arguments, message, small_world, tmp_path, call):
    index = small_world / 'validation.index'
    with pytest.raises(InputError, match=message):
        call(
            predict.main,
            *('--model', tmp_path / 'm.onnx', '--index', index, '--out', tmp_path / 'd.csv'),
            *arguments,
        )


@pytest.fixture(scope='module')
def exported(small_detector):
    """A small model as protocol buffer, without recipe and classes."""
    return onnx_model(small_detector())


def _with_metadata(model, text):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    onnx.helper.set_model_props(changed, {} if text is None else {METADATA: text})
    return changed.SerializeToString()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'ONNX Runtime cannot load it'),
        (b'nonsense' * 100, 'ONNX Runtime cannot load it'),
        ('cut', 'ONNX Runtime cannot load it'),
        (None, 'is a model of another program'),
        ('{', "its entry 'pfdet' is damaged"),
        ('[' * 100_000, "its entry 'pfdet' is damaged"),
        ('[]', "its entry 'pfdet' is damaged"),
        ('7', "its entry 'pfdet' is damaged"),
        ({'part': 'detector'}, "its entry 'pfdet' is damaged"),
        ({'format': 1, 'part': 'detector', 'stride': 0, 'n_class': 7, 'n_box': 1}, 'not positive'),
        ({'format': 2, 'part': 'detector', 'stride': 32, 'n_class': 7, 'n_box': 1}, 'has format 2'),
    ],
    ids=str,
)
def test_damaged_files(content, message, exported, tmp_path):
    path = tmp_path / 'm.onnx'
    if content == 'cut':
        content = exported.SerializeToString()[:-1000]
    elif not isinstance(content, bytes):
        text = json.dumps(content) if isinstance(content, dict) else content
        content = _with_metadata(exported, text)
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path)) + f': .*{message}') as e:
        OnnxDetector(path)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'classes': [['/m/a', 'A']]}, 'has 1 names for 7 classes'),
        ({'classes': [['/m/a']] * 7}, 'has no recipe and classes'),
        ({'classes': [[1, 2]] * 7}, 'has no recipe and classes'),
        ({'classes': None}, 'has no recipe and classes'),
        ({'recipe': {'nonsense': 1}}, 'unknown recipe field'),
        ({'recipe': {'max_size': 'x'}}, 'max_size'),
        ({'recipe': 3}, 'expected the fields of a recipe'),
    ],
    ids=str,
)
def test_damaged_descriptions(change, message, exported, tmp_path):
    metadata = {p.key: p.value for p in exported.metadata_props}
    good = {
        **json.loads(metadata[METADATA]),
        'recipe': {},
        'classes': [[f'/m/{k}', str(k)] for k in range(7)],
    }
    path = tmp_path / 'm.onnx'
    path.write_bytes(_with_metadata(exported, json.dumps(good)))
    assert model_file.read(path).classes.mids[6] == '/m/6'
    path.write_bytes(_with_metadata(exported, json.dumps({**good, **change})))
    with pytest.raises(InputError, match=re.escape(str(path)) + f': .*{message}'):
        model_file.read(path)


def test_not_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / 'pipe.onnx')
    (tmp_path / 'directory.onnx').mkdir()
    for name, message in ('pipe', 'a named pipe'), ('directory', 'directory'):
        with pytest.raises(InputError, match=f'{name}.onnx: .*{message}'):
            OnnxDetector(tmp_path / f'{name}.onnx')


@pytest.mark.parametrize('name', ['onnx', 'onnxruntime'])
def test_without_the_packages(name, run, tmp_path, call, monkeypatch):
    """Without onnx nothing is exported; without onnxruntime nothing is predicted or compared."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        InputError, match=rf'^{name} is not installed; expected: pip install pfdet\['
    ):
        optional_packages.optional_package(name)
    monkeypatch.setattr('importlib.util.find_spec', lambda _: None)
    arguments = export.main, run, '--out', tmp_path / 'm.onnx'
    if name == 'onnx':
        with pytest.raises(InputError, match='onnx is not installed'):
            call(*arguments)
        assert not list(tmp_path.iterdir())
    else:
        assert 'not compared with the original' in call(*arguments)
        with pytest.raises(InputError, match='onnxruntime is not installed'):
            OnnxDetector(tmp_path / 'm.onnx')


def test_example_without_pfdet(run, small_world, tmp_path, call):
    """The script of the documentation finds what pfdet predict with NMS finds."""
    file, index_path = tmp_path / 'm.onnx', small_world / 'validation.index'
    call(export.main, run, '--out', file, '--no-check', '--set', 'test_sizes=(64,)')
    index = AnnotationIndex.open(index_path)
    # At the size of the network: what differs is not the resizing.
    recipe = model_file.read(file).recipe
    img = OpenImagesDataset(index).get_resized(0, 64, recipe.max_size)
    image = tmp_path / 'image.png'
    cv2.imwrite(str(image), img[:, :, ::-1])
    done = subprocess.run(
        [sys.executable, str(ROOT / 'docs' / 'examples' / 'exported.py'), str(file), str(image)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.rsplit(maxsplit=5) for line in done.stdout.splitlines()]
    out = tmp_path / 'd.parquet'
    call(
        predict.main,
        *('--model', file, '--index', index_path, '--out', out),
        *('--suppression', 'nms', '--max-per-image', 100_000),
    )
    found = read_detections(out, index.classes)
    rows = found.image == list(found.image_ids).index(index.image_id(0))
    expected = np.column_stack(
        [found.label[rows], found.score[rows], found.bbox[rows] * np.tile(img.shape[:2], 2)]
    )
    names = index.classes.mids
    actual = np.array([[names.index(line[0].split()[0]), *map(float, line[1:])] for line in lines])
    assert len(actual) > 50
    distance = abs(actual[:, None] - expected).max(axis=2)
    # The script prints tenths of a pixel.
    for nearest in distance.min(axis=0), distance.min(axis=1):
        assert (nearest < 0.06).mean() > 0.97
