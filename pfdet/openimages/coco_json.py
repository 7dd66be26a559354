"""Read COCO's ``instances_*.json``."""

import gc
import json
import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pfdet.errors import InputError
from pfdet.files.memory import available_memory
from pfdet.openimages.annotation_set import AnnotationSet
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.identifiers import normal_image_id, normal_name
from pfdet.openimages.text_files import open_utf8

# Memory per byte of the file, with segmentations, which are dropped.
_GROWTH = 4
_SECTIONS = ('images', 'annotations', 'categories')


def read_instances(path: str | os.PathLike, sort_categories: bool = False) -> AnnotationSet:
    """Read a COCO annotation file.

    Images must have ``id``, ``file_name``, ``width`` and ``height``; annotations ``image_id``,
    ``category_id`` and ``bbox``; categories ``id`` and ``name``. The id of an image is its
    ``file_name`` without suffix. ``iscrowd`` becomes the group-of flag.

    Args:
        path (path): Such as ``instances_val2017.json``.
        sort_categories (bool): Whether ``names`` are in the order of the categories' ids, and not
            in that of the file.

    Returns:
        AnnotationSet: The annotations, in the order of the file.

    Raises:
        InputError: If the file cannot be read, is not such a JSON, lacks a key, has a malformed
            value, or refers to an unknown image or category. The message names the file and the
            entry, such as ``annotations[2]``.
    """
    images, annotations, categories = _load(path)
    names = _strings(path, 'categories', categories, 'name', normal_name, 'a name')
    category_positions = _positions_by_id(path, 'categories', categories)
    _check_unique(path, 'categories', 'name', names)
    if sort_categories:
        category_ids = sorted(category_positions, key=_numbers_first)
        names = [names[category_positions[value]] for value in category_ids]
        category_positions = {value: k for k, value in enumerate(category_ids)}
    file_names = _strings(
        path, 'images', images, 'file_name', _normal_file_name, 'a file below the given directory'
    )
    image_positions = _positions_by_id(path, 'images', images)
    stems = [os.path.splitext(name) for name in file_names]
    _check_unique(path, 'images', 'file_name without suffix', [stem for stem, _ in stems])
    suffixes = sorted({suffix for _, suffix in stems})
    if len(suffixes) > 255:
        raise InputError(
            f'{path}: {len(suffixes)} different suffixes of file names; expected '
            'suffixes of images, such as .jpg'
        )
    size = np.stack(
        [_numbers(path, 'images', images, key, ()) for key in ('height', 'width')], axis=1
    )
    bad = np.flatnonzero(((size < 1) | (size > 2**31 - 1) | (size % 1 != 0)).any(axis=1))
    if len(bad):
        raise InputError(
            f'{path}: images[{bad[0]}] has height and width {size[bad[0]].tolist()}; '
            'expected whole numbers of pixels'
        )
    order = sorted(range(len(stems)), key=lambda k: stems[k][0])
    position = np.empty(len(order), np.int32)
    position[order] = np.arange(len(order), dtype=np.int32)
    x, y, width, height = _numbers(path, 'annotations', annotations, 'bbox', (4,)).T
    return AnnotationSet(
        str(path),
        tuple(names),
        np.array([stems[k][0] for k in order] + [None], object)[:-1],
        suffixes,
        np.array([suffixes.index(stems[k][1]) for k in order], np.uint8),
        size[order].astype(np.int32),
        position[_references(path, annotations, 'image_id', image_positions, 'images')],
        _references(path, annotations, 'category_id', category_positions, 'categories').astype(
            np.int32
        ),
        np.stack([y, x, y + height, x + width], axis=1),
        False,
        np.where(_crowd(path, annotations), GROUP_OF, 0).astype(np.uint8),
        lambda a: f'{path}: annotations[{a}]',
        lambda i: str(path),
    )


class Ids(NamedTuple):
    """The ids in a COCO annotation file.

    Attributes:
        images (dict): From ``file_name`` without suffix, in normal form, to the id of the image.
        categories (dict): From the name to the id of the category.
    """

    images: dict[str, int | str]
    categories: dict[str, int | str]


def read_ids(path: str | os.PathLike) -> Ids:
    """Read which ids a COCO annotation file gives to images and categories.

    Args:
        path (path): As for :func:`read_instances`.

    Returns:
        Ids: The ids.

    Raises:
        InputError: As for :func:`read_instances`, but annotations are not read.
    """
    images, _, categories = _load(path)
    names = _strings(path, 'categories', categories, 'name', normal_name, 'a name')
    file_names = _strings(
        path, 'images', images, 'file_name', _normal_file_name, 'a file below the given directory'
    )
    stems = [os.path.splitext(name)[0] for name in file_names]
    _check_unique(path, 'categories', 'name', names)
    _check_unique(path, 'images', 'file_name without suffix', stems)
    return Ids(
        dict(zip(stems, _positions_by_id(path, 'images', images))),
        dict(zip(names, _positions_by_id(path, 'categories', categories))),
    )


def _numbers_first(value: int | str) -> tuple[bool, int | str]:
    return isinstance(value, str), value


