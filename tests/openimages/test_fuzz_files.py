"""Damaged class files, hierarchies, indexes, images: refused in one line or read correctly."""

import csv
import io
import json
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfdet.errors import InputError
from pfdet.openimages.build_index import build_index
from pfdet.openimages.classes import Classes, read_classes
from pfdet.openimages.hierarchy import read_hierarchy
from pfdet.openimages.images import image_size, read_image
from pfdet.openimages.index import AnnotationIndex

SETTINGS = settings(max_examples=200, derandomize=True, deadline=None, database=None)
LETTERS = Classes(tuple('abcdef'), tuple('ABCDEF'))


def result_or_refusal(function, *args):
    """Return the result of a function, or its InputError after checking that it is one line."""
    try:
        return function(*args)
    except InputError as e:
        assert str(args[0]) in str(e) and '\n' not in str(e)
        return e


def test_mutated_classes(helpers, tmp_path):
    path = tmp_path / 'classes.csv'
    whole = b''.join(
        b'/m/%x,%s\n' % (i * i, b'"Name, in %d"' % i if i % 3 else b'Name %d' % i)
        for i in range(12)
    )
    rng = np.random.default_rng(0)
    n_read = 0
    for _ in range(300):
        data = helpers.mutate(rng, whole, b',"\n\r/m \xff\xc3\x00')
        path.write_bytes(data)
        classes = result_or_refusal(read_classes, path)
        if not isinstance(classes, InputError):
            text = io.StringIO(data.decode('utf-8-sig'), newline='')
            rows = [row for row in csv.reader(text, skipinitialspace=True) if row]
            assert list(zip(classes.mids, classes.names)) == [
                tuple(field.strip() for field in row) for row in rows
            ]
            n_read += 1
    assert 30 < n_read < 270


def plain_ancestors(root):
    """Pairs (class, ancestor) by recursion over all paths of the tree."""
    children = {}

    def gather(node):
        for child in node.get('Subcategory', []):
            children.setdefault(node['LabelName'], set()).add(child['LabelName'])
            gather(child)
        for part in node.get('Part', []):
            gather(part)

    def below(name, above):
        assert name not in above, 'a cycle was accepted'
        found = set()
        for child in children.get(name, ()):
            found |= {child} | below(child, above | {name})
        return found

    gather(root)
    return {
        (child, name)
        for name in LETTERS.mids
        for child in below(name, set())
        if child in LETTERS.ids
    }


def agree_or_refuse(path, text):
    path.write_bytes(text)
    hierarchy = result_or_refusal(read_hierarchy, path, LETTERS)
    if isinstance(hierarchy, InputError):
        return False
    found = {(LETTERS.mids[i], LETTERS.mids[j]) for i, j in np.argwhere(hierarchy.ancestors)}
    assert found == plain_ancestors(json.loads(text))
    return True


def test_mutated_hierarchies(helpers, tmp_path):
    tree = {
        'LabelName': 'root',
        'Subcategory': [
            {
                'LabelName': 'a',
                'Subcategory': [
                    {'LabelName': 'b'},
                    {
                        'LabelName': 'x',
                        'Subcategory': [{'LabelName': 'c', 'Part': [{'LabelName': 'd'}]}],
                    },
                ],
            },
            {'LabelName': 'e', 'Subcategory': [{'LabelName': 'c'}, {'LabelName': 'f'}]},
        ],
    }
    whole = json.dumps(tree, indent=1).encode()
    rng = np.random.default_rng(0)
    path = tmp_path / 'h.json'
    # Few damaged files are valid JSON. All files of the next test are.
    accepted = [
        agree_or_refuse(path, helpers.mutate(rng, whole, b'{}[]":,abcdefx0\xff'))
        for _ in range(300)
    ]
    assert 3 < sum(accepted) < 270


names = st.sampled_from('abcdefxy')
nodes = st.recursive(
    st.fixed_dictionaries({'LabelName': names}),
    lambda below: st.fixed_dictionaries(
        {'LabelName': names},
        optional={'Subcategory': st.lists(below, max_size=3), 'Part': st.lists(below, max_size=2)},
    ),
    max_leaves=12,
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(['LabelName', 'Subcategory', 'Part', '']), below, max_size=3
        )
    ),
    max_leaves=8,
)


@SETTINGS
@given(tree=nodes | anything)
def test_any_tree(tmp_path_factory, tree):
    agree_or_refuse(tmp_path_factory.getbasetemp() / 'any.json', json.dumps(tree).encode())


def test_numbers_with_too_many_digits(tmp_path):
    path = tmp_path / 'h.json'
    path.write_text('{"LabelName": ' + '1' * 10_000 + '}')
    assert isinstance(result_or_refusal(read_hierarchy, path, LETTERS), InputError)


