"""The same images in three formats are the same index, and the same loss in training."""

import numpy as np
import pytest

from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.own.command import main

FORMATS = ('coco', 'voc', 'yolo')


@pytest.fixture(scope='module')
def indexes(world, tmp_path_factory):
    """The index of each format, built by the command."""
    pytest.importorskip('yaml')
    out = tmp_path_factory.mktemp('indexes')
    flags = {
        'coco': ['--annotations', world.coco, '--images', world.images],
        'voc': ['--annotations', world.voc, '--images', world.images, '--classes', world.classes],
        'yolo': ['--annotations', world.yolo],
    }
    for name in FORMATS:
        main(['--format', name, *map(str, flags[name]), '--out', str(out / f'{name}.index')])
    return {name: AnnotationIndex.open(out / f'{name}.index') for name in FORMATS}


def test_the_index_has_the_objects_and_no_others(world, own, indexes):
    expected = own.expected_objects(world.data)
    assert sum(len(objects) for objects in expected.values()) > 90
    for index in indexes.values():
        assert own.objects_of(index) == expected
        assert index.classes.names == index.classes.mids == own.names
        assert not index.hierarchy.ancestors.any()
        sizes = {name: (height, width) for name, width, height, _ in world.data}
        assert sizes == {index.image_id(i): index.image_size(i) for i in range(len(index))}
        for i in range(len(index)):
            assert index.image_path(i).read_bytes()
            # All classes are verified in every image.
            one = index.annotation(i)
            assert (one.positive == one.label.any(axis=0)).all()
            assert (one.positive ^ one.negative).all()


def test_all_columns_are_equal_to_the_byte(indexes):
    coco = indexes['coco'].columns
    for index in indexes.values():
        assert index.columns.keys() == coco.keys()
        for name, column in coco.items():
            other = index.columns[name]
            assert column.dtype == other.dtype and column.tobytes() == other.tobytes(), name
        assert index.suffixes == ['.jpg'] and index.checksums == indexes['coco'].checksums


def test_coordinates_of_six_digits_differ_by_rounding(world, own, indexes, tmp_path):
    root = tmp_path / 'yolo'
    path = own.write_yolo(root, world.data, form='{:.6f}')
    (root / 'images').mkdir()
    (root / 'images' / 'train').symlink_to(world.images)
    main(['--format', 'yolo', '--annotations', str(path), '--out', str(tmp_path / 'a.index')])
    rounded, exact = AnnotationIndex.open(tmp_path / 'a.index').columns, indexes['yolo'].columns
    for name in exact.keys() - {'bbox', 'order', 'flags', 'label', 'label_offsets'}:
        assert rounded[name].tobytes() == exact[name].tobytes(), name
    assert 0 < np.abs(rounded['bbox'] - exact['bbox']).max() < 1.1e-6
