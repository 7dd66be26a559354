"""Refuse Parquet files that unpack to far more than detections do."""

import os

import pyarrow.parquet as pq

from pfdet.errors import InputError
from pfdet.files.memory import check_memory

# Limits on what a small file may unpack to. Real scores and boxes take about 10 bytes per row, and
# compress little.
_MAX_ROWS_IN_SMALL_FILE = 1_000_000
_MAX_RATIO = 100
_MAX_BYTES_IN_SMALL_FILE = 1 << 26
# Bytes per row of a file that is read at once, with temporary copies.
_MEMORY_PER_ROW = 160


def check_parquet_size(
    path: str | os.PathLike, metadata: pq.FileMetaData, size: int, in_batches: bool
) -> None:
    """Refuse a file for the sizes that it declares.

    A few MB of equal values unpack to hundreds of millions of rows.

    Args:
        path (path): The file, for messages.
        metadata (pyarrow.parquet.FileMetaData): Its metadata.
        size (int): Its size in bytes.
        in_batches (bool): Whether it is read in batches, or at once into memory.

    Raises:
        InputError: It declares more rows or bytes than so small a file of detections has, or does
            not fit into memory.
    """
    n_row = metadata.num_rows
    if n_row > _MAX_ROWS_IN_SMALL_FILE and n_row > size:
        raise InputError(
            f'{path}: declares {n_row:,} rows in {size:,} bytes; expected at least one byte per row'
        )
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if n_row != sum(group.num_rows for group in groups):
        raise InputError(f'{path}: its numbers of rows differ; expected a complete Parquet file')
    n_byte = sum(group.total_byte_size for group in groups)
    if n_byte > _MAX_RATIO * size + _MAX_BYTES_IN_SMALL_FILE:
        raise InputError(
            f'{path}: declares {n_byte:,} bytes in {size:,} compressed bytes; expected at most '
            f'{_MAX_RATIO} times as many'
        )
    if not in_batches:
        check_memory(path, _MEMORY_PER_ROW * n_row)
