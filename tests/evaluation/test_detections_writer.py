"""Writing detections block by block, and the metadata of the file."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pfdet.evaluation import detections_file
from pfdet.evaluation.detections import (
    Detections,
    detections_writer,
    read_detections,
    write_detections,
)
from pfdet.openimages.classes import Classes

CLASSES = Classes(('/m/a', '/m/b', '/m/c'), ('A', 'B', 'C'))


def random_detections(n_image=40, seed=0):
    """Images with up to eight detections; some have none."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(n_image, dtype=np.int32), rng.integers(0, 9, n_image))
    corners = np.sort(rng.random((2, len(image), 2)), axis=0)
    return Detections(
        [f'{i:03}' for i in range(n_image)],
        image,
        rng.integers(0, 3, len(image), np.int32),
        rng.random(len(image), np.float32),
        np.concatenate((corners[0], corners[1]), axis=1).astype(np.float32),
    )


def of_images(detections, begin, end):
    rows = (begin <= detections.image) & (detections.image < end)
    return Detections(
        detections.image_ids[begin:end],
        detections.image[rows] - begin,
        detections.label[rows],
        detections.score[rows],
        detections.bbox[rows],
    )


@pytest.mark.parametrize('suffix', ['.parquet', '.csv'])
def test_blocks_do_not_change_the_file(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(detections_file, 'ROW_GROUP', 16)
    whole = random_detections()
    write_detections(tmp_path / f'whole{suffix}', whole, CLASSES)
    for name, ends in ('one', range(1, 41)), ('some', [0, 1, 7, 30, 31, 40]):
        with detections_writer(tmp_path / f'{name}{suffix}', CLASSES) as write:
            for begin, end in zip([0, *ends], ends):
                write(of_images(whole, begin, end))
        assert (tmp_path / f'{name}{suffix}').read_bytes() == (
            tmp_path / f'whole{suffix}'
        ).read_bytes()
    back = read_detections(tmp_path / f'whole{suffix}', CLASSES)
    np.testing.assert_array_equal(back.bbox, whole.bbox)
    assert back.image_ids == whole.image_ids
    if suffix == '.parquet':
        assert pq.ParquetFile(tmp_path / 'one.parquet').num_row_groups == -(-len(whole) // 16)


def test_metadata(tmp_path, monkeypatch):
    whole = random_detections()
    write_detections(tmp_path / 'd.parquet', whole, CLASSES)
    metadata = pq.read_metadata(tmp_path / 'd.parquet').metadata
    assert json.loads(metadata[b'classes']) == list(CLASSES.mids)
    empty = sorted(set(whole.image_ids) - {whole.image_ids[i] for i in whole.image})
    assert empty and json.loads(metadata[b'images_without_detections']) == empty
    # The code path for pyarrow before 16.
    monkeypatch.delattr(pq.ParquetWriter, 'add_key_value_metadata', raising=False)
    write_detections(tmp_path / 'old.parquet', whole, CLASSES)
    old = pq.read_metadata(tmp_path / 'old.parquet').metadata
    for key in b'classes', b'images_without_detections':
        assert old[key] == metadata[key]
    assert pq.read_table(tmp_path / 'old.parquet').equals(pq.read_table(tmp_path / 'd.parquet'))


def test_no_file_remains_after_an_error(tmp_path):
    whole = random_detections()
    with pytest.raises(RuntimeError), detections_writer(tmp_path / 'd.csv', CLASSES) as write:
        write(of_images(whole, 0, 9))
        raise RuntimeError
    whole.score[-1] = np.inf
    with (
        pytest.raises(ValueError, match='Score is inf'),
        detections_writer(tmp_path / 'd.parquet', CLASSES) as write,
    ):
        write(of_images(whole, 0, 9))
        write(of_images(whole, 9, 40))
    assert not list(tmp_path.iterdir())
