"""Starting from a trained detector: classes are matched by machine id, not by position."""

import shutil
from pathlib import Path

import chainer
import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.training import build, checkpoints, model_directory
from pfdet.training.detector_weights import load_detector

MIDS = ('/m/a', '/m/b', '/m/c', '/m/d')
SETTINGS = ['head_unit=16', 'fpn_channel=8', 'n_roi=8']
KINDS = {
    'sigmoid': [],
    'softmax': ['loss=softmax'],
    'box per class': ['class_agnostic=False'],
    'softmax, box per class': ['loss=softmax', 'class_agnostic=False'],
}


def detector(mids, settings, seed):
    recipe = recipes.override(recipes.find('mini'), [*SETTINGS, *settings])
    network = build.detector(recipe, len(mids), seed=seed)
    rng = np.random.default_rng(seed)
    for name, param in network.head.namedparams():
        if name.startswith(('/conf', '/loc')):
            param.array[...] = rng.normal(0, 0.1, param.shape)
    return recipe, network


def write_run(directory, mids, settings, seed=1):
    directory.mkdir()
    recipe, network = detector(mids, settings, seed)
    classes = Classes(tuple(mids), tuple(mids))
    model_directory.write_recipe(directory, recipe, classes, flat_hierarchy(len(mids)), {})
    model_directory.write_weights(directory, network)
    return network


def outputs(network):
    """Scores and boxes of some regions, by class."""
    rng = np.random.default_rng(0)
    hs = [rng.normal(size=(1, 8, 32 >> k, 32 >> k)).astype(np.float32) for k in range(4)]
    rois = np.array([[0, 0, 60, 40], [10, 20, 90, 100]], np.float32)
    with chainer.using_config('train', False):
        loc, conf = network.head(hs, rois, np.zeros(2, np.int32))
    return conf.array, loc.array


@pytest.mark.parametrize('settings', KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    'mids',
    [
        MIDS,
        MIDS[::-1],
        ('/m/c', '/m/a'),
        ('/m/b', '/m/x', '/m/d'),
        ('/m/x', '/m/y'),
        ('/m/d', '/m/c', '/m/b', '/m/a', '/m/x'),
    ],
    ids=str,
)
def test_each_class_keeps_its_outputs(tmp_path, settings, mids):
    before = write_run(tmp_path / 'run', MIDS, settings)
    _, network = detector(mids, settings, seed=2)
    untouched = detector(mids, settings, seed=2)[1]
    new = load_detector(network, tmp_path / 'run' / 'model.npz', mids)
    assert new == [mid for mid in mids if mid not in MIDS]
    conf, loc = outputs(network)
    old_conf, old_loc = outputs(before)
    head = {name: p.array for name, p in network.head.namedparams()}
    own_head = {name: p.array for name, p in untouched.head.namedparams()}
    for k, mid in enumerate(mids):
        if mid in MIDS:
            j = MIDS.index(mid)
            np.testing.assert_allclose(conf[:, k], old_conf[:, j], rtol=1e-5, atol=1e-6)
            if loc.shape[1] > 1:
                np.testing.assert_allclose(loc[:, k], old_loc[:, j], rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(head['/conf/W'][k], own_head['/conf/W'][k])
    if conf.shape[1] > len(mids):
        np.testing.assert_allclose(conf[:, -1], old_conf[:, -1], rtol=1e-5, atol=1e-6)
    if loc.shape[1] == 1:
        np.testing.assert_allclose(loc, old_loc, rtol=1e-5, atol=1e-6)


def test_a_snapshot_serves_as_well(tmp_path):
    before = write_run(tmp_path / 'run', MIDS, [])
    state = {
        f'updater/model:main/detector/{name}': array
        for name, array in np.load(tmp_path / 'run' / 'model.npz').items()
    }
    path = tmp_path / 'iter_00000005.npz'
    checkpoints.write(path, state, {'classes': MIDS})
    mids = ('/m/d', '/m/x')
    _, network = detector(mids, [], seed=2)
    assert load_detector(network, path, mids) == ['/m/x']
    np.testing.assert_allclose(outputs(network)[0][:, 0], outputs(before)[0][:, 3], rtol=1e-5)


def test_without_recipe_json_only_the_number_of_classes_is_known(tmp_path):
    write_run(tmp_path / 'run', MIDS, [])
    path = shutil.copy(tmp_path / 'run' / 'model.npz', tmp_path / 'model.npz')
    _, network = detector(MIDS, [], seed=2)
    assert load_detector(network, Path(path), MIDS) == []
    _, network = detector(MIDS[:2], [], seed=2)
    with pytest.raises(InputError, match=r'4 outputs, the network 2; the recipe.json'):
        load_detector(network, Path(path), MIDS[:2])


@pytest.mark.parametrize(
    'settings, message',
    [
        (['loss=softmax'], "no background class, other than the recipe's loss needs"),
        (['class_agnostic=False'], 'not weights of this network: head/loc'),
        (['head_unit=32'], 'not weights of this network: head/conf/W has shape'),
    ],
)
def test_another_architecture_is_refused(tmp_path, settings, message):
    write_run(tmp_path / 'run', MIDS, [])
    _, network = detector(MIDS, settings, seed=2)
    with pytest.raises(InputError, match=message):
        load_detector(network, tmp_path / 'run' / 'model.npz', MIDS)


def test_a_file_without_a_detector(tmp_path):
    np.savez(tmp_path / 'model.npz', x=np.zeros(3))
    _, network = detector(MIDS, [], seed=2)
    with pytest.raises(InputError, match='has no head/conf/W'):
        load_detector(network, tmp_path / 'model.npz', MIDS)
