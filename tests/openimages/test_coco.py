"""COCO annotations as an index: class mapping, all annotations kept, malformed JSON refused."""

import copy
import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes, challenge_classes
from pfdet.openimages.coco import build_coco_index, main
from pfdet.openimages.coco_mapping import decide, read_mapping
from pfdet.openimages.hierarchy import challenge_hierarchy, flat_hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.tables import GROUP_OF

CATEGORIES = {
    1: 'person',
    18: 'dog',
    74: 'mouse',
    88: 'teddy bear',
    23: 'bear',
    34: 'frisbee',
    3: 'car',
    8: 'truck',
    67: 'dining table',
}


def class_id(name):
    return challenge_classes().names.index(name)


def instances():
    """Four unsorted images, one of them without annotations."""
    return {
        'info': {'year': 2017},
        'licenses': [],
        'images': [
            {'id': 30, 'file_name': '000030.jpg', 'width': 200, 'height': 100},
            {'id': 4, 'file_name': '000004.png', 'width': 640, 'height': 480},
            {'id': 9, 'file_name': 'sub/000009.jpg', 'width': 100, 'height': 100},
            {'id': 5, 'file_name': '000005.jpg', 'width': 50, 'height': 50},
        ],
        'annotations': [
            {
                'id': 1,
                'image_id': 30,
                'category_id': 1,
                'bbox': [20, 10, 50, 40.5],
                'iscrowd': 0,
                'segmentation': [[1, 2, 3, 4, 5, 6]],
                'area': 10,
            },
            {
                'id': 2,
                'image_id': 30,
                'category_id': 1,
                'bbox': [0, 0, 200, 100],
                'iscrowd': 1,
                'segmentation': {'counts': [1, 2], 'size': [100, 200]},
            },
            {'id': 3, 'image_id': 4, 'category_id': 74, 'bbox': [630, 0, 20, 48]},
            {'id': 4, 'image_id': 4, 'category_id': 88, 'bbox': [64, 48, 64, 48]},
            {'id': 5, 'image_id': 4, 'category_id': 34, 'bbox': [64, 48, 64, 48]},
            {'id': 6, 'image_id': 9, 'category_id': 18, 'bbox': [5, 5, 0, 10]},
            {'id': 7, 'image_id': 9, 'category_id': 8, 'bbox': [10, 20, 30, 40]},
        ],
        'categories': [
            {'id': k, 'name': name, 'supercategory': 'x'} for k, name in CATEGORIES.items()
        ],
    }


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def write_image(path, size):
    cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))


@pytest.fixture
def images(tmp_path):
    root = tmp_path / 'images'
    (root / 'sub').mkdir(parents=True)
    for image in instances()['images']:
        write_image(root / image['file_name'], (image['height'], image['width']))
    return root


@pytest.fixture
def built(tmp_path, images):
    out = tmp_path / 'coco.index'
    report = build_coco_index(write(tmp_path / 'instances.json', instances()), images, out)
    return AnnotationIndex.open(out), report


def test_decisions_on_the_80_classes():
    classes, names = challenge_classes(), challenge_classes().names
    decisions = {d.coco: d for d in decide(list(read_mapping()), classes)}
    assert len(decisions) == 80
    chosen = {name: names[d.class_id] if d.class_id >= 0 else None for name, d in decisions.items()}
    # A class of the same name may be wrong: COCO's mouse is a computer mouse.
    assert chosen['mouse'] == 'Computer mouse'
    assert chosen['dog'] == 'Dog' and chosen['person'] == 'Person' and chosen['clock'] == 'Clock'
    assert chosen['tv'] == 'Television' and chosen['cell phone'] == 'Mobile phone'
    assert chosen['cow'] == 'Cattle' and chosen['dining table'] == 'Kitchen & dining room table'
    assert {name for name, found in chosen.items() if found is None} == {
        'frisbee',
        'hair drier',
        'parking meter',
        'remote',
        'toothbrush',
    }
    found = [d.class_id for d in decisions.values() if d.class_id >= 0]
    assert len(set(found)) == len(found) == 75
    for name, d in decisions.items():
        assert d.how == (
            'not among the classes'
            if d.class_id < 0
            else 'same name'
            if chosen[name].casefold() == name
            else 'mapping file'
            if len(d.candidates) == 1
            else 'chosen of several'
        )
        assert d.class_id < 0 or d.class_id in d.candidates
    assert [d.how for d in decide(['Person', 'hovercraft', 'cup'], classes)] == [
        'same name',
        'no class of COCO',
        'chosen of several',
    ]


