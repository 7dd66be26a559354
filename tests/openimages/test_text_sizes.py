"""Small files that are read at once have limits, also after decompression."""

import gzip
import json

import pytest

from pfdet.errors import InputError
from pfdet.openimages import classes, coco_json, hierarchy
from pfdet.openimages.classes import Classes
from pfdet.openimages.text_files import open_utf8

AB = Classes(('/m/a', '/m/b'), ('A', 'B'))


@pytest.mark.parametrize('pack', [bytes, gzip.compress], ids=['plain', 'gzip'])
def test_limit_of_a_stream(tmp_path, pack):
    path = tmp_path / 'a'
    path.write_bytes(pack(b'a\n' * 50_000))
    with open_utf8(path, 'list', 100_000) as (_, stream):
        assert stream.read() == b'a\n' * 50_000
    with open_utf8(path, 'list', 100_000) as (_, stream):
        assert sum(len(line) for line in stream) == 100_000
    for read in lambda stream: stream.read(), list:
        with pytest.raises(InputError, match=r'a: cannot read the list: it has more than 99,999 b'):
            with open_utf8(path, 'list', 99_999) as (_, stream):
                read(stream)


def test_memory_error_is_one_line(tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(b'a')
    with pytest.raises(InputError, match='a: not enough memory to read it; expected a list'):
        with open_utf8(path, 'list'):
            raise MemoryError


def test_limits_of_readers(tmp_path, monkeypatch):
    """Each file is good, and is read without the limit."""
    tree = {'LabelName': '/m/0', 'Subcategory': [{'LabelName': '/m/a'}]}
    image = {'id': 1, 'file_name': 'x.jpg', 'height': 20, 'width': 30}
    coco = {'images': [image], 'annotations': [], 'categories': [{'id': 7, 'name': 'cat'}]}
    files = {
        'tree.json': (json.dumps(tree), lambda path: hierarchy.read_hierarchy(path, AB)),
        'classes.csv': ('/m/a,A\n', classes.read_classes),
        'coco.json': (json.dumps(coco), coco_json.read_instances),
    }
    for name, (text, _) in files.items():
        # White space, which compresses well.
        end = '\n' if name.endswith('.csv') else ' '
        (tmp_path / name).write_bytes(gzip.compress((text + end * 100_000).encode()))
    for name, (_, read) in files.items():
        read(tmp_path / name)
    monkeypatch.setattr(hierarchy, '_MAX_SIZE', 10_000)
    monkeypatch.setattr(classes, '_MAX_SIZE', 10_000)
    monkeypatch.setattr(coco_json, 'available_memory', lambda: 40_000)
    for name, (_, read) in files.items():
        with pytest.raises(InputError, match=rf'{name}: .* it has more than 10,000 bytes'):
            read(tmp_path / name)
