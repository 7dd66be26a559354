"""Every configuration of both papers by name."""

from pfdet.errors import InputError
from pfdet.recipes import peng_2020, pfdet_2018, small_sets
from pfdet.recipes.composite import Composite, Table
from pfdet.recipes.mini import at_size
from pfdet.recipes.recipe import Recipe
from pfdet.recipes.settings import from_dict, override, to_dict
from pfdet.similar_names import expected_name

__all__ = [
    'COMPOSITES',
    'DEFAULT',
    'RECIPES',
    'TABLES',
    'Composite',
    'Recipe',
    'Table',
    'at_size',
    'find',
    'from_dict',
    'override',
    'to_dict',
]

# By the prefix of their rows' names
TABLES = pfdet_2018.TABLES | peng_2020.TABLES | small_sets.TABLES
RECIPES = {recipe.name: recipe for table in TABLES.values() for recipe in table.recipes}
# Rows that are not a single training
COMPOSITES = {row.name: row for table in TABLES.values() for row in table.composites}

# The default of `pfdet train`: PFDet's final single model.
DEFAULT = 'table1-senet154'


def find(name: str, size: str | None = None) -> Recipe:
    """The recipe of this name, or in this file.

    Args:
        name (str): Its name; or the path of a ``.json`` file, the ``recipe.json`` of a run or the
            fields of a recipe.
        size (str): ``'full'`` or ``'mini'``; by default the recipe's own.

    Raises:
        InputError: There is none, it is a row of several models, or it is not defined at that
            size; or the file cannot be used.
    """
    if name.endswith('.json'):
        return _read(name, size)
    if name in COMPOSITES:
        table = next(key for key, table in TABLES.items() if COMPOSITES[name] in table.rows)
        raise InputError(
            f'--recipe {name}: this row is not a single training; run pfdet train-table '
            f'--table {table} --rows {name}'
        )
    if name not in RECIPES:
        raise InputError(f'--recipe {name}: no such recipe; {expected_name(name, RECIPES)}')
    recipe = RECIPES[name]
    if size is None or size == recipe.size:
        return recipe
    if recipe.size == 'mini':
        raise InputError(f'--scale {size}: recipe {name} is defined at mini scale only')
    return at_size(recipe, size)


def _read(path: str, size: str | None) -> Recipe:
    # Imported here, since most commands take a recipe by its name.
    from pfdet.files.json_file import read_object

    content = read_object(path, 'the recipe.json of a run, or the fields of a recipe')
    recipe = from_dict(content.get('recipe', content), path)
    if size not in (None, recipe.size):
        raise InputError(f'--scale {size}: the recipe in {path} has the size {recipe.size!r}')
    return recipe