def test_all_annotations_are_in_the_index(built, images):
    index, report = built
    assert index.classes == challenge_classes()
    np.testing.assert_array_equal(index.hierarchy.ancestors, challenge_hierarchy().ancestors)
    ids = [index.image_id(i) for i in range(len(index))]
    assert ids == ['000004', '000005', '000030', 'sub/000009']
    assert [index.image_path(i) for i in range(4)] == [
        images / name for name in ('000004.png', '000005.jpg', '000030.jpg', 'sub/000009.jpg')
    ]
    assert [index.image_size(i) for i in range(4)] == [(480, 640), (50, 50), (100, 200), (100, 100)]
    one = index.annotation(2)
    np.testing.assert_allclose(one.bbox, [[0, 0, 1, 1], [0.1, 0.1, 0.505, 0.35]], atol=1e-7)
    np.testing.assert_array_equal(
        np.argwhere(one.label), [[0, class_id('Person')], [1, class_id('Person')]]
    )
    np.testing.assert_array_equal(one.flags, [GROUP_OF, 0])
    other = index.annotation(0)
    np.testing.assert_allclose(
        other.bbox, [[0, 630 / 640, 0.1, 1], [0.1, 0.1, 0.2, 0.2]], atol=1e-7
    )
    np.testing.assert_array_equal(
        np.argwhere(other.label)[:, 1], [class_id('Computer mouse'), class_id('Teddy bear')]
    )
    assert len(index.annotation(1).bbox) == 0
    counts = report.counts
    assert (
        counts['annotations'],
        counts['objects'],
        counts['unmapped'],
        counts['degenerate'],
        counts['clipped'],
        counts['crowd'],
        counts['missing'],
    ) == (7, 5, 1, 1, 1, 1, 0)
    assert report.annotations == {
        'person': 2,
        'dog': 1,
        'mouse': 1,
        'teddy bear': 1,
        'bear': 0,
        'frisbee': 1,
        'car': 0,
        'truck': 1,
        'dining table': 0,
    }


def test_verified_classes(built):
    index, _ = built
    every = {
        class_id(name)
        for name in (
            'Person',
            'Dog',
            'Computer mouse',
            'Teddy bear',
            'Bear',
            'Car',
            'Truck',
            'Kitchen & dining room table',
        )
    }
    expected = [
        ({'Computer mouse', 'Teddy bear'}, {'Bear'}),  # Teddy bear is a kind of Bear
        (set(), set()),
        ({'Person'}, set()),
        ({'Dog', 'Truck'}, {'Car'}),
    ]  # the truck may be a van, and Van is a kind of Car
    for i, (positive, unknown) in enumerate(expected):
        one = index.annotation(i)
        assert set(np.flatnonzero(one.positive)) == {class_id(name) for name in positive}
        assert set(np.flatnonzero(one.negative)) == every - {
            class_id(name) for name in positive | unknown
        }
        # No expanded positive class is negative.
        present = one.positive.astype(int) @ index.hierarchy.closure
        assert not (present.astype(bool) & one.negative).any()


def test_without_negatives(tmp_path, images):
    out = tmp_path / 'coco.index'
    build_coco_index(write(tmp_path / 'a.json', instances()), images, out, negatives=False)
    index = AnnotationIndex.open(out)
    assert not len(index.columns['negative'])
    assert len(index.columns['positive']) == 5


def test_images_without_a_file(tmp_path, images):
    path, out = write(tmp_path / 'a.json', instances()), tmp_path / 'coco.index'
    (images / '000030.jpg').unlink()
    (images / 'sub' / '000009.jpg').unlink()
    report = build_coco_index(path, images, out)
    index = AnnotationIndex.open(out)
    assert [index.image_id(i) for i in range(len(index))] == ['000004', '000005']
    assert report.counts['missing'] == 2 and report.counts['objects'] == 2
    assert build_coco_index(path, images, out, keep_missing=True).counts['images'] == 4
    with pytest.raises(InputError, match='none of the 4 images in'):
        build_coco_index(path, tmp_path / 'nowhere', out)


