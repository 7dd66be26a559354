"""Stored parts of a prediction: what is not exactly such a part is predicted again."""

import numpy as np
import pytest

from pfdet.inference.resumable import _KIND, Part, _part_path, _read_part
from pfdet.openimages.column_file import write_columns

PART = Part(0, (np.array([3, 5]), np.array([4])))
GOOD = {
    'image': np.array([3, 5, 4], np.int32),
    'count': np.array([2, 0, 1], np.int32),
    'label': np.array([0, 2, 1], np.int32),
    'score': np.array([0.5, 0.25, 1], np.float32),
    'bbox': np.array([[0, 0, 1, 1], [0.25, 0, 0.5, 1], [0, 0, 0.5, 0.5]], np.float32),
}
HEADER = {'corrupt': [[5, 'x.jpg: damaged']]}


def read(tmp_path, columns, header=HEADER, kind=_KIND):
    write_columns(_part_path(tmp_path, 1), kind, columns, header)
    return _read_part(tmp_path, 1, PART, 3, True)


def test_good_part(tmp_path):
    columns, header = read(tmp_path, GOOD)
    for name, column in GOOD.items():
        np.testing.assert_array_equal(columns[name], column)
    assert header['corrupt'] == HEADER['corrupt']
    assert _read_part(tmp_path, 1, PART, 3, False) is None
    assert _read_part(tmp_path, 0, PART, 3, True) is None


def changed(name, at, value):
    column = GOOD[name].copy()
    column[at] = value
    return {name: column}


@pytest.mark.parametrize(
    'change',
    [
        changed('image', 0, 2),
        {'image': GOOD['image'][:2]},
        {'image': GOOD['image'][None]},
        changed('count', 0, 1),
        changed('count', slice(2), [3, -1]),
        {'count': GOOD['count'][:2]},
        changed('label', 0, 3),
        changed('label', 0, -1),
        {'label': GOOD['label'][:, None]},
        {'label': GOOD['label'][:2]},
        changed('score', 1, np.nan),
        {'score': GOOD['score'][:2]},
        changed('bbox', (0, 0), 7),
        changed('bbox', (0, 0), np.nan),
        changed('bbox', 0, [1, 0, 0, 1]),
        {'bbox': GOOD['bbox'].T},
        {'bbox': GOOD['bbox'].reshape(-1)},
        *({name: None} for name in GOOD),
    ],
)
def test_impossible_columns(tmp_path, change):
    columns = {n: column for n, column in {**GOOD, **change}.items() if column is not None}
    assert read(tmp_path, columns) is None


@pytest.mark.parametrize(
    'header', [{}, {'corrupt': None}, {'corrupt': 3}, {'corrupt': [3]}, {'corrupt': [['3', 'x']]}]
)
def test_impossible_headers(tmp_path, header):
    assert read(tmp_path, GOOD, header) is None


def test_other_files(tmp_path):
    assert read(tmp_path, GOOD, kind='annotation index') is None
    _part_path(tmp_path, 1).write_bytes(b'PFDETCOL')
    assert _read_part(tmp_path, 1, PART, 3, True) is None
