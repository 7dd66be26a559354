"""Memory of pyarrow."""

import numpy as np
import pyarrow as pa


def arrow_copy(data: bytes) -> pa.Buffer:
    """Copy bytes to memory of pyarrow, for a reader that works in threads of pyarrow.

    Such a thread may drop the buffer a moment after the reader is closed. If it belonged to Python,
    the thread would need the interpreter, and if that is exiting, abort the process.

    Args:
        data (bytes): At least one byte.
    """
    buffer = pa.allocate_buffer(len(data))
    np.frombuffer(buffer, np.uint8)[:] = np.frombuffer(data, np.uint8)
    return buffer