def test_another_label_space(tmp_path, images):
    classes = Classes(('/m/1', '/m/2'), ('Table', 'Bull'))
    out = tmp_path / 'coco.index'
    data = instances()
    data['annotations'][0]['category_id'] = 67
    build_coco_index(write(tmp_path / 'a.json', data), images, out, classes, flat_hierarchy(2))
    index = AnnotationIndex.open(out)
    assert index.classes == classes and index.columns['label'].tolist() == [0]
    with pytest.raises(InputError, match='among the 1 classes'):
        build_coco_index(
            tmp_path / 'a.json', images, out, Classes(('/m/2',), ('Bull',)), flat_hierarchy(1)
        )


def remove(data, section, at, key):
    del data[section][at][key]


def set_value(data, section, at, key, value):
    data[section][at][key] = value


@pytest.mark.parametrize(
    'change, message',
    [
        *[(lambda d, s=s: d.pop(s), s) for s in ('images', 'annotations', 'categories')],
        *[
            (lambda d, k=k: remove(d, 'images', 2, k), rf"images\[2\] has no '{k}'")
            for k in ('id', 'file_name', 'width', 'height')
        ],
        *[
            (lambda d, k=k: remove(d, 'annotations', 3, k), rf"annotations\[3\] has no '{k}'")
            for k in ('image_id', 'category_id', 'bbox')
        ],
        (lambda d: remove(d, 'categories', 1, 'name'), r"categories\[1\] has no 'name'"),
        (
            lambda d: set_value(d, 'annotations', 2, 'category_id', 999),
            r'annotations\[2\].*category_id 999',
        ),
        (
            lambda d: set_value(d, 'annotations', 2, 'category_id', [1]),
            r'annotations\[2\].*category_id',
        ),
        (
            lambda d: set_value(d, 'annotations', 2, 'image_id', 31),
            r'annotations\[2\].*image_id 31',
        ),
        (
            lambda d: set_value(d, 'annotations', 1, 'bbox', [1, 2, 3]),
            r'annotations\[1\].*4 numbers',
        ),
        (
            lambda d: set_value(d, 'annotations', 1, 'bbox', [1, 2, 3, None]),
            r'annotations\[1\].*4 numbers',
        ),
        (
            lambda d: set_value(d, 'annotations', 1, 'bbox', [1, 2, 3, float('nan')]),
            r'annotations\[1\]',
        ),
        (lambda d: set_value(d, 'annotations', 1, 'bbox', [1, 2, 3, 'x']), r'annotations\[1\]'),
        (lambda d: set_value(d, 'annotations', 1, 'bbox', [1, 2, 3, 10**400]), r'annotations\[1\]'),
        (lambda d: set_value(d, 'annotations', 1, 'bbox', {'x': 1}), r'annotations\[1\]'),
        (
            lambda d: set_value(d, 'annotations', 4, 'iscrowd', 'no'),
            r'annotations\[4\] has iscrowd',
        ),
        (lambda d: set_value(d, 'images', 1, 'width', 0), r'images\[1\].*pixels'),
        (lambda d: set_value(d, 'images', 1, 'width', 'wide'), r'images\[1\] has width'),
        (
            lambda d: set_value(d, 'images', 1, 'id', 30),
            r'images\[1\] has the id 30 of images\[0\]',
        ),
        (lambda d: set_value(d, 'images', 1, 'id', None), r'images\[1\] has id null'),
        (
            lambda d: set_value(d, 'images', 1, 'file_name', '000030.png'),
            r'images\[1\] has the file_name',
        ),
        (
            lambda d: set_value(d, 'images', 1, 'file_name', '\ud800.jpg'),
            r'images\[1\] has file_name',
        ),
        (lambda d: set_value(d, 'images', 1, 'file_name', ''), r'images\[1\] has file_name'),
        (lambda d: set_value(d, 'categories', 1, 'id', 1), r'categories\[1\] has the id 1'),
        (
            lambda d: set_value(d, 'categories', 1, 'name', 'person'),
            r'categories\[1\] has the name',
        ),
        (lambda d: d.update(images=[]), 'no images'),
        (lambda d: d.update(images={}), 'images'),
        (lambda d: d['annotations'].append(7), r'annotations\[7\] is 7'),
        (lambda d: d.update(annotations=[]), 'no annotation of a COCO class'),
        (lambda d: d.update(categories=[]), 'category_id'),
        (lambda d: [c.update(name=c['name'] + '?') for c in d['categories']], 'no annotation of a'),
    ],
)
def test_malformed_content_gives_one_line(change, message, tmp_path, images):
    data = instances()
    change(data)
    path = write(tmp_path / 'bad.json', data)
    with pytest.raises(InputError, match=message) as e:
        build_coco_index(path, images, tmp_path / 'coco.index')
    assert str(path) in str(e.value) and '\n' not in str(e.value)
    assert not (tmp_path / 'coco.index').exists()


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[]',
        '7',
        '{"images": [',
        '[' * 100_000,
        '{"a": 1} x',
        '{"images": ' + '9' * 5000 + '}',
        'null',
    ],
)
def test_malformed_json_gives_one_line(text, tmp_path, images):
    path = write(tmp_path / 'bad.json', text)
    with pytest.raises(InputError, match='bad.json'):
        build_coco_index(path, images, tmp_path / 'coco.index')
    path.write_bytes(b'{"images": "\xff"}')
    with pytest.raises(InputError, match='bad.json'):
        build_coco_index(path, images, tmp_path / 'coco.index')
    with pytest.raises(InputError, match='none.json: cannot read'):
        build_coco_index(tmp_path / 'none.json', images, tmp_path / 'coco.index')


