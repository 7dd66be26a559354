"""Convert between Arrow and NumPy arrays without a copy.

pyarrow's own ``to_numpy`` and ``array`` import pandas if it is installed. That needs 40 MB and
takes longer than reading a million rows.
"""

import numpy as np
import pyarrow as pa

_DTYPES = {pa.int8(): np.int8, pa.int32(): np.int32, pa.float32(): np.float32}


def numbers(column: pa.Array) -> np.ndarray:
    """Return an Arrow array of int8, int32 or float32 without nulls as a NumPy array.

    Args:
        column (pyarrow.Array): ``(N,)``.

    Returns:
        array: ``(N,)``, a read-only view of Arrow's memory.
    """
    dtype = _DTYPES[column.type]
    if not len(column):
        return np.zeros(0, dtype)
    return np.frombuffer(column.buffers()[1], dtype)[column.offset : column.offset + len(column)]


def from_numbers(values: np.ndarray) -> pa.Array:
    """Return an int8, int32 or float32 array as an Arrow array.

    Args:
        values (array): ``(N,)``.

    Returns:
        pyarrow.Array: ``(N,)``, of the same type.
    """
    values = np.ascontiguousarray(values)
    [type_] = [type_ for type_, dtype in _DTYPES.items() if dtype == values.dtype]
    return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(values)])


def from_strings(strings: list[str]) -> pa.Array:
    """Return strings as an Arrow array of large strings.

    Args:
        strings (list of str): ``N`` strings.

    Returns:
        pyarrow.Array: ``(N,)``.
    """
    encoded = [text.encode() for text in strings]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    return pa.LargeStringArray.from_buffers(
        len(encoded), pa.py_buffer(offsets), pa.py_buffer(b''.join(encoded))
    )


def string_buffers(strings: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets and the text of an Arrow array of strings.

    Args:
        strings (pyarrow.Array): ``(N,)``, of type string or large string, without nulls.

    Returns:
        tuple: Offsets ``(N + 1,)``, int32 or int64, that begin at 0, and the concatenated strings
        in UTF-8 as uint8.
    """
    dtype = np.int64 if pa.types.is_large_string(strings.type) else np.int32
    if not len(strings):
        return np.zeros(1, dtype), np.zeros(0, np.uint8)
    _, offsets, text = strings.buffers()
    offsets = np.frombuffer(offsets, dtype)[strings.offset : strings.offset + len(strings) + 1]
    text = (
        np.zeros(0, np.uint8)
        if text is None
        else np.frombuffer(text, np.uint8)[offsets[0] : offsets[-1]]
    )
    return offsets - offsets[0], text
