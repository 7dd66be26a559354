"""A flipped bit in a file of this package is found in one line, or changes nothing that is read.

Files of other programs are not among these: images, annotations and public weights have the
checksums of their formats or none.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.evaluation.detections import (
    images_without_detections,
    read_detections,
    read_model_classes,
)
from pfdet.evaluation.run_directory import read_run
from pfdet.files.json_file import read_json, write_json
from pfdet.files.npz import open_npz
from pfdet.inference.ensemble_weights import read_scores
from pfdet.iterators.class_images import class_images, shared_class_images
from pfdet.links import backbone_file
from pfdet.links.backbones import BACKBONES
from pfdet.openimages.column_file import map_columns
from pfdet.openimages.concurrent_rates import read_concurrent_rates
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.recipe import Recipe
from pfdet.training import checkpoints, model_directory, run_output


def load_module(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f'{name}.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


good_files = load_module('good_files')
CLASSES = good_files.CLASSES


def arrays_of(link):
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(link)
    return dict(serializer.target)


def index(path):
    opened = AnnotationIndex.open(path)
    return [
        dict(opened.columns),
        opened.classes,
        opened.hierarchy.ancestors,
        opened.annotated,
        opened.counts,
        [(opened.image_id(i), opened.image_path(i), opened.annotation(i)) for i in (0, 1)],
    ]


def lists_by_class(path):
    """A damaged file is written again from the index."""
    found = shared_class_images(AnnotationIndex.open(path.with_name('x.index')))
    return [found.offsets, found.images, found.n_image]


def detections(path):
    return [
        dataclasses.asdict(read_detections(path, CLASSES)),
        read_model_classes(path),
        images_without_detections(path),
    ]


def recipe(path):
    description = model_directory.read_recipe(path.parent)
    return [description.recipe, description.classes, description.hierarchy.ancestors]


def run(path):
    found = read_run(path.parent)
    return [found.recipe, found.facts]


def experts(path):
    content = read_json(path, 'experts')
    # What train-experts looks at.
    return {key: content.get(key) for key in ('experts', 'recipe', 'seed', 'init')}


def rates(path):
    return model_directory.read_rates(path, CLASSES, flat_hierarchy(3), 1.0)


def rates_npz(path):
    return dataclasses.asdict(read_concurrent_rates(path, CLASSES))


def snapshot(path):
    damage = checkpoints.problem(path)
    if damage:
        raise InputError(f'{path}: {damage}')
    with open_npz(path) as arrays:
        return [dict(arrays), checkpoints.read_run(path)]


def model(path):
    network = good_files.worker.network()
    model_directory.load_weights(network, path)
    return arrays_of(network)


def backbone(path):
    network = BACKBONES['mini_se_resnext']()
    backbone_file.load_backbone(network, path)
    return arrays_of(network)


def part(path):
    columns, header = map_columns(path, 'part of a prediction')
    return [columns, header]


# Each reader returns all content that the package uses. If the second value is true, damage is
# repaired instead of refused.
READERS = {
    'index': (index, False),
    'class-images': (lists_by_class, True),
    'parquet': (detections, False),
    'recipe': (recipe, False),
    'run': (run, False),
    'score': (read_scores, False),
    'experts': (experts, False),
    'rates npy': (rates, False),
    'rates npz': (rates_npz, False),
    'snapshot': (snapshot, False),
    'weights': (model, False),
    'backbone': (backbone, False),
    'columns': (part, False),
}


@pytest.fixture(scope='module')
def files(good, tmp_path_factory):
    """A small file of each kind."""
    out = tmp_path_factory.mktemp('flips')
    found = {name: good[name] for name in READERS if name in good}
    images = AnnotationIndex.open(good['index'])
    found['class-images'] = shared_class_images(images).path
    for name in 'experts', 'score', 'run', 'rates npy':
        (out / name).mkdir()
    score = {'mAP': 0.5, 'AP': {'/m/a': 0.5, '/m/b': None, '/m/c': 1}}
    found['score'] = out / 'score' / 'score.json'
    write_json(found['score'], score)
    plan = {'classes-1-2': ['/m/a', '/m/b'], 'classes-3-3': ['/m/c']}
    found['experts'] = out / 'experts' / 'experts.json'
    write_json(found['experts'], {'experts': plan, 'recipe': {}, 'seed': 7, 'init': 'model.npz'})
    found['run'] = out / 'run' / 'recipe.json'
    facts = {'seed': 3, 'images': 24, 'global_batch_size': 4}
    model_directory.write_recipe(out / 'run', Recipe(), CLASSES, flat_hierarchy(3), facts)
    write_json(out / 'run' / 'score.json', score)
    net = load_network(np.linspace(0, 1, 9, dtype=np.float32).reshape(3, 3))
    run_output.write_description(out / 'rates npy', Recipe(), net, {})
    found['rates npy'] = out / 'rates npy' / 'rates.npy'
    return found


def load_network(rates):
    """The parts of a network that are described in its directory."""

    class Network:
        classes, hierarchy = CLASSES, flat_hierarchy(3)

    Network.rates = rates
    return Network


def same(a, b):
    """Whether two values are equal, with NaN equal to NaN and arrays compared by their bits."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


def flips(n_byte, n, rng):
    """Places and bits: half of them anywhere, half near both ends, where headers are."""
    near = min(n_byte, 400)
    for k in range(n):
        at = int(rng.integers(n_byte if k % 2 else near))
        yield (at if k % 4 else n_byte - 1 - at), 1 << int(rng.integers(8))


@pytest.mark.faults('flipped bits')
@pytest.mark.parametrize('n', [40, pytest.param(1000, marks=pytest.mark.soak)])
@pytest.mark.parametrize('kind', READERS)
def test_no_flip_is_silent(files, kind, n, tried):
    tried(n)
    path, (read, repairs) = files[kind], READERS[kind]
    whole = path.read_bytes()
    expected = read(path)
    silent, n_error = [], 0
    try:
        for at, bit in flips(len(whole), n, np.random.default_rng([n, len(whole)])):
            damaged = bytearray(whole)
            damaged[at] ^= bit
            path.write_bytes(damaged)
            try:
                found = read(path)
            except InputError as e:
                n_error += 1
                assert path.name in str(e) and '\n' not in str(e)
            else:
                if not same(found, expected):
                    silent.append((at, bit))
    finally:
        path.write_bytes(whole)
    assert silent == []
    assert n_error == 0 if repairs else n_error > n / 4
    assert same(read(path), expected)


def test_the_comparison_sees_any_change():
    """Otherwise the test above could not fail."""
    a = [{'x': np.arange(3), 'y': float('nan')}, ('text', None)]
    assert same(a, [{'x': np.arange(3), 'y': float('nan')}, ('text', None)])
    for b in (
        [{'x': np.arange(3) + 1, 'y': float('nan')}, ('text', None)],
        [{'x': np.arange(3, dtype=np.int32), 'y': float('nan')}, ('text', None)],
        [{'x': np.arange(3), 'y': 0.0}, ('text', None)],
        [{'x': np.arange(3), 'y': float('nan')}, ('texT', None)],
        [{'x': np.arange(3), 'y': float('nan')}, ('text',)],
    ):
        assert not same(a, b)


def test_lists_by_class_are_those_of_the_index(files):
    path = files['class-images']
    expected = class_images(AnnotationIndex.open(path.with_name('x.index')))
    assert same(lists_by_class(path), [expected.offsets, expected.images, expected.n_image])
    assert json.loads(files['experts'].read_text())['seed'] == 7