def _load(path: str | os.PathLike) -> tuple[list, list, list]:
    bar = tqdm(desc='objects', unit='', unit_scale=True, disable=None)

    def drop_segmentation(row: dict) -> dict:
        # Segmentations are nine tenths of the file. They are dropped while parsing.
        row.pop('segmentation', None)
        bar.update()
        return row

    gc_enabled = gc.isenabled()
    # JSON has no reference cycles. Garbage collection would double the reading time.
    gc.disable()
    try:
        with open_utf8(path, 'list of annotations', available_memory() // _GROWTH) as (_, stream):
            top = json.loads(stream.read().decode(), object_hook=drop_segmentation)
    except json.JSONDecodeError as e:
        raise InputError(
            f"{path}, line {e.lineno}, column {e.colno}: expected COCO's annotations "
            f'as JSON, but {e.msg}'
        ) from e
    # A number with too many digits raises a plain ValueError.
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: expected COCO's annotations as JSON, but {e}") from e
    finally:
        bar.close()
        if gc_enabled:
            gc.enable()
    for section in _SECTIONS:
        rows = top.get(section) if isinstance(top, dict) else None
        if not isinstance(rows, list):
            raise InputError(
                f'{path}: no list {section!r}; expected an object with the lists '
                'images, annotations and categories, as instances_*.json has'
            )
        for i, row in enumerate(rows):
            if not isinstance(row, dict):
                raise InputError(f'{path}: {section}[{i}] is {_short(row)}; expected an object')
    if not top['images']:
        raise InputError(f'{path}: no images; expected one or more')
    return top['images'], top['annotations'], top['categories']


def _values(path: str | os.PathLike, section: str, rows: list[dict], key: str) -> list:
    try:
        return [row[key] for row in rows]
    except KeyError:
        i = next(i for i, row in enumerate(rows) if key not in row)
        raise InputError(f'{path}: {section}[{i}] has no {key!r}; got {_short(rows[i])}') from None


def _strings(
    path: str | os.PathLike,
    section: str,
    rows: list[dict],
    key: str,
    normal: Callable[[str], str | None],
    expected: str,
) -> list[str]:
    """Return strings in normal form; ``normal`` returns None for those that cannot be used."""
    values = _values(path, section, rows, key)
    texts = [normal(value) if isinstance(value, str) else None for value in values]
    for i, text in enumerate(texts):
        if text is None:
            raise InputError(
                f'{path}: {section}[{i}] has {key} {_short(values[i])}; expected {expected}'
            )
    return texts


def _normal_file_name(text: str) -> str | None:
    name = normal_image_id(text)
    if name is None or normal_image_id(os.path.splitext(name)[0]) is None:
        return None
    return name


def _numbers(
    path: str | os.PathLike, section: str, rows: list[dict], key: str, shape: tuple[int, ...]
) -> np.ndarray:
    values = _values(path, section, rows, key)
    if not values:
        return np.zeros((0, *shape))
    array = _as_numbers(values, (len(values), *shape))
    if array is None:
        expected = f'{shape[0]} numbers' if shape else 'a number'
        i = next(i for i, value in enumerate(values) if _as_numbers(value, shape) is None)
        raise InputError(
            f'{path}: {section}[{i}] has {key} {_short(values[i])}; expected {expected}'
        )
    return array


def _as_numbers(values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        array = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return array if array.shape == shape and np.isfinite(array).all() else None


def _crowd(path: str | os.PathLike, annotations: list[dict]) -> np.ndarray:
    values = [row.get('iscrowd', 0) for row in annotations]
    for i, value in enumerate(values):
        if value not in (0, 1):
            raise InputError(
                f'{path}: annotations[{i}] has iscrowd {_short(value)}; expected 0 or 1'
            )
    return np.array(values, bool)


def _positions_by_id(
    path: str | os.PathLike, section: str, rows: list[dict]
) -> dict[Hashable, int]:
    """Map the ``id`` of each row to its position."""
    ids = _values(path, section, rows, 'id')
    for i, value in enumerate(ids):
        if not isinstance(value, (int, str)):
            raise InputError(
                f'{path}: {section}[{i}] has id {_short(value)}; expected a '
                'whole number or a string'
            )
    _check_unique(path, section, 'id', ids)
    return {value: i for i, value in enumerate(ids)}


def _check_unique(path: str | os.PathLike, section: str, key: str, values: Sequence) -> None:
    seen: dict = {}
    for i, value in enumerate(values):
        if seen.setdefault(value, i) != i:
            raise InputError(
                f'{path}: {section}[{i}] has the {key} {_short(value)} of '
                f'{section}[{seen[value]}]; expected a unique {key}'
            )


def _references(
    path: str | os.PathLike,
    annotations: list[dict],
    key: str,
    positions: dict[Hashable, int],
    section: str,
) -> np.ndarray:
    values = _values(path, 'annotations', annotations, key)
    try:
        return np.array([positions[value] for value in values], np.int64)
    except (KeyError, TypeError):
        i = next(
            i
            for i, value in enumerate(values)
            if not isinstance(value, Hashable) or value not in positions
        )
        raise InputError(
            f'{path}: annotations[{i}] has {key} {_short(values[i])}; expected an id of {section}'
        ) from None


def _short(value: Any, max_length: int = 80) -> str:
    text = json.dumps(value)
    return text if len(text) <= max_length else text[: max_length - 3] + '...'
