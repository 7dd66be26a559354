"""Reading and writing files of detections, and error messages for bad files."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections, read_detections, write_detections
from pfdet.evaluation.detections_file import COLUMNS
from pfdet.openimages.classes import Classes

_CLASSES = Classes(('/m/a', '/m/b', '/m/c'), ('A', 'B', 'C'))


def _detections(n=50, n_image=9):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((2, n, 2)), axis=0)
    return Detections(
        image_ids=[f'image {i}' for i in range(n_image)],
        # Image 2 and the last image have no detections.
        image=rng.choice([i for i in range(n_image - 1) if i != 2], n).astype(np.int32),
        label=rng.integers(0, 3, n).astype(np.int32),
        score=rng.random(n).astype(np.float32),
        bbox=np.concatenate((corners[0], corners[1]), axis=1).astype(np.float32),
    )


def _assert_equal(a, b):
    assert list(a.image_ids) == list(b.image_ids)
    for name in ('image', 'label', 'score', 'bbox'):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype


@pytest.mark.parametrize('suffix', ['.parquet', '.csv'])
@pytest.mark.parametrize('n, n_image', [(50, 9), (0, 3), (0, 0)])
def test_round_trip(tmp_path, suffix, n, n_image):
    written = (
        _detections(n, n_image)
        if n
        else Detections(
            [f'{i}' for i in range(n_image)],
            np.zeros(0, np.int32),
            np.zeros(0, np.int32),
            np.zeros(0, np.float32),
            np.zeros((0, 4), np.float32),
        )
    )
    write_detections(tmp_path / f'd{suffix}', written, _CLASSES)
    _assert_equal(read_detections(tmp_path / f'd{suffix}', _CLASSES), written)
    assert len(list(tmp_path.iterdir())) == 1


def _table(**columns):
    table = {
        'ImageID': ['x', 'y'],
        'LabelName': ['/m/a', '/m/b'],
        'Score': [0.5, 0.25],
        'XMin': [0.0, 0.1],
        'XMax': [1.0, 0.2],
        'YMin': [0.0, 0.3],
        'YMax': [0.5, 0.4],
    }
    table.update(columns)
    return table


def _write(path, table):
    if path.suffix == '.parquet':
        pq.write_table(pa.table(table), path)
    else:
        rows = zip(*(['' if v is None else str(v) for v in values] for values in table.values()))
        path.write_text('\n'.join([','.join(table), *map(','.join, rows)]) + '\n')


@pytest.mark.parametrize('suffix', ['.parquet', '.csv'])
def test_files_of_other_programs(tmp_path, suffix):
    path = tmp_path / f'd{suffix}'
    table = {'Other': ['p', 'q'], **dict(reversed(_table().items()))}
    if suffix == '.parquet':
        # Large strings, an unused dictionary value, double precision.
        table['ImageID'] = pa.DictionaryArray.from_arrays([2, 0], ['y', 'unused', 'x'])
        table['LabelName'] = pa.array(['/m/a', '/m/b'], pa.large_string())
    _write(path, table)
    read = read_detections(path, _CLASSES)
    assert read.image_ids == ['x', 'y']
    np.testing.assert_array_equal(read.label, [0, 1])
    np.testing.assert_array_equal(read.bbox, np.float32([[0, 0, 0.5, 1], [0.3, 0.1, 0.4, 0.2]]))


@pytest.mark.parametrize('suffix', ['.parquet', '.csv'])
@pytest.mark.parametrize(
    'change, message',
    [
        (dict(LabelName=['/m/a', '/m/z']), "{second}: LabelName '/m/z' is not one of the 3"),
        (dict(LabelName=['/m/a', None]), "{second}: LabelName '' is not one of"),
        (dict(Score=[0.5, float('nan')]), '{second}: Score is nan; expected a finite number'),
        (dict(Score=[0.5, float('inf')]), '{second}: Score is inf'),
        (dict(XMax=[1.0, 1.5]), '{second}: box .*XMax 1.5.*; expected numbers from 0 to 1'),
        (dict(YMin=[0.0, -2.0]), '{second}: box .*YMin -2'),
        (dict(YMin=[0.0, float('nan')]), '{second}: box .*YMin nan'),
        (dict(YMin=[0.0, None]), '{second}: box .*YMin nan'),
        (dict(XMin=[0.0, 0.9]), '{second}: box .*expected YMin <= YMax and XMin <= XMax'),
        (dict(ImageID=['x', None]), '{second}: no ImageID'),
    ],
)
def test_message_names_the_bad_row(tmp_path, suffix, change, message):
    path = tmp_path / f'd{suffix}'
    _write(path, _table(**change))
    second = f'd{suffix}, ' + ('row 2' if suffix == '.parquet' else 'line 3')
    with pytest.raises(InputError, match=message.format(second=second)):
        read_detections(path, _CLASSES)


@pytest.mark.parametrize('suffix', ['.parquet', '.csv'])
def test_missing_column(tmp_path, suffix):
    table = _table()
    del table['Score'], table['XMin']
    _write(tmp_path / f'd{suffix}', table)
    with pytest.raises(InputError, match=f'd{suffix}: no column Score, XMin; expected ImageID,'):
        read_detections(tmp_path / f'd{suffix}', _CLASSES)


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'no column ImageID'),
        (','.join(COLUMNS) + '\nx,/m/a,0.5,0,1,0,high\n', "line 2: YMax is 'high'; expected a num"),
        (','.join(COLUMNS) + '\nx,/m/a,0.5,0,1,0,1\nx,/m/a\n', 'line 3: 2 fields; expected 7'),
        (','.join(COLUMNS) + ',Score\nx,/m/a,0.5,0,1,0,1,2\n', 'column Score occurs twice'),
        (b'\xff\xfe' + 'ImageID'.encode('utf-16-le'), "can't decode"),
    ],
)
def test_broken_csv(tmp_path, text, message):
    path = tmp_path / 'd.csv'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_detections(path, _CLASSES)


def test_broken_parquet(tmp_path):
    path = tmp_path / 'd.parquet'
    write_detections(path, _detections(), _CLASSES)
    whole = path.read_bytes()
    for content in (b'', whole[: len(whole) // 2], whole[:-1], whole[:40] + whole[60:], b'x' * 99):
        path.write_bytes(content)
        with pytest.raises(InputError, match='d.parquet: .*expected'):
            read_detections(path, _CLASSES)
    _write(path, _table(Score=['a', 'b']))
    with pytest.raises(InputError, match='column Score holds string; expected numbers'):
        read_detections(path, _CLASSES)
    _write(path, _table(ImageID=[1, 2]))
    with pytest.raises(InputError, match='column ImageID holds int64; expected strings'):
        read_detections(path, _CLASSES)


def test_no_such_file_or_format(tmp_path):
    for name in ('no.parquet', 'no.csv'):
        with pytest.raises(InputError, match=f'{name}: cannot read the detections: No such file'):
            read_detections(tmp_path / name, _CLASSES)
    with pytest.raises(InputError, match='named .parquet or .csv'):
        read_detections(tmp_path / 'd.json', _CLASSES)
    with pytest.raises(InputError, match='named .parquet or .csv'):
        write_detections(tmp_path / 'd.txt', _detections(), _CLASSES)


def test_bad_detections_are_not_written(tmp_path):
    detections = _detections()
    detections.bbox[7, 3] *= 640
    with pytest.raises(ValueError, match='detection 7: box'):
        write_detections(tmp_path / 'd.parquet', detections, _CLASSES)
    detections.score[3] = np.nan
    with pytest.raises(ValueError, match='detection 3: Score is nan'):
        write_detections(tmp_path / 'd.csv', detections, _CLASSES)
    assert not list(tmp_path.iterdir())


def test_rounding_errors_are_clipped(tmp_path):
    detections = _detections()
    detections.bbox[0] = [-1e-7, 0, 1, 1 + 1e-6]
    write_detections(tmp_path / 'd.csv', detections, _CLASSES)
    np.testing.assert_array_equal(
        read_detections(tmp_path / 'd.csv', _CLASSES).bbox[0], [0, 0, 1, 1]
    )
