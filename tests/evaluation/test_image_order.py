"""Sorting files of detections by image on disk, and reading them image by image."""

import json
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest

from pfdet.errors import InputError
from pfdet.evaluation import csv_rows, image_order
from pfdet.evaluation.detections import Detections, read_detections, write_detections
from pfdet.evaluation.detections_file import IMAGES_KEY
from pfdet.evaluation.image_order import (
    blocks_of_all_images,
    is_among_first,
    no_detections,
    sorted_by_image,
)
from pfdet.evaluation.submission import write_submission
from pfdet.openimages.classes import Classes

CLASSES = Classes(('/m/a', '/m/b', '/m/c'), ('A', 'B', 'C'))


def random_detections(n=500, n_image=60, seed=0):
    """Detections in random order; some images have none. Scores tell the order of the rows."""
    rng = np.random.default_rng(seed)
    corner = np.sort(rng.random((n, 2, 2)).astype(np.float32), axis=1)
    ids = [f'{i:x}' for i in rng.permutation(1000)[:n_image]]
    return Detections(
        ids,
        rng.choice(n_image - n_image // 4, n).astype(np.int32),
        rng.integers(0, 3, n, np.int32),
        np.linspace(1, 0.1, n, dtype=np.float32),
        corner.reshape(n, 4),
    )


def write_shuffled(path, detections):
    """Write detections in their order, which :func:`write_detections` keeps."""
    if path.name == 'submission.csv':
        write_submission(path, detections, CLASSES, None, digits=9)
    else:
        write_detections(path, detections, CLASSES)


@pytest.fixture
def small_parts(monkeypatch):
    """Many blocks, and many parts in the sort."""
    monkeypatch.setattr(image_order, '_ROWS_PER_PART', 40)
    monkeypatch.setattr(csv_rows, '_BLOCK_SIZE', 500)
    monkeypatch.setattr('pfdet.evaluation.detections_file.ROW_GROUP', 64)


@pytest.mark.parametrize('name', ['d.parquet', 'd.csv', 'submission.csv'])
@pytest.mark.parametrize('max_parts', [1, 3, 200])
def test_sorting_equals_sorting_in_memory(tmp_path, small_parts, monkeypatch, name, max_parts):
    monkeypatch.setattr(image_order, '_MAX_PARTS', max_parts)
    write_shuffled(tmp_path / name, random_detections())
    directory = tmp_path / 'copies'
    directory.mkdir()
    copy = sorted_by_image(tmp_path / name, CLASSES, directory)
    assert list(directory.iterdir()) == [copy]
    assert sorted_by_image(copy, CLASSES, directory) == copy

    given = read_detections(tmp_path / name, CLASSES)
    order = np.argsort(given.image, kind='stable')
    found = read_detections(copy, CLASSES)
    assert list(found.image_ids) == list(given.image_ids)
    for column in 'image', 'label', 'score', 'bbox':
        np.testing.assert_array_equal(getattr(found, column), getattr(given, column)[order])
    assert (np.diff(found.image) >= 0).all() and len(found) == 500
    # Rows of an image keep their order.
    first_of_image = np.append(True, np.diff(found.image) > 0)
    assert ((np.diff(found.score) < 0) | first_of_image[1:]).all()


@pytest.mark.parametrize('n, n_image', [(0, 0), (0, 5), (3, 5)])
def test_sorting_few_rows(tmp_path, n, n_image):
    write_shuffled(tmp_path / 'd.csv', random_detections(n, n_image))
    directory = tmp_path / 'copies'
    directory.mkdir()
    copy = sorted_by_image(tmp_path / 'd.csv', CLASSES, directory)
    found, given = (read_detections(path, CLASSES) for path in (copy, tmp_path / 'd.csv'))
    assert list(found.image_ids) == list(given.image_ids) and len(found) == n
    assert sorted(found.score) == sorted(given.score)


def test_bad_rows_are_found_while_sorting(tmp_path, small_parts):
    write_shuffled(tmp_path / 'd.csv', random_detections())
    lines = (tmp_path / 'd.csv').read_text().splitlines()
    lines[400] = lines[400].replace('/m/', '/m/z')
    (tmp_path / 'd.csv').write_text('\n'.join(lines))
    with pytest.raises(InputError, match="d.csv, line 401: LabelName '/m/z"):
        sorted_by_image(tmp_path / 'd.csv', CLASSES, tmp_path)


@pytest.mark.parametrize('n_row', [1, 17, 1000])
def test_blocks_of_all_images(tmp_path, n_row):
    """Images without detections come in order, wherever they are among the others."""
    for k, names in enumerate(('a-b-c-d-e', 'b-c', 'a-e', '')):
        with_detections = names.split('-') if names else []
        given = random_detections(40, 8)
        ids = sorted({'a', 'b', 'c', 'd', 'e', '0', 'bb', 'z'})
        given.image_ids = ids
        given = given.take(np.isin(np.array(ids)[given.image], with_detections))
        given = given.take(np.argsort(given.image, kind='stable'))
        path = tmp_path / f'{k}.parquet'
        write_detections(path, given, CLASSES)
        blocks = list(blocks_of_all_images(path, CLASSES, n_row))
        assert [i for block in blocks for i in block.image_ids] == ids
        image = [block.image_ids[i] for block in blocks for i in block.image]
        assert image == [ids[i] for i in given.image]
        for column in 'label', 'score', 'bbox':
            found = np.concatenate([getattr(block, column) for block in blocks])
            np.testing.assert_array_equal(found, getattr(given, column))


def test_an_image_listed_as_empty_may_have_rows(tmp_path):
    """Other programs may list all images."""
    given = random_detections(20, 4)
    given = given.take(np.argsort(given.image, kind='stable'))
    given.image_ids = ['a', 'b', 'c', 'd']
    write_detections(tmp_path / 'd.parquet', given, CLASSES)
    table = pq.read_table(tmp_path / 'd.parquet')
    listed = {IMAGES_KEY: json.dumps(['a', 'd', 'b', 'c'])}
    pq.write_table(table.replace_schema_metadata(listed), tmp_path / 'd.parquet')
    blocks = list(blocks_of_all_images(tmp_path / 'd.parquet', CLASSES, 3))
    assert [i for block in blocks for i in block.image_ids] == ['a', 'b', 'c', 'd']
    assert sum(map(len, blocks)) == 20


def test_first_detections_of_images():
    image = np.array([0, 0, 0, 2, 5, 5])
    assert is_among_first(image, 2).tolist() == [True, True, False, True, True, True]
    assert is_among_first(image, None).all()
    assert len(no_detections(['a'])) == 0 and no_detections(['a']).image_ids == ['a']


def test_memory_of_sorting_does_not_grow(tmp_path, monkeypatch):
    """Peak memory of NumPy and Python for three times as many rows in as many images."""
    monkeypatch.setattr(image_order, '_ROWS_PER_PART', 1 << 12)
    monkeypatch.setattr('pfdet.evaluation.detections_file.ROW_GROUP', 1 << 12)
    peak = []
    for n in 30_000, 90_000:
        write_detections(tmp_path / 'd.parquet', random_detections(n, 200), CLASSES)
        tracemalloc.start()
        sorted_by_image(tmp_path / 'd.parquet', CLASSES, tmp_path)
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peak[1] < 1.5 * peak[0]
