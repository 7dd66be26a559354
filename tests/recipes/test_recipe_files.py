"""Recipes in files: the recipe.json of a run, and fields alone."""

import json

import pytest

from pfdet import recipes
from pfdet.errors import InputError


@pytest.mark.parametrize('wrap', [lambda fields: {'recipe': fields, 'run': {}}, lambda f: f])
def test_the_recipe_of_a_run(wrap, tmp_path):
    recipe = recipes.override(recipes.find('mini', 'mini'), ['epochs=3', 'loss=softmax'])
    path = tmp_path / 'recipe.json'
    path.write_text(json.dumps(wrap(recipes.to_dict(recipe))))
    assert recipes.find(str(path)) == recipe
    assert recipes.find(str(path), recipe.size) == recipe
    with pytest.raises(InputError, match="--scale full: the recipe in .* has the size 'mini'"):
        recipes.find(str(path), 'full')


@pytest.mark.faults('recipe files by hand')
@pytest.mark.parametrize(
    'text, message',
    [
        (None, r'recipe\.json'),
        ('', r'recipe\.json'),
        ('[]', r'recipe\.json'),
        ('{"recipe": 3}', 'expected the fields of a recipe'),
        ('{"recipe": {"epoch": 3}}', 'unknown recipe field.*did you mean epochs'),
        ('{"epochs": "many"}', 'epochs'),
    ],
)
def test_other_files_are_one_line(text, message, tmp_path):
    path = tmp_path / 'recipe.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        recipes.find(str(path))
