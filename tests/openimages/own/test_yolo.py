"""YOLO: where tools put files, the forms of a row, and malformed files."""

import importlib.util
import os
import sys
import textwrap

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.own.command import main
from pfdet.openimages.own.data_yaml import read_data_yaml, read_names

ROW = '0 0.3 0.3 0.4 0.4\n'
CORNERS = np.float32([[0.1, 0.1, 0.5, 0.5]])


def build(tmp_path, annotations, *flags):
    out = tmp_path / 'yolo.index'
    flags = ['--format', 'yolo', '--annotations', annotations, '--out', out, *flags]
    main(list(map(str, flags)))
    return AnnotationIndex.open(out)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def write_image(path, own):
    own.write_images(path.parent / path.stem, [(path.stem, 40, 20, [])])
    os.rename(path.parent / path.stem / f'{path.stem}.jpg', path)
    (path.parent / path.stem).rmdir()
    return path


@pytest.fixture
def root(tmp_path, own):
    """Images a and b with the names 0 and 1; a has a box."""
    for name in 'ab':
        write_image(tmp_path / 'set' / 'images' / f'{name}.jpg', own)
    write(tmp_path / 'set' / 'labels' / 'a.txt', ROW)
    write(tmp_path / 'set' / 'classes.txt', 'cat\ndog\n')
    return tmp_path / 'set'


def check(index, folder, names=('cat', 'dog')):
    """The index has the two images, of which a has one cat."""
    assert index.classes.names == names
    ids = [os.path.basename(index.image_id(i)) for i in range(2)]
    assert ids == ['a', 'b'] and len(index) == 2
    for i in range(2):
        assert index.image_path(i).samefile(folder / f'{ids[i]}.jpg')
    one, other = index.annotation(0), index.annotation(1)
    np.testing.assert_allclose(one.bbox, CORNERS, atol=1e-7)
    assert one.label.tolist() == [[True, False]] and len(other.bbox) == 0
    # The image without a label file has neither.
    assert other.negative.tolist() == [True, True]


def test_label_studio(root, tmp_path, capsys):
    """A classes.txt beside images and labels."""
    check(build(tmp_path, root / 'classes.txt'), root / 'images')
    assert 'images without a label file, which have no objects: 1' in capsys.readouterr().out
    check(build(tmp_path, root), root / 'images')


def test_labelimg(root, tmp_path):
    """Labels beside the images, with the list of classes, which is no label file of an image."""
    folder = (root / 'images').rename(root / 'photos')
    (root / 'labels' / 'a.txt').rename(folder / 'a.txt')
    (root / 'classes.txt').rename(folder / 'classes.txt')
    check(build(tmp_path, folder / 'classes.txt', '--images', folder), folder)
    with pytest.raises(InputError, match=r'--images: missing; .*classes\.txt does not say where'):
        build(tmp_path, folder / 'classes.txt')
    # In a folder that is named images.
    folder = folder.rename(root / 'images')
    check(build(tmp_path, folder / 'classes.txt', '--images', folder), folder)


YAML = pytest.mark.skipif(importlib.util.find_spec('yaml') is None, reason='needs PyYAML')
NAMES = 'names: [cat, dog]\n'


@YAML
@pytest.mark.parametrize(
    'text',
    [
        'path: .\ntrain: images\n',
        'train: images\n',
        'train: ./images\n',
        'train: [images]\n',
        # Absolute paths of another machine, and Roboflow's.
        'path: /content/datasets/set\ntrain: images\nval:\n',
        'train: ../images\nval: ../valid/images\nroboflow: {version: 1}\n',
        'nc: 2\ntrain: list.txt\n',
        'train: data/list.txt\n',
    ],
)
def test_data_yaml(root, tmp_path, text):
    write(root / 'list.txt', './images/a.jpg\n\nimages/b.jpg\n')
    # CVAT's lists begin with a folder that does not exist.
    write(root / 'data' / 'list.txt', 'data/images/a.jpg\ndata/images/b.jpg\n')
    check(build(tmp_path, write(root / 'data.yaml', text + NAMES)), root / 'images')
    check(build(tmp_path, root), root / 'images')


