"""Sets of image ids: their union, and lists of them in files."""

import contextlib
import csv
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfdet.errors import InputError
from pfdet.openimages.arrow_arrays import from_numbers, from_strings, numbers
from pfdet.openimages.csv_columns import Paths, as_paths, map_batches
from pfdet.openimages.identifiers import IMAGE_ID, normal_image_id
from pfdet.openimages.text_files import open_utf8, read_first_line, split_header, text_lines

_COLUMNS = ('ImageID', 'ImageId')
# Open Images' own list for its download script names each image as SPLIT/ID.
_SPLITS = ('train', 'validation', 'test', 'challenge2018')


class HasIds(Protocol):
    """A table with sorted image ids, an Arrow array of large strings."""

    ids: pa.Array


def sorted_distinct(strings: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return the distinct strings, sorted by code point, and the position of each string.

    Args:
        strings (pyarrow.Array): Large strings ``(N,)``.

    Returns:
        tuple: An Arrow array of large strings, and int32 positions ``(N,)`` in it.
    """
    before, after = strings[:-1], strings[1:]
    if pc.all(pc.less_equal(before, after)).as_py() is not False:
        # The files of Open Images are sorted by image, so equal ids are adjacent.
        new = np.ones(len(strings), np.int8)
        new[1:] = numbers(pc.not_equal(before, after).cast(pa.int8()))
        first = np.flatnonzero(new).astype(np.int32)
        return strings.take(from_numbers(first)), np.cumsum(new, dtype=np.int32) - np.int32(1)
    distinct = pc.unique(strings)
    distinct = distinct.take(pc.array_sort_indices(distinct))
    return distinct, numbers(pc.index_in(strings, value_set=distinct))


def union_of_ids(tables: Sequence[HasIds]) -> tuple[pa.Array, list[np.ndarray]]:
    """Return the union of the image ids of several tables.

    Args:
        tables (sequence of tables): The tables.

    Returns:
        tuple: The sorted ids of all tables as an Arrow array of large strings, and for each table
        an int32 array that maps its positions to positions in the union.
    """
    union = tables[0].ids
    positions = [pc.index_in(table.ids, value_set=union) for table in tables]
    if any(column.null_count for column in positions):
        union, _ = sorted_distinct(pa.concat_arrays([table.ids for table in tables]))
        positions = [pc.index_in(table.ids, value_set=union) for table in tables]
    return union, [numbers(column) for column in positions]


def contains(ids: pa.Array, listed: pa.Array) -> np.ndarray:
    """Return which ids are in a list.

    Args:
        ids (pyarrow.Array): Large strings ``(N,)``.
        listed (pyarrow.Array): Large strings.

    Returns:
        array: bool ``(N,)``.
    """
    return numbers(pc.is_in(ids, value_set=listed).cast(pa.int8())) == 1


def read_image_ids(paths: Paths) -> pa.Array:
    """Read lists of image ids, such as ``challenge-2018-image-ids-valset-od.csv``.

    A list is a CSV file with a column ``ImageID``, or ``ImageId`` as in submissions to Kaggle; or a
    text file with one id per line, which may be preceded by the split and a slash, as in Open
    Images' lists of images to download.

    Args:
        paths (path or sequence of paths): The files, plain or gzip.

    Returns:
        pyarrow.Array: Large strings, sorted and distinct.

    Raises:
        InputError: If a file cannot be read, has no ids, or a line has no valid id. The message
            names the file and the line.
    """
    found = []
    for path in as_paths(paths):
        column = _column_of_ids(path)
        if column is not None:
            batches = map_batches(lambda batch: batch.column(0), path, {column: 'id'}, {})
            found += [column.dictionary.cast(pa.large_string()) for column in batches]
        else:
            found.append(from_strings(list(_plain_ids(path))))
    ids, _ = sorted_distinct(pa.concat_arrays(found))
    return ids


def _column_of_ids(path) -> str | None:
    line = read_first_line(path, 'list of images')
    for column in _COLUMNS:
        with contextlib.suppress(csv.Error):
            if column in split_header(line, [column]).names:
                return column
    return None


def _plain_ids(path) -> Iterator[str]:
    n_id = 0
    with open_utf8(path, 'list of images') as (_, stream):
        for number, line in enumerate(text_lines(stream), 1):
            text = line.strip('\r\n')
            if not text:
                continue
            split, slash, name = text.partition('/')
            image_id = normal_image_id(name if slash and split.strip() in _SPLITS else text)
            if image_id is None or set(text) & set(',;\t'):
                raise InputError(
                    f'{path}, line {number}: expected a header with the column ImageID, or on each '
                    f'line {IMAGE_ID}; got {text[:60]!r}'
                )
            n_id += 1
            yield image_id
    if not n_id:
        raise InputError(f'{path}: no image ids; expected a column ImageID, or one id per line')
