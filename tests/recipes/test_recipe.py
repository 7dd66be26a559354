import dataclasses
import json

import chainer
import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import build
from pfdet.recipes.pfdet_2018 import TABLE1
from pfdet.training.loading import Converter, TrainLoader


def differing(a, b):
    return {f.name for f in dataclasses.fields(a)
            if getattr(a, f.name) != getattr(b, f.name)} - {'name', 'about'}


@pytest.mark.parametrize('scale', ['full', 'mini'])
def test_a_row_of_table1_differs_from_the_one_above_as_its_words_say(scale):
    rows = [recipes.at_scale(r, scale) for r in TABLE1]
    assert [differing(above, row) for above, row in zip(rows, rows[1:])] == [
        {'min_size'}, {'psp', 'head_bn'}, {'schedule'}, {'fpn_scale'}, {'cooccurrence'},
        {'epochs'}, {'context'},
        {'backbone', 'anchor_ratios'} if scale == 'full' else {'anchor_ratios'}]


LOSSES = [dataclasses.replace(recipes.find('mini'), name=loss, loss=loss) for loss in (
    'focal', 'softmax', 'multi_label_softmax', 'dist_ce', 'concurrent_softmax')]


@pytest.mark.parametrize('recipe', [*TABLE1, *LOSSES], ids=lambda r: r.name)
def test_each_row_builds_and_takes_a_step_at_mini_scale(recipe, small_world):
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.at_scale(recipe, 'mini')
    rates = np.full((len(index.classes),) * 2, 0.1, np.float32)
    network = build.detector(recipe, len(index.classes), rates=rates)
    chain = build.train_chain(recipe, network, index.classes, index.hierarchy, 0, rates)
    load = TrainLoader(OpenImagesDataset(index), (64, 64), 256, True, 0)
    optimizer = chainer.optimizers.CorrectedMomentumSGD(0.01).setup(chain)
    before = {name: p.array.copy() for name, p in network.namedparams()}
    optimizer.update(chain, Converter(index.hierarchy)([load(i, i, 0) for i in range(2)]))
    moved = {name for name, p in network.namedparams() if (p.array != before[name]).any()}
    # In two small images, box offsets and the coarsest outputs may have nothing to learn.
    assert all(name.startswith(('/head/loc/', '/extractor/outer/'))
               for name in before.keys() - moved)
    assert all(np.isfinite(p.array).all() for p in network.params())


def test_baseline_is_the_papers():
    r = recipes.find('table1-baseline')
    assert (r.base_lr, r.lr_batch_size) == (0.01, 8)
    assert r.epochs == 12 and [12 * s for s in r.steps] == [8, 11]
    assert recipes.find('table1-multiscale').min_size == (640, 1056)


def test_mini_scale_changes_sizes_not_switches():
    full = recipes.find('table1-multiscale')
    mini = recipes.find('table1-multiscale', 'mini')
    assert mini.scale == 'mini' and mini.min_size == (128, 211)
    switches = {'fpn_bn', 'head_bn', 'loss', 'cooccurrence', 'sampler', 'flip', 'epochs',
                'schedule', 'steps', 'anchor_ratios', 'momentum', 'weight_decay'}
    assert not differing(full, mini) & switches


def test_configurations_of_the_second_paper():
    r = recipes.find('resnet50-softmax')
    assert (r.min_size, r.max_size, r.epochs) == ((800, 800), 1333, 7)
    assert [7 * s for s in r.steps] == [4, 6] and r.base_lr / r.lr_batch_size == 0.00125
    assert differing(r, recipes.find('resnet50-concurrent')) == {'loss'}
    assert differing(r, recipes.find('resnext152-softmax')) == {'backbone'}


def test_score_must_fit_the_loss():
    with pytest.raises(InputError, match='score=sigmoid: does not go with loss=softmax'):
        build.detector(recipes.override(
            recipes.find('mini'), ['loss=softmax', 'score=sigmoid']), 3)


def test_json_round_trip():
    for recipe in recipes.RECIPES.values():
        fields = json.loads(json.dumps(recipes.to_dict(recipe)))
        assert recipes.from_dict(fields, 'here') == recipe


def test_settings_replace_fields():
    recipe = recipes.override(recipes.find('mini'), [
        'epochs=3', 'min_size=(96, 100)', 'schedule=step', 'flip=False', 'anchor_ratios=[1,2]'])
    assert (recipe.epochs, recipe.min_size, recipe.schedule, recipe.flip, recipe.anchor_ratios) == (
        3., (96, 100), 'step', False, (1., 2.))


@pytest.mark.parametrize('setting, message', [
    ('epochs', 'KEY=VALUE'), ('epoch=3', "unknown recipe field 'epoch'"),
    ('epochs=many', 'expected float'), ('flip=1', 'expected bool'),
    ('min_size=(1, "a")', 'expected int')])
def test_bad_settings(setting, message):
    with pytest.raises(InputError, match=message):
        recipes.override(recipes.find('mini'), [setting])


def test_unknown_recipe_and_scale():
    with pytest.raises(InputError, match='no such recipe; expected one of table1-baseline'):
        recipes.find('table9')
    with pytest.raises(InputError, match='mini scale only'):
        recipes.find('mini', 'full')
