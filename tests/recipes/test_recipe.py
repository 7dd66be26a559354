import dataclasses
import json

import pytest

from pfdet import recipes
from pfdet.errors import InputError


def differing(a, b):
    return {f.name for f in dataclasses.fields(a)
            if getattr(a, f.name) != getattr(b, f.name)} - {'name', 'about'}


def test_a_row_differs_from_the_one_above_by_one_field():
    rows = [r for r in recipes.RECIPES.values() if r.name.startswith('table1-')]
    assert len(rows) > 1
    for above, row in zip(rows, rows[1:]):
        assert len(differing(above, row)) == 1


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
