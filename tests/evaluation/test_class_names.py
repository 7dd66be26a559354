"""The column with the names of classes, and the names in the metadata."""

import csv
import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from pfdet.cli import ensemble
from pfdet.errors import InputError
from pfdet.evaluation.class_names import named_classes, read_class_names
from pfdet.evaluation.detections import Detections, read_detections, write_detections
from pfdet.evaluation.detections_file import COLUMNS
from pfdet.openimages.classes import Classes, challenge_classes

# Two classes may have the same name.
CLASSES = Classes(('/m/a', '/m/b', '/m/c'), ('Bow, and "arrow"', 'Éclair', 'Éclair'))
DETECTIONS = Detections(
    ['x', 'y', 'z'],
    np.array([0, 0, 2, 2], np.int32),
    np.array([2, 0, 1, 0], np.int32),
    np.array([0.5, 0.25, 0.75, 0.125], np.float32),
    np.tile(np.array([0, 0, 0.5, 1], np.float32), (4, 1)),
)
MIDS = ['/m/c', '/m/a', '/m/b', '/m/a']
NAMES = ['Éclair', 'Bow, and "arrow"', 'Éclair', 'Bow, and "arrow"']


def test_parquet(tmp_path):
    path = tmp_path / 'd.parquet'
    write_detections(path, DETECTIONS, CLASSES)
    table = pq.read_table(path)
    assert table.column_names == [*COLUMNS, 'Name']
    assert table['LabelName'].to_pylist() == MIDS
    assert table['Name'].to_pylist() == NAMES
    # Stored as codes.
    metadata = pq.ParquetFile(path).metadata.row_group(0).column(len(COLUMNS))
    assert metadata.path_in_schema == 'Name' and 'RLE_DICTIONARY' in metadata.encodings
    assert read_class_names(path) == dict(zip(CLASSES.mids, CLASSES.names))


def test_csv(tmp_path):
    path = tmp_path / 'd.csv'
    write_detections(path, DETECTIONS, CLASSES)
    with open(path, newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    assert [row['ImageID'] for row in rows] == ['x', 'x', 'z', 'z', 'y']
    assert [row['Name'] for row in rows] == [*NAMES, '']
    assert read_class_names(path) == {}
    assert list(read_detections(path, CLASSES).label) == [2, 0, 1, 0]


def test_files_of_earlier_versions(tmp_path):
    """Neither the column nor the metadata is needed, and the column is not believed."""
    path = tmp_path / 'd.parquet'
    write_detections(path, DETECTIONS, CLASSES)
    table = pq.read_table(path)
    metadata = pq.read_metadata(path).metadata
    kept = {key: metadata[key] for key in (b'classes', b'images_without_detections')}
    old = table.select(COLUMNS).replace_schema_metadata(kept)
    pq.write_table(old, tmp_path / 'old.parquet')
    wrong = old.append_column('Name', [['Apple'] * 4])
    pq.write_table(wrong.replace_schema_metadata(kept), tmp_path / 'wrong.parquet')
    expected = read_detections(path, CLASSES)
    for name in 'old.parquet', 'wrong.parquet':
        found = read_detections(tmp_path / name, CLASSES)
        assert found.image_ids == expected.image_ids == ['x', 'y', 'z']
        np.testing.assert_array_equal(found.label, expected.label)
    assert read_class_names(tmp_path / 'old.parquet') == {}


def test_names_of_several_files(tmp_path):
    paths = [tmp_path / 'a.parquet', tmp_path / 'b.csv', tmp_path / 'c.parquet']
    write_detections(paths[0], DETECTIONS, CLASSES)
    write_detections(paths[1], DETECTIONS, CLASSES)
    other = Classes(('/m/a', '/m/b', '/m/c', '/m/d'), tuple('ABCD'))
    write_detections(paths[2], DETECTIONS, other)
    apple = challenge_classes().names.index('Apple')
    mids = ['/m/d', '/m/a', challenge_classes().mids[apple], '/m/unknown']
    assert named_classes(mids, paths) == Classes(
        tuple(mids), ('D', 'Bow, and "arrow"', 'Apple', '/m/unknown')
    )
    assert named_classes([], [tmp_path / 'missing.parquet']) == Classes((), ())


@pytest.mark.parametrize('names', ['["A"]', '[1, 2, 3]', '{"a": 1}', '[', '["A", "B", ""]'])
def test_damaged_names(tmp_path, names):
    path = tmp_path / 'd.parquet'
    write_detections(path, DETECTIONS, CLASSES)
    table = pq.read_table(path)
    metadata = {b'classes': json.dumps(CLASSES.mids), b'class_names': names}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match='d.parquet: .*class_names') as error:
        read_class_names(path)
    assert '\n' not in str(error.value)


def test_an_ensemble_names_its_classes(tmp_path, monkeypatch):
    """Without --classes, the files of the models name them."""
    path, out = tmp_path / 'a.parquet', tmp_path / 'out.parquet'
    write_detections(path, DETECTIONS, CLASSES)
    arguments = ['--detections', path, path, '--out', out]
    monkeypatch.setattr(sys, 'argv', ['pfdet ensemble', *map(str, arguments)])
    ensemble.main()
    table = pq.read_table(out)
    assert len(table) == 4
    assert set(zip(table['LabelName'].to_pylist(), table['Name'].to_pylist())) == set(
        zip(CLASSES.mids, CLASSES.names)
    )
