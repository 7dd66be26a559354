"""Reading COCO's ``instances_*.json`` into columns."""

import gc
import json
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from pfdet.errors import InputError

_SECTIONS = ('images', 'annotations', 'categories')


@dataclass(frozen=True)
class Instances:
    """The annotations of a file; ``N`` images sorted by their id, ``A`` annotations.

    Attributes:
        categories (tuple of str): Names.
        file_names (tuple of str): Of the images.
        image_ids (array): object ``(N,)`` of str, file names without suffix, sorted.
        suffix (array): uint8 ``(N,)``, positions in ``suffixes``.
        suffixes (list of str): Such as ``'.jpg'``.
        size (array): int32 ``(N, 2)``, height and width in pixels.
        image (array): int32 ``(A,)``, positions in ``image_ids``.
        category (array): int32 ``(A,)``, positions in ``categories``.
        bbox (array): float64 ``(A, 4)``, ``(x, y, width, height)`` in pixels, as in the file.
        crowd (array): bool ``(A,)``, ``iscrowd``; false where the file does not say.
    """

    categories: tuple[str, ...]
    file_names: tuple[str, ...]
    image_ids: np.ndarray
    suffix: np.ndarray
    suffixes: list[str]
    size: np.ndarray
    image: np.ndarray
    category: np.ndarray
    bbox: np.ndarray
    crowd: np.ndarray


