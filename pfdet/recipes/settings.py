"""Recipes to and from JSON, and settings from a command line."""

import ast
import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pfdet.errors import InputError
from pfdet.recipes.recipe import Recipe

# Names that fields had in earlier recipe.json.
_FORMER_NAMES = {
    'scale': 'size',
    'test_size': 'test_sizes',
    'nmw_thresh': 'suppression_iou',
}
# Longest value of a setting; Python's parser takes memory in proportion to it.
_LONGEST = 10_000


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The fields, ready for JSON."""
    return dataclasses.asdict(recipe)


def from_dict(fields: Mapping[str, Any], where: str) -> Recipe:
    """The inverse of :func:`to_dict`.

    Args:
        fields (mapping): By name; missing fields get their default.
        where (str): Where the fields were read, for messages.

    Raises:
        InputError: A field is unknown, a value has the wrong type or is out of range, or values
            contradict each other.
    """
    if not isinstance(fields, Mapping):
        raise InputError(f'{where}: expected the fields of a recipe, not {_short(fields)}')
    known = {f.name: f for f in dataclasses.fields(Recipe)}
    values = {}
    for key, value in fields.items():
        key = _FORMER_NAMES.get(key, key)
        if key not in known:
            close = difflib.get_close_matches(str(key)[:100], known, 3)
            expected = (
                f'did you mean {", ".join(close)}?' if close else 'one of ' + ', '.join(known)
            )
            raise InputError(f'{where}: unknown recipe field {_short(key)}; {expected}')
        field = known[key]
        value = _of_type(key, value, field.default, where)
        if not field.metadata['domain'].accepts(value):
            raise InputError(
                f'{where}: {key}={_short(value)}: expected {field.metadata["domain"].expected}'
            )
        values[key] = value
    try:
        return Recipe(**values)
    except InputError as e:
        raise InputError(f'{where}: {e}') from None


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Apply ``KEY=VALUE`` settings from a command line.

    Args:
        recipe (Recipe): What to change.
        settings (sequence of str): Values are Python literals; text may be without quotes.

    Raises:
        InputError: A setting has no ``=``, a key is unknown, a value has the wrong type or is out
            of range, or values contradict each other.
    """
    return from_dict({**to_dict(recipe), **given_fields(settings)}, '--set')


def given_fields(settings: Sequence[str]) -> dict[str, Any]:
    """The fields of ``KEY=VALUE`` settings, not checked.

    Raises:
        InputError: A setting has no ``=``.
    """
    fields = {}
    for setting in settings:
        key, equals, text = setting.partition('=')
        if not equals:
            raise InputError(f'--set {_short(setting, quote=False)}: expected KEY=VALUE')
        fields[_FORMER_NAMES.get(key, key)] = _literal(text)
    return fields


def _literal(text: str) -> Any:
    """The Python literal, or the text itself if it is none."""
    if len(text) > _LONGEST:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        # All that the documentation of literal_eval lists.
        return text


def _of_type(key: str, value: Any, default: Any, where: str) -> Any:
    """A value converted to the type of the field's default."""
    if isinstance(default, tuple):
        if isinstance(value, (list, tuple)):
            return tuple(_of_type(key, v, default[0], where) for v in value)
        if type(value) in (int, float):
            # One number for a sequence of one
            return (_of_type(key, value, default[0], where),)
    if isinstance(default, float) and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return float('inf')
    if type(value) is not type(default):
        raise InputError(
            f'{where}: {key}={_short(value)}: expected {type(default).__name__}, '
            f'such as {default!r}'
        )
    return value


def _short(value: Any, quote: bool = True) -> str:
    """A value for a message, cut if it is long."""
    try:
        text = repr(value) if quote else str(value)
    except (ValueError, RecursionError):
        # Python refuses to print integers of thousands of digits.
        text = f'a long {type(value).__name__}'
    return text if len(text) <= 60 else text[:57] + '...'
