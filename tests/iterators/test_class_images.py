"""The images of each class, and the file that processes share."""

import errno
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.iterators.class_images import class_images, shared_class_images
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import hierarchy_from_edges
from pfdet.openimages.index import AnnotationIndex, write_index


def make_index(path, labels):
    """Write an index of images with one box per label."""
    names = ('fruit', 'apple', 'pear', 'car')
    classes = Classes(tuple(f'/m/{name}' for name in names), names)
    hierarchy = hierarchy_from_edges([('/m/fruit', '/m/apple'), ('/m/fruit', '/m/pear')], classes)
    n_image, n_box = len(labels), sum(map(len, labels))
    offsets = np.append(0, np.cumsum([len(some) for some in labels])).astype(np.int32)
    columns = {
        'id_offsets': np.arange(n_image + 1, dtype=np.int32),
        'id_bytes': np.arange(97, 97 + n_image, dtype=np.uint8),
        'image_size': np.ones((n_image, 2), np.int32),
        'image_suffix': np.zeros(n_image, np.uint8),
        'object_offsets': offsets,
        'bbox': np.zeros((n_box, 4), np.float32),
        'flags': np.zeros(n_box, np.uint8),
        'label_offsets': np.arange(n_box + 1, dtype=np.int32),
        'label': np.array(sum(labels, []), np.int16),
    }
    for name in 'positive', 'negative':
        columns |= {f'{name}_offsets': np.zeros(n_image + 1, np.int32), name: np.zeros(0, np.int16)}
    write_index(path, columns, classes, hierarchy, path.parent, ['.jpg'], {})
    return AnnotationIndex.open(path)


LABELS = [[1, 1, 3], [2], [], [0, 1], [3, 3], [2, 1]]
AS_ANNOTATED = [[3], [0, 3, 5], [1, 5], [0, 4]]
EXPANDED = [[0, 1, 3, 5], [0, 3, 5], [1, 5], [0, 4]]


def lists_of(classes):
    return [part.tolist() for part in np.split(classes.images, classes.offsets[1:-1])]


@pytest.mark.parametrize('find', [class_images, shared_class_images])
def test_images_of_classes(tmp_path, find):
    index = make_index(tmp_path / 'x.index', LABELS)
    for expand, expected in (False, AS_ANNOTATED), (True, EXPANDED):
        found = find(index, expand)
        assert lists_of(found) == expected
        assert found.count.tolist() == [len(images) for images in expected]
        assert found.n_image == 6 and found.images.dtype == np.int32


def test_image_lists_are_shared_in_a_file(tmp_path):
    path = tmp_path / 'x.index'
    shared = shared_class_images(make_index(path, LABELS))
    assert shared.path == tmp_path / 'x.index.class-images'
    written = shared.path.stat().st_mtime_ns
    assert len(pickle.dumps(shared)) < 400
    assert lists_of(pickle.loads(pickle.dumps(shared))) == AS_ANNOTATED
    again = shared_class_images(AnnotationIndex.open(path))
    assert again.path.stat().st_mtime_ns == written and not again.images.flags.writeable
    # A file of another index and a truncated file are rewritten.
    other = shared_class_images(make_index(path, LABELS[:3]))
    assert lists_of(other) == [[], [0], [1], [0]] and other.n_image == 3
    other.path.write_bytes(other.path.read_bytes()[:-9])
    assert lists_of(shared_class_images(AnnotationIndex.open(path))) == [[], [0], [1], [0]]


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A list of directories that cannot be written to."""
    directories, mkstemp = [], tempfile.mkstemp

    def refuse(**kwargs):
        if Path(kwargs['dir']) in directories:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return mkstemp(**kwargs)

    # replace_when_done writes a temporary file first.
    monkeypatch.setattr('tempfile.mkstemp', refuse)
    monkeypatch.setenv('PFDET_CACHE', str(tmp_path / 'cache'))
    return directories


def index_in(directory, labels):
    directory.mkdir(exist_ok=True)
    return make_index(directory / 'x.index', labels)


@pytest.mark.faults('read-only data sets')
@pytest.mark.parametrize('expand', [False, True])
def test_read_only_data_set_uses_the_cache(tmp_path, read_only, expand):
    expected = EXPANDED if expand else AS_ANNOTATED
    index = index_in(tmp_path / 'data', LABELS)
    read_only.append(tmp_path / 'data')
    found = shared_class_images(index, expand)
    assert lists_of(found) == expected
    assert found.path.is_relative_to(tmp_path / 'cache')
    assert os.listdir(tmp_path / 'data') == ['x.index']
    written = found.path.stat().st_mtime_ns
    again = shared_class_images(index, expand)
    assert again.path == found.path and found.path.stat().st_mtime_ns == written
    assert lists_of(pickle.loads(pickle.dumps(again))) == expected
    # The file of another index of the same name is replaced.
    read_only.clear()
    index = index_in(tmp_path / 'data', LABELS[:3])
    read_only.append(tmp_path / 'data')
    other = shared_class_images(index, expand)
    assert other.path == found.path and other.n_image == 3


@pytest.mark.faults('read-only data sets')
def test_nothing_can_be_written(tmp_path, read_only):
    index = index_in(tmp_path / 'data', LABELS)
    read_only.extend([tmp_path / 'data', tmp_path / 'cache' / 'class-images'])
    found = shared_class_images(index)
    assert found.path is None and lists_of(found) == AS_ANNOTATED


def test_a_directory_in_the_place_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv('PFDET_CACHE', str(tmp_path / 'cache'))
    index = index_in(tmp_path / 'data', LABELS)
    (tmp_path / 'data' / 'x.index.class-images').mkdir()
    found = shared_class_images(index)
    assert found.path.is_relative_to(tmp_path / 'cache') and lists_of(found) == AS_ANNOTATED


def test_damaged_file_is_written_again(tmp_path):
    index = make_index(tmp_path / 'x.index', LABELS)
    path = shared_class_images(index).path
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        assert lists_of(shared_class_images(index)) == AS_ANNOTATED
        assert path.read_bytes() == whole


def test_no_image_has_a_box(tmp_path):
    index = make_index(tmp_path / 'x.index', [[], []])
    with pytest.raises(InputError, match=r'x\.index: no image has a box'):
        class_images(index)