def contents(path):
    index = AnnotationIndex.open(path)
    index.verify()
    return (
        [
            (
                index.image_id(i),
                index.image_size(i),
                index.image_path(i).name,
                [column.tolist() for column in index.annotation(i)],
            )
            for i in range(len(index))
        ],
        index.classes,
        index.hierarchy.ancestors.tolist(),
    )


def test_mutated_indexes(helpers, tmp_path):
    split = helpers.write_split(tmp_path / 'split', n_image=6, n_box=12)
    build_index(**split)
    whole = split['out'].read_bytes()
    expected = contents(split['out'])
    rng = np.random.default_rng(0)
    n_unchanged = 0
    for _ in range(300):
        split['out'].write_bytes(helpers.mutate(rng, whole, b'\x00\xff"{},[]0123456789'))
        found = result_or_refusal(contents, split['out'])
        if not isinstance(found, InputError):
            assert found == expected  # the changed bytes are between the columns
            n_unchanged += 1
    assert n_unchanged < 100


def forged(whole, change):
    """An index with a changed header and a correct checksum."""
    length = struct.unpack_from('<I', whole, 12)[0]
    header = json.loads(whole[32 : 32 + length])
    text = json.dumps(change(header)).encode()
    pad = -(-(32 + len(text)) // 64) * 64 - 32 - len(text)
    return (
        whole[:12]
        + struct.pack('<II', len(text), zlib.crc32(text))
        + bytes(12)
        + text
        + bytes(pad)
        + whole[-(-(32 + length) // 64) * 64 :]
    )


ENTRIES = st.one_of(
    st.tuples(st.just('dtype'), st.sampled_from(['<f8', '|O', '<i2', 'x', None, 3])),
    st.tuples(st.just('shape'), st.lists(st.integers(-3, 10**20), max_size=3) | anything),
    st.tuples(st.just('offset'), st.integers(-(10**20), 10**20) | anything),
)


@SETTINGS
@given(data=st.data())
def test_forged_headers(forgeable, data):
    path, whole = forgeable

    def change(header):
        name = data.draw(st.sampled_from([*header, 'all']))
        if name == 'columns':
            columns = header['columns']
            column = data.draw(st.sampled_from(sorted(columns)))
            if data.draw(st.booleans()):
                del columns[column]
            else:
                key, value = data.draw(ENTRIES)
                columns[column][key] = value
        elif name == 'all':
            return data.draw(anything)
        elif data.draw(st.booleans()):
            del header[name]
        else:
            header[name] = data.draw(anything)
        return header

    path.write_bytes(forged(whole, change))
    result_or_refusal(AnnotationIndex.open, path)


@pytest.fixture(scope='module')
def forgeable(helpers, tmp_path_factory):
    split = helpers.write_split(tmp_path_factory.mktemp('forged') / 'split', n_image=6, n_box=12)
    build_index(**split)
    whole = split['out'].read_bytes()
    assert forged(whole, lambda header: header) == whole
    return split['out'], whole


def encodings():
    rng = np.random.default_rng(0)
    img = cv2.resize(rng.integers(0, 256, (4, 5, 3), np.uint8), (50, 40))
    for mode in ('RGB', 'L', 'CMYK'):
        file = io.BytesIO()
        PIL.Image.fromarray(img).convert(mode).save(file, 'JPEG', progressive=mode == 'RGB')
        yield '.jpg', file.getvalue()
    yield '.png', cv2.imencode('.png', img)[1].tobytes()
    yield '.png', cv2.imencode('.png', img.astype(np.uint16) * 257)[1].tobytes()


@pytest.mark.parametrize(
    'suffix, whole', list(encodings()), ids=['RGB', 'grey', 'CMYK', 'PNG', 'PNG 16']
)
def test_mutated_images(helpers, tmp_path, suffix, whole):
    path = tmp_path / f'image{suffix}'
    path.write_bytes(whole)
    assert read_image(path).shape == (3, 40, 50) and image_size(path) == (40, 50)
    rng = np.random.default_rng(0)
    n_refused = 0
    for k in range(60):
        # The header contains the size. The rest is mostly compressed data.
        cut = len(whole) if k % 2 else 30
        path.write_bytes(
            helpers.mutate(rng, whole[:cut], b'\xff\xd8\xd9\xda\xc0\xc4\x00') + whole[cut:]
        )
        size = result_or_refusal(image_size, path)
        img = result_or_refusal(read_image, path)
        if isinstance(img, InputError):
            n_refused += 1
            continue
        assert img.dtype == np.float32 and img.shape[0] == 3 and np.isfinite(img).all()
        assert img.min() >= 0 and img.max() <= 255
        assert size == img.shape[1:]
    assert n_refused > 5