@YAML
def test_splits(root, tmp_path, own):
    write_image(root / 'more' / 'images' / 'c.jpg', own)
    write(root / 'more' / 'labels' / 'c.txt', '1 0.5 0.5 1 1\n')
    text = 'train: [images, more/images]\nval: more/images\ntest: none\n' + NAMES
    path = write(root / 'data.yaml', text)
    index = build(tmp_path, path)
    assert [index.image_id(i) for i in range(3)] == ['images/a', 'images/b', 'more/images/c']
    assert [len(index.annotation(i).bbox) for i in range(3)] == [1, 0, 1]
    index = build(tmp_path, path, '--split', 'val')
    assert len(index) == 1 and index.image_id(0) == 'c'
    for split, message in (
        ('test', r"data\.yaml, line 3: test is 'none', but there is no .*none; expected a dir"),
        ('vall', r"data\.yaml: no images of the split 'vall'; did you mean val\?"),
    ):
        with pytest.raises(InputError, match=message):
            build(tmp_path, path, '--split', split)
    check(build(tmp_path, path, '--images', root / 'images'), root / 'images')


@YAML
def test_lists_with_missing_files(root, tmp_path, capsys):
    path = write(root / 'data.yaml', 'train: list.txt\n' + NAMES)
    write(root / 'list.txt', 'images/a.jpg\nimages/none.jpg\nimages/b.jpg\n')
    check(build(tmp_path, path), root / 'images')
    printed = capsys.readouterr().out
    assert 'listed images that do not exist, skipped: 1 (' in printed
    assert "list.txt, line 2: 'images/none.jpg')" in printed
    write(root / 'list.txt', '\nimages/none.jpg\n')
    with pytest.raises(
        InputError, match=r"list\.txt, line 2: there is no image 'images/none\.jpg'"
    ):
        build(tmp_path, path)
    write(root / 'list.txt', '')
    with pytest.raises(InputError, match=r'list\.txt: no images; expected the path'):
        build(tmp_path, path)


def test_polygons_and_rotated_boxes(root, tmp_path, capsys):
    write(
        root / 'labels' / 'a.txt',
        '0 0.1 0.1 0.5 0.2 0.2 0.5\n0 0.3 0.1 0.5 0.3 0.3 0.5 0.1 0.3\n',
    )
    columns = build(tmp_path, root / 'classes.txt').columns
    np.testing.assert_array_equal(columns['bbox'], CORNERS)
    assert columns['n_row'].tolist() == [2]
    assert 'polygons, of which the box was taken: 2' in capsys.readouterr().out


@YAML
def test_keypoints(root, tmp_path):
    path = write(root / 'data.yaml', 'train: images\nkpt_shape: [2, 3]\n' + NAMES)
    write(root / 'labels' / 'a.txt', ROW.strip() + ' 0.9 0.9 2 0.8 0.8 1\n')
    check(build(tmp_path, path), root / 'images')
    write(root / 'labels' / 'a.txt', '0 0.1 0.1 0.5 0.2 0.2 0.5\n')
    with pytest.raises(InputError, match=r'a\.txt, line 1: .*; expected a line "class x_center'):
        build(tmp_path, path)