def test_mutated_files_are_refused_or_valid(tmp_path, images):
    """Replace random values or bytes: only InputError is raised, and no index is malformed."""
    generator = random.Random(0)
    values = [None, True, -1, 0, 1.5, 10**30, 'x', '', [], {}, [1], {'id': 1}, float('inf')]
    refused = 0
    for n in range(300):
        data = instances()
        if n % 3:
            for _ in range(generator.randrange(1, 3)):
                rows = data[generator.choice(('images', 'annotations', 'categories'))]
                row = generator.choice(rows)
                row[generator.choice(list(row))] = copy.deepcopy(generator.choice(values))
            text = json.dumps(data).encode()
        else:
            text = bytearray(json.dumps(data).encode())
            for _ in range(generator.randrange(1, 4)):
                text[generator.randrange(len(text))] = generator.randrange(256)
        path = tmp_path / 'mutated.json'
        path.write_bytes(text)
        out = tmp_path / f'{n}.index'
        try:
            build_coco_index(path, images, out, keep_missing=True)
        except InputError as e:
            refused += 1
            assert 'mutated.json' in str(e) and not out.exists()
            continue
        index = AnnotationIndex.open(out)
        assert len(index) == 4
        for i in range(4):
            bbox = index.annotation(i).bbox
            assert (bbox[:, :2] < bbox[:, 2:]).all() and bbox.min(initial=0) >= 0
            assert bbox.max(initial=0) <= 1
    assert 100 < refused < 290


def test_command(tmp_path, images, capsys):
    path, out = write(tmp_path / 'a.json', instances()), tmp_path / 'coco.index'
    table = tmp_path / 'table.csv'
    arguments = ['--annotations', str(path), '--images', str(images), '--out', str(out)]
    main([*arguments, '--table', str(table)])
    printed = capsys.readouterr()
    assert 'objects: 5 with 5 labels, from 7 annotations' in printed.out and not printed.err
    assert 'not among the classes (500): frisbee' in printed.out
    with open(table, newline='') as f:
        rows = {row['CocoClass']: row for row in csv.DictReader(f)}
    assert list(rows) == list(CATEGORIES.values())
    assert rows['person']['LabelName'] == '/m/01g317' and rows['person']['Annotations'] == '2'
    assert rows['mouse']['DisplayName'] == 'Computer mouse'
    assert rows['mouse']['How'] == 'mapping file'
    assert rows['truck']['OtherCandidates'] == 'Ambulance; Van'
    main(['--table'])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 81 and any('Computer mouse' in line for line in lines)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], '--annotations: missing'),
        (['--images', 'x'], '--annotations'),
        (['--annotations', 'x', '--images', 'x'], '--out'),
        (['--annotations', 'x', '--table'], '--images'),
        (['--table', '--classes', 'x'], '--hierarchy'),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        main(arguments)


def test_as_a_program(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pfdet.openimages.coco',
            '--annotations',
            str(tmp_path / 'no.json'),
            '--images',
            str(tmp_path),
            '--out',
            str(tmp_path / 'out.index'),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(root)},
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert 'no.json' in done.stderr
