import gc
import sys

import pyarrow as pa
import pytest

from pfdet.files.arrow_memory import arrow_copy


@pytest.mark.parametrize('data', [b'a', b'a,b\n1,2\n', bytes(range(256)) * 999])
def test_a_copy_holds_no_object_of_python(data):
    before = sys.getrefcount(data)
    buffer = arrow_copy(data)
    reader = pa.BufferReader(buffer)
    gc.collect()
    # Nor does the buffer: only its own object and this function refer to it.
    assert sys.getrefcount(data) == before and buffer.parent is None
    assert reader.read() == data
    assert pa.py_buffer(data).to_pybytes() == buffer.to_pybytes()