def read_instances(path: str | os.PathLike) -> Instances:
    """Read a COCO annotation file.

    Of images, ``id``, ``file_name``, ``width`` and ``height`` are needed; of annotations,
    ``image_id``, ``category_id`` and ``bbox``; of categories, ``id`` and ``name``.

    Args:
        path (path): Such as ``instances_val2017.json``.

    Returns:
        Instances: The file's columns.

    Raises:
        InputError: If the file cannot be read, is no such JSON, lacks a key, has a value of
            another kind, or names an unknown image or category. The message names the place.
    """
    images, annotations, categories = _load(path)
    names = _strings(path, 'categories', categories, 'name')
    category_at = _numbered(path, 'categories', categories)
    _refuse_repeated(path, 'categories', 'name', names)
    file_names = _strings(path, 'images', images, 'file_name')
    image_at = _numbered(path, 'images', images)
    stems = [os.path.splitext(name) for name in file_names]
    _refuse_repeated(path, 'images', 'file_name without suffix', [stem for stem, _ in stems])
    suffixes = sorted({suffix for _, suffix in stems})
    if len(suffixes) > 255:
        raise InputError(
            f'{path}: {len(suffixes)} different suffixes of file names; expected '
            'images such as .jpg'
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
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    bbox = _numbers(path, 'annotations', annotations, 'bbox', (4,))
    return Instances(
        tuple(names),
        tuple(file_names[k] for k in order),
        np.array([stems[k][0] for k in order] + [None], object)[:-1],
        np.array([suffixes.index(stems[k][1]) for k in order], np.uint8),
        suffixes,
        size[order].astype(np.int32),
        place[_found(path, annotations, 'image_id', image_at, 'images')],
        _found(path, annotations, 'category_id', category_at, 'categories').astype(np.int32),
        bbox,
        _crowd(path, annotations),
    )


def _load(path: str | os.PathLike) -> tuple[list, list, list]:
    bar = tqdm(desc='objects', unit='', unit_scale=True, disable=None)

    def without_outline(row: dict) -> dict:
        # Outlines are nine tenths of the file; they need not be held till its end.
        row.pop('segmentation', None)
        bar.update()
        return row

    collecting = gc.isenabled()
    # There are no cycles here, and looking for some takes as long as the reading.
    gc.disable()
    try:
        with open(path, encoding='utf-8-sig') as f:
            top = json.loads(f.read(), object_hook=without_outline)
    except OSError as e:
        raise InputError(f'{path}: cannot read the annotations: {e.strerror or e}') from e
    except json.JSONDecodeError as e:
        raise InputError(
            f"{path}, line {e.lineno}, column {e.colno}: expected COCO's annotations "
            f'as JSON, but {e.msg}'
        ) from e
    # A number of too many digits is a plain ValueError.
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: expected COCO's annotations as JSON, but {e}") from e
    finally:
        bar.close()
        if collecting:
            gc.enable()
    for section in _SECTIONS:
        rows = top.get(section) if isinstance(top, dict) else None
        if not isinstance(rows, list):
            raise InputError(
                f'{path}: no list {section!r}; expected an object with the lists '
                'images, annotations and categories, as instances_*.json has'
            )
        for at, row in enumerate(rows):
            if not isinstance(row, dict):
                raise InputError(f'{path}: {section}[{at}] is {_short(row)}; expected an object')
    if not top['images']:
        raise InputError(f'{path}: no images; expected one or more')
    return top['images'], top['annotations'], top['categories']


def _values(path: str | os.PathLike, section: str, rows: list[dict], key: str) -> list:
    try:
        return [row[key] for row in rows]
    except KeyError:
        at = next(at for at, row in enumerate(rows) if key not in row)
        raise InputError(
            f'{path}: {section}[{at}] has no {key!r}; it is {_short(rows[at])}'
        ) from None


def _strings(path: str | os.PathLike, section: str, rows: list[dict], key: str) -> list[str]:
    values = _values(path, section, rows, key)
    for at, value in enumerate(values):
        # A lone surrogate, which JSON can express, is in no file name and no text.
        if (
            not isinstance(value, str)
            or not value
            or '\0' in value
            or any('\ud800' <= c <= '\udfff' for c in value)
        ):
            raise InputError(f'{path}: {section}[{at}] has {key} {_short(value)}; expected a name')
    return values


def _numbers(
    path: str | os.PathLike, section: str, rows: list[dict], key: str, shape: tuple[int, ...]
) -> np.ndarray:
    values = _values(path, section, rows, key)
    if not values:
        return np.zeros((0, *shape))
    array = _as_numbers(values, (len(values), *shape))
    if array is None:
        expected = f'{shape[0]} numbers' if shape else 'a number'
        at = next(at for at, value in enumerate(values) if _as_numbers(value, shape) is None)
        raise InputError(
            f'{path}: {section}[{at}] has {key} {_short(values[at])}; expected {expected}'
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
    for at, value in enumerate(values):
        if value not in (0, 1):
            raise InputError(
                f'{path}: annotations[{at}] has iscrowd {_short(value)}; expected 0 or 1'
            )
    return np.array(values, bool)


def _numbered(path: str | os.PathLike, section: str, rows: list[dict]) -> dict[Hashable, int]:
    """Map the ``id`` of rows to their places."""
    ids = _values(path, section, rows, 'id')
    for at, value in enumerate(ids):
        if not isinstance(value, (int, str)):
            raise InputError(
                f'{path}: {section}[{at}] has id {_short(value)}; expected a '
                'whole number or a string'
            )
    _refuse_repeated(path, section, 'id', ids)
    return {value: at for at, value in enumerate(ids)}


def _refuse_repeated(path: str | os.PathLike, section: str, key: str, values: Sequence) -> None:
    seen: dict = {}
    for at, value in enumerate(values):
        if seen.setdefault(value, at) != at:
            raise InputError(
                f'{path}: {section}[{at}] has the {key} {_short(value)} of '
                f'{section}[{seen[value]}]; expected each once'
            )


def _found(
    path: str | os.PathLike,
    annotations: list[dict],
    key: str,
    places: dict[Hashable, int],
    section: str,
) -> np.ndarray:
    values = _values(path, 'annotations', annotations, key)
    try:
        return np.array([places[value] for value in values], np.int64)
    except (KeyError, TypeError):
        at = next(
            at
            for at, value in enumerate(values)
            if not isinstance(value, Hashable) or value not in places
        )
        raise InputError(
            f'{path}: annotations[{at}] has {key} {_short(values[at])}; expected an id of {section}'
        ) from None


def _short(value: Any, most: int = 80) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + '...'