@pytest.mark.parametrize(
    'row, message',
    [
        ('0 0.3 0.3 0.4', "'0 0.3 0.3 0.4'; expected a line \"class x_center"),
        ('0 0.3 0.3 0.4 0.4 0.9', 'expected a line "class x_center'),
        ('0 0.3 0.3 0.4 0.4 0.9 0.9 0.9', 'expected a line "class x_center'),
        ('cat 0.3 0.3 0.4 0.4', 'expected a line "class x_center'),
        ('0,0.3,0.3,0.4,0.4', 'expected a line "class x_center'),
        ('0 nan 0.3 0.4 0.4', 'expected a line "class x_center'),
        ('0 1e999 0.3 0.4 0.4', 'expected a line "class x_center'),
        ('0 0_3 0.3 0.4 0.4', 'expected a line "class x_center'),
        ('0 0.3 0.3 -0.4 0.4', 'a box of width -0.4 and height 0.4; expected positive'),
        ('2 0.3 0.3 0.4 0.4', r'class 2; expected a number from 0 to 1, as .*classes\.txt has 2'),
        ('-1 0.3 0.3 0.4 0.4', 'class -1; expected a number from 0 to 1'),
        ('0.5 0.3 0.3 0.4 0.4', 'class 0.5; expected a number from 0 to 1'),
        ('1e30 0.3 0.3 0.4 0.4', r'class 1e\+30; expected a number from 0 to 1'),
        ('0 12 6 16 8', 'is outside of the image; expected coordinates from 0 to 1, not pixels'),
        ('0 1.3 0.3 0.4 0.4', 'the box from x 1.1 to 1.5 and y 0.1 to 0.5 is outside'),
    ],
)
def test_malformed_rows_are_refused_with_the_line(root, tmp_path, row, message):
    write(root / 'labels' / 'a.txt', f'{ROW}\n{row}\n{ROW}')
    with pytest.raises(InputError, match=message) as e:
        build(tmp_path, root / 'classes.txt')
    assert 'labels/a.txt, line 3: ' in str(e.value) and '\n' not in str(e.value)


def test_rows_that_are_accepted(root, tmp_path, capsys):
    """Numbers that are rounded over the edge, empty boxes, classes as 1.0, CRLF, a mark."""
    text = '\ufeff1.0 0.5 0.5 1.000001 1\r\n\r\n0 0.3 0.3 0 0.4\r\n  1\t0.3 0.3 .4 4e-1  '
    (root / 'labels' / 'a.txt').write_bytes(text.encode())
    index = build(tmp_path, root / 'classes.txt')
    np.testing.assert_allclose(index.annotation(0).bbox, [[0, 0, 1, 1], CORNERS[0]], atol=1e-7)
    assert index.annotation(0).label.tolist() == [[False, True]] * 2
    assert 'clipped: 0; of zero area, skipped: 1' in capsys.readouterr().out


def test_images_that_cannot_be_told_apart(root, tmp_path):
    (root / 'images' / 'a.png').write_bytes((root / 'images' / 'a.jpg').read_bytes())
    with pytest.raises(InputError, match=r'the same name as a\.(jpg|png) except for the suffix'):
        build(tmp_path, root)


def test_no_labels_and_no_images(root, tmp_path):
    (root / 'labels' / 'a.txt').unlink()
    with pytest.raises(
        InputError, match=r'no image has a label file; expected .*labels/\w\.txt for'
    ):
        build(tmp_path, root)
    for path in (root / 'images').iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r'images: no image file; expected files ending in \.jpg'):
        build(tmp_path, root)
    (root / 'classes.txt').unlink()
    with pytest.raises(InputError, match=r'set: expected a data\.yaml or a classes\.txt'):
        build(tmp_path, root)


