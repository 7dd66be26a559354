"""Ids of images in detections are names, not paths, in every format."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pfdet.errors import InputError
from pfdet.evaluation.detections import read_detections, row_blocks
from pfdet.openimages.classes import Classes
from pfdet.openimages.identifiers import normal_image_id

CLASSES = Classes(('/m/a',), ('A',))
BAD = ['../secret/s', '/etc/passwd', 'a/../../s', '..\\s', 'a\x00b', 'a/', 'a\u202eb', 'a\x1bb']


def write(path, ids):
    if path.suffix == '.parquet':
        columns = {'ImageID': ids, 'LabelName': ['/m/a'] * len(ids), 'Score': [0.5] * len(ids)}
        columns.update(
            {
                name: [x] * len(ids)
                for name, x in (('XMin', 0.0), ('XMax', 1.0), ('YMin', 0.0), ('YMax', 1.0))
            }
        )
        pq.write_table(pa.table(columns), path)
    elif path.stem == 'submission':
        rows = [f'{image_id},/m/a 0.5 0 0 1 1' for image_id in ids]
        path.write_text('\n'.join(['ImageId,PredictionString', *rows]))
    else:
        rows = [f'{image_id},/m/a,0.5,0,1,0,1' for image_id in ids]
        path.write_text('\n'.join(['ImageID,LabelName,Score,XMin,XMax,YMin,YMax', *rows]))
    return path


@pytest.mark.parametrize('name', ['d.parquet', 'd.csv', 'submission.csv'])
@pytest.mark.parametrize('image_id', BAD)
def test_paths_are_named(tmp_path, name, image_id):
    assert normal_image_id(image_id) is None
    path = write(tmp_path / name, ['i', 'j', image_id, 'k'])
    where = 'row 3' if name.endswith('parquet') else 'line 4'
    for read in (read_detections, lambda *args: list(row_blocks(*args))):
        with pytest.raises(InputError, match=f'{name}, {where}: expected ImageID to be an i') as e:
            read(path, CLASSES)
        assert '\n' not in str(e.value) and '\x1b' not in str(e.value)


@pytest.mark.parametrize('name', ['d.parquet', 'd.csv', 'submission.csv'])
def test_names_are_accepted(tmp_path, name):
    ids = ['0013d97a44c586c0', 'sub/000009', '..i', 'a.b']
    assert read_detections(write(tmp_path / name, ids), CLASSES).image_ids == sorted(ids)


@pytest.mark.parametrize('image_id', BAD)
def test_images_without_detections(tmp_path, image_id):
    path = write(tmp_path / 'd.parquet', ['i'])
    table = pq.read_table(path)
    for name, is_read in ((image_id, False), ('j', True)):
        metadata = {'images_without_detections': json.dumps([name])}
        pq.write_table(table.replace_schema_metadata(metadata), path)
        if is_read:
            assert read_detections(path, CLASSES).image_ids == ['i', 'j']
        else:
            with pytest.raises(InputError, match='d.parquet: its metadata images_without_detecti'):
                read_detections(path, CLASSES)
