"""Checksums of files of detections in Parquet."""

import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pfdet.errors import InputError
from pfdet.evaluation import detections_file
from pfdet.evaluation.detections import (
    Detections,
    images_without_detections,
    read_detections,
    read_model_classes,
    row_blocks,
    write_detections,
)
from pfdet.evaluation.parquet_checksum import VERIFY_PAGES, WRITE_PAGE_CHECKSUMS
from pfdet.openimages.classes import Classes

CLASSES = Classes(tuple(f'/m/{c}' for c in 'abc'), tuple('abc'))


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file with three row groups and images without detections."""
    monkeypatch.setattr(detections_file, 'ROW_GROUP', 16)
    rng = np.random.default_rng(0)
    n = 40
    corner = np.sort(rng.random((n, 2, 2)), axis=1).astype(np.float32)
    detections = Detections(
        [f'image{i}' for i in range(9)],
        np.sort(rng.integers(0, 8, n)).astype(np.int32),
        rng.integers(0, 3, n).astype(np.int32),
        rng.random(n).astype(np.float32),
        corner.reshape(n, 4),
    )
    write_detections(tmp_path / 'd.parquet', detections, CLASSES)
    return tmp_path / 'd.parquet'


def test_record_is_where_the_documentation_says(path):
    """Parsed here without the package."""
    content = path.read_bytes()
    assert content[-4:] == b'PAR1'
    (length,) = struct.unpack('<I', content[-8:-4])
    footer, before = content[-8 - length :], content[: -8 - length]
    assert before[-16:-8] == b'PFDETCRC'
    crc_rows, crc_footer = struct.unpack('<II', before[-8:])
    assert crc_rows == zlib.crc32(before[:-16]) and crc_footer == zlib.crc32(footer)


def test_other_readers_ignore_the_record(path):
    """Everything that pyarrow reads is the same with and without it."""
    content = path.read_bytes()
    (length,) = struct.unpack('<I', content[-8:-4])
    plain = path.with_name('plain.parquet')
    plain.write_bytes(content[: -8 - length - 16] + content[-8 - length :])
    assert pq.read_metadata(plain).equals(pq.read_metadata(path))
    table = pq.read_table(path)
    assert pq.read_table(plain).equals(table) and table.num_rows == 40
    with open(path, 'rb') as f:
        file = pq.ParquetFile(f)
        assert file.num_row_groups == 3
        assert pa.concat_tables(file.read_row_group(k) for k in range(3)).num_rows == 40
    # A file of another program, without a checksum.
    assert len(read_detections(plain, CLASSES)) == 40


def read_all(path):
    found = read_detections(path, CLASSES)
    return (
        found.image_ids,
        found.image.tolist(),
        found.label.tolist(),
        found.score.tolist(),
        found.bbox.tolist(),
        read_model_classes(path),
        images_without_detections(path),
    )


def test_flipped_bits_are_one_line_or_change_nothing(path):
    whole, expected = path.read_bytes(), read_all(path)
    rng = np.random.default_rng(0)
    record = whole.rindex(b'PFDETCRC')
    sample = rng.integers(0, len(whole), 200).tolist()
    for at in [0, *sample, *range(record, record + 18), *range(len(whole) - 12, len(whole))]:
        # All bits of the length of the footer and of the magic at the end.
        for bit in range(8) if at >= len(whole) - 8 else [int(rng.integers(8))]:
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                found = read_all(path)
            except InputError as e:
                assert str(e).startswith(f'{path}: ') and '\n' not in str(e)
                assert not record <= at < record + 8
            else:
                # The name of the checksum: without it, the file is read as those of others.
                assert record <= at < record + 8 and found == expected


def test_blocks_of_a_damaged_file_are_not_read(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 4] ^= 32
    path.write_bytes(damaged)
    with pytest.raises(InputError, match='damaged'):
        next(row_blocks(path, CLASSES))


@pytest.mark.skipif(not (VERIFY_PAGES and WRITE_PAGE_CHECKSUMS), reason='pyarrow lacks them')
def test_checksums_of_pages_are_verified(tmp_path):
    """Files of other programs may have only these."""
    n = 1000
    columns = {name: np.linspace(0.1, 0.9, n, dtype=np.float32) for name in detections_file.NUMBERS}
    table = pa.table({'ImageID': ['i'] * n, 'LabelName': ['/m/a'] * n, **columns})
    options = {'use_dictionary': False, 'compression': 'none', 'write_page_checksum': True}
    pq.write_table(table, tmp_path / 'd.parquet', **options)
    content = bytearray((tmp_path / 'd.parquet').read_bytes())
    at = content.index(np.float32(columns['Score'][500]).tobytes())
    content[at] ^= 1
    (tmp_path / 'd.parquet').write_bytes(content)
    with pytest.raises(InputError, match=r'd\.parquet: .*CRC') as e:
        read_detections(tmp_path / 'd.parquet', CLASSES)
    assert '\n' not in str(e.value)


def test_files_of_this_package_have_checksums_of_pages(path, monkeypatch):
    if not WRITE_PAGE_CHECKSUMS:
        pytest.skip('pyarrow lacks them')
    content = bytearray(path.read_bytes())
    # A page of data, which is compressed: pyarrow alone finds its damage.
    start = pq.read_metadata(path).row_group(0).column(2).data_page_offset
    size = pq.read_metadata(path).row_group(0).column(2).total_compressed_size
    content[start + size - 3] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(detections_file, 'verify_checksum', lambda *args: None)
    with pytest.raises(InputError, match='CRC'):
        read_detections(path, CLASSES)
