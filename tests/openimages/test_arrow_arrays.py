import numpy as np
import pyarrow as pa
import pytest

from pfdet.openimages.arrow_arrays import from_numbers, from_strings, numbers, string_buffers


@pytest.mark.parametrize('dtype', [np.int8, np.int32, np.float32])
def test_numbers_round_trip(dtype):
    values = np.arange(-3, 9).astype(dtype)
    column = from_numbers(values[::2])
    assert column.to_pylist() == values[::2].tolist()
    for part in (column, column[2:5], column[:0]):
        assert numbers(part).dtype == dtype and numbers(part).tolist() == part.to_pylist()


@pytest.mark.parametrize('kind', [pa.string(), pa.large_string()])
@pytest.mark.parametrize('strings', [[], [''], ['', '\u00fcb', 'c', '']])
def test_strings_round_trip(strings, kind):
    column = from_strings(strings)
    assert column.type == pa.large_string() and column.to_pylist() == strings
    for part in (column.cast(kind), column.cast(kind)[1:], column.cast(kind)[1:2]):
        offsets, text = string_buffers(part)
        assert len(offsets) == len(part) + 1 and offsets[0] == 0 and offsets[-1] == len(text)
        data = text.tobytes()
        assert [data[i:j].decode() for i, j in zip(offsets, offsets[1:])] == part.to_pylist()