@YAML
@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'no keys; expected a data.yaml with names'),
        ('- a\n- b\n', 'no keys; expected'),
        ('train: images\n', 'no names; expected'),
        ('names: cat\n', 'line 1: names are no list'),
        ('names: []\n', 'no names; expected one or more classes'),
        ('nc: 3\n' + NAMES, 'line 1: nc is 3, but there are 2 names'),
        ('nc: many\n' + NAMES, "line 1: nc is 'many'; expected a whole number"),
        (NAMES + 'nc: [2]\n', 'line 2: nc is no text'),
        (NAMES + 'names: [a]\n', "line 2: the file has the key 'names' twice"),
        ('names: [cat, dog,\n  cat]\n', "line 2: class 'cat' repeats line 1; expected each name"),
        ('names:\n- cat\n- [dog]\n', 'line 3: a name is no text'),
        ('names:\n- cat\n- ""\n', "line 3: ''; expected the name of a class"),
        ('names: ["a\\u200bb"]\n', 'line 1: .*; expected the name of a class, without inv'),
        ('names: ["a\\nb"]\n', 'line 1: .*; expected the name of a class, without inv'),
        ('names: {0: cat, 2: dog}\n', 'line 1: no name of class 1; expected the numbers from 0'),
        ('names:\n  0: cat\n  0: dog\n', 'line 3: class 0 repeats line 2'),
        ('names: {cat: 0}\n', "line 1: the number of a class is 'cat'; expected a whole"),
        ('names: {? [1] : cat}\n', 'line 1: the number of a class is no text'),
        (NAMES + 'train: {a: b}\n', 'line 2: train is no text'),
        (NAMES + 'kpt_shape: 3\n', 'line 2: kpt_shape is not two numbers'),
        ('names: [cat, dog\n', r'line 2: '),
        ('names:\n\t- cat\n', r'line 2: .*cannot start any token'),
        ('names: [cat]\n---\nnames: [dog]\n', r'line 2: '),
        ('a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\n', 'line 2: an alias; expected'),
        ('names: ' + '[' * 100_000, 'nested too deeply|too deep'),
        ('names: ["\x01"]\n', 'special characters are not allowed'),
        ('x: ' + 'y' * (1 << 20), 'it has more than 1,048,576 bytes'),
    ],
)
def test_malformed_data_yaml(tmp_path, text, message):
    path = tmp_path / 'data.yaml'
    path.write_text(text)
    with pytest.raises(InputError, match=message) as e:
        read_data_yaml(path)
    assert str(e.value).startswith(str(path)) and '\n' not in str(e.value)


def test_without_pyyaml(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'yaml', None)
    path = write(tmp_path / 'data.yaml', NAMES)
    with pytest.raises(
        InputError, match=r'data\.yaml: PyYAML is not installed; expected: pip inst'
    ):
        read_data_yaml(path)


@YAML
def test_names_are_text_and_nothing_is_executed(tmp_path):
    path = tmp_path / 'data.yaml'
    path.write_text('names: [no, 1.50, 2024-01-01, ~x, !!python/name:os.system "run"]\n')
    assert read_data_yaml(path).names == ('no', '1.50', '2024-01-01', '~x', 'run')
    path.write_text('names:\n  1: dog\n  0: cat\n')
    assert read_data_yaml(path).names == ('cat', 'dog')


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'no names; expected one or more'),
        ('\n\n', 'no names; expected one or more'),
        ('cat\n\ndog\n', "line 2: ''; expected the name of a class"),
        ('cat\ndog\ncat\n', "line 3: class 'cat' repeats line 1"),
        ('cat\nd\x00g\n', 'line 2: .*; expected the name of a class'),
    ],
)
def test_malformed_lists_of_names(tmp_path, text, message):
    path = write(tmp_path / 'classes.txt', text)
    with pytest.raises(InputError, match=message):
        read_names(path)


def test_damaged_label_files_are_read_or_refused(root, tmp_path, helpers):
    rng = np.random.default_rng(0)
    good = (ROW + '1 0.25 0.5 0.125 0.25\n0 0.1 0.1 0.5 0.2 0.2 0.5\n').encode()
    refused = 0
    for _ in range(200):
        (root / 'labels' / 'a.txt').write_bytes(helpers.mutate(rng, good, b' .-0e\n'))
        try:
            index = build(tmp_path, root / 'classes.txt')
        except InputError as e:
            refused += 1
            assert 'labels/a.txt, line ' in str(e) and '\n' not in str(e)
            continue
        bbox = index.columns['bbox']
        assert (bbox >= 0).all() and (bbox <= 1).all() and (bbox[:, :2] < bbox[:, 2:]).all()
    assert 60 < refused < 195
