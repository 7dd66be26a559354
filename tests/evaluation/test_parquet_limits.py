"""Parquet files that declare or contain what detections do not."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pfdet.errors import InputError
from pfdet.evaluation import detections, parquet_size
from pfdet.evaluation.detections import read_detections
from pfdet.evaluation.detections_file import NUMBERS
from pfdet.files import memory
from pfdet.openimages.classes import Classes

CLASSES = Classes(('/m/a', '/m/b'), ('A', 'B'))


def table(n, **columns):
    numbers = {name: np.full(n, name.endswith('Max'), np.float32) for name in NUMBERS}
    return pa.table({'ImageID': ['x'] * n, 'LabelName': ['/m/a'] * n, **numbers, **columns})


@pytest.mark.parametrize('name', ['ImageID', 'LabelName'])
@pytest.mark.parametrize('code', [2, 1000, -2])
def test_codes_outside_of_the_dictionary(name, code):
    """Damage that Arrow does not see: it reads whatever is at that place of the memory."""
    values = pa.array(['x', 'y'] if name == 'ImageID' else ['/m/a', '/m/b'])
    codes = pa.array([0, code, 1], pa.int32())
    damaged = pa.DictionaryArray.from_arrays(codes, values, safe=False)
    with pytest.raises(InputError, match='d.parquet: cannot read the detections: .*expected a com'):
        detections._check_rows('d.parquet', table(3, **{name: damaged}), CLASSES)


def test_text_that_is_not_utf8():
    offsets, data = pa.py_buffer(np.array([0, 1, 2, 3], np.int32)), pa.py_buffer(b'a\xffb')
    damaged = pa.StringArray.from_buffers(3, offsets, data)
    with pytest.raises(InputError, match='d.parquet: cannot read the detections: '):
        detections._check_rows('d.parquet', table(3, ImageID=damaged), CLASSES)


def test_memory_is_checked(tmp_path, monkeypatch):
    path = tmp_path / 'd.parquet'
    pq.write_table(table(1000), path)
    assert len(read_detections(path, CLASSES)) == 1000
    monkeypatch.setattr(memory, '_UNCHECKED', 1000)
    monkeypatch.setattr(memory, 'available_memory', lambda: 100_000)
    with pytest.raises(InputError, match='d.parquet: its content needs 0.2 MB of memory'):
        read_detections(path, CLASSES)


def test_rows_of_small_files(tmp_path, monkeypatch):
    path = tmp_path / 'd.parquet'
    pq.write_table(table(50_000), path)
    size = path.stat().st_size
    assert size < 50_000 and len(read_detections(path, CLASSES)) == 50_000
    monkeypatch.setattr(parquet_size, '_MAX_ROWS_IN_SMALL_FILE', 10_000)
    with pytest.raises(InputError, match=rf'd.parquet: declares 50,000 rows in {size:,} bytes'):
        read_detections(path, CLASSES)
