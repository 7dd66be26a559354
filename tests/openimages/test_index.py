import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

import pfdet
from pfdet.errors import InputError
from pfdet.openimages.build_index import build_index, describe_report, main
from pfdet.openimages.index import AnnotationIndex

ROOT = Path(pfdet.__file__).parents[1]


def as_dict(index, i):
    """The annotation of an image in the format of the slow reader."""
    a = index.annotation(i)
    objects = {
        (tuple(map(float, bbox)), bool(flags & 4)): [set(np.flatnonzero(label)), int(flags)]
        for bbox, label, flags in zip(a.bbox, a.label, a.flags)
    }
    assert len(objects) == len(a.bbox)
    return {
        'objects': objects,
        'positive': set(np.flatnonzero(a.positive)),
        'negative': set(np.flatnonzero(a.negative)),
    }


@pytest.mark.parametrize('seed', range(5))
def test_equals_slow_reader(helpers, tmp_path, seed):
    split = helpers.write_split(tmp_path, seed)
    slow, slow_counts = helpers.read_slowly(split['boxes'], split['labels'])
    report = build_index(**split)
    index = AnnotationIndex.open(split['out'])
    index.verify()
    assert [index.image_id(i) for i in range(len(index))] == sorted(slow)
    for i, image_id in enumerate(sorted(slow)):
        expected = {key: slow[image_id][key] for key in ('objects', 'positive', 'negative')}
        assert as_dict(index, i) == expected
        assert index.find(image_id) == i
        assert index.image_path(i) == split['images'] / f'{image_id}.jpg'
        assert index.image_size(i) == cv2.imread(str(index.image_path(i))).shape[:2]
    n_object = sum(len(image['objects']) for image in slow.values())
    n_label = sum(len(o[0]) for image in slow.values() for o in image['objects'].values())
    assert n_object < n_label < slow_counts['boxes']
    assert report.counts['objects'] == n_object and report.counts['labels'] == n_label
    assert report.counts['box_boxes'] == slow_counts['boxes']
    assert report.counts['positive'] == sum(len(image['positive']) for image in slow.values())
    assert report.counts['negative'] == sum(len(image['negative']) for image in slow.values())
    assert report.unknown == {
        '/m/unknown': slow_counts['box_unknown'] + slow_counts['label_unknown']
    }
    assert dict(index.counts) == report.counts
    offsets, classes = index.image_classes()
    for i, image_id in enumerate(sorted(slow)):
        assert classes[offsets[i] : offsets[i + 1]].tolist() == sorted(
            {label for label, _, _ in slow[image_id]['rows']}
        )


def test_annotations_are_copies_of_the_documented_dtypes(split):
    build_index(**split)
    index = AnnotationIndex.open(split['out'])
    for i in range(len(index)):
        a = index.annotation(i)
        assert a.bbox.shape == (len(a.bbox), 4) and a.label.shape == (len(a.bbox), 5)
        assert a.flags.shape == (len(a.bbox),) and a.positive.shape == a.negative.shape == (5,)
        assert [x.dtype for x in a] == [np.float32, bool, np.uint8, bool, bool]
        for x in a:
            x[...] = 0  # copies can be modified
    index.verify()
    with pytest.raises(ValueError):
        index.columns['bbox'][0] = 0


def test_positions(split):
    build_index(**split)
    index = AnnotationIndex.open(split['out'])
    n = len(index)
    assert index.image_id(-1) == index.image_id(n - 1)
    for ask in (index.image_id, index.image_size, index.image_path, index.annotation):
        for i in (n, -n - 1, 10**9):
            with pytest.raises(IndexError, match=f'an index of {n} images'):
                ask(i)
    for image_id in ('', 'zzzz', '0'):
        with pytest.raises(KeyError):
            index.find(image_id)


def test_hierarchy_and_classes_are_stored(split):
    build_index(**split)
    index = AnnotationIndex.open(split['out'])
    assert index.classes.names == ('Animal', 'Bird', 'Cat, domestic', 'Duck', 'Egg')
    assert np.argwhere(index.hierarchy.ancestors).tolist() == [[1, 0], [2, 0], [3, 0], [3, 1]]


def test_result_does_not_depend_on_row_order(split, tmp_path):
    build_index(**split)
    first = shutil.copy(split['out'], tmp_path / 'first.index')
    rng = np.random.default_rng(1)
    for name in ('boxes', 'labels'):
        header, *rows = split[name].read_text().splitlines()
        halves = np.array_split(rng.permutation(rows), 2)
        paths = [tmp_path / f'{name}{k}.csv' for k in range(2)]
        for path, half in zip(paths, halves):
            path.write_text('\n'.join([header, *half]) + '\n')
        split[name] = paths
    build_index(**split)
    # Only the order of the rows of an image is kept, for the metric's ties.
    before, after = AnnotationIndex.open(first), AnnotationIndex.open(split['out'])
    assert dict(before.counts) == dict(after.counts)
    assert before.columns.keys() == after.columns.keys()
    for name, column in before.columns.items():
        if name == 'order':
            assert not np.array_equal(column, after.columns[name])
        else:
            np.testing.assert_array_equal(column, after.columns[name])


def test_missing_and_unreadable_images(split):
    slow_ids = sorted(p.stem for p in split['images'].iterdir())
    gone, empty, upper, png = slow_ids[2:6]
    jpg = {image_id: split['images'] / f'{image_id}.jpg' for image_id in slow_ids}
    jpg[gone].unlink()
    jpg[empty].write_bytes(b'')
    jpg[upper].rename(jpg[upper].with_suffix('.JPG'))
    cv2.imwrite(str(jpg[png].with_suffix('.png')), np.zeros((7, 9, 3), np.uint8))
    jpg[png].unlink()

    report = build_index(**split)
    index = AnnotationIndex.open(split['out'])
    ids = [index.image_id(i) for i in range(len(index))]
    assert gone not in ids and empty not in ids and report.files.missing == [gone]
    assert report.counts['missing'] == report.counts['unreadable'] == 1
    assert index.image_path(index.find(upper)).name == f'{upper}.JPG'
    assert index.image_size(index.find(png)) == (7, 9)
    text = '\n'.join(describe_report(report))
    assert f'skipped: 1 ({gone})' in text and f'{empty}.jpg' in text

    kept = AnnotationIndex.open(split['out'])
    assert build_index(**split, keep_missing=True).counts['images'] == len(index) + 2
    kept = AnnotationIndex.open(split['out'])
    assert kept.image_size(kept.find(gone)) == kept.image_size(kept.find(empty)) == (0, 0)
    for image_id in ids:  # skipped images do not change the annotations of others
        assert as_dict(kept, kept.find(image_id)) == as_dict(index, index.find(image_id))


def test_failed_build_keeps_the_old_index(split, tmp_path):
    build_index(**split)
    before = split['out'].read_bytes()
    (tmp_path / 'none').mkdir()
    flat = tmp_path / 'flat.csv'
    flat.write_text('ImageID,LabelName,XMin,XMax,YMin,YMax\ni,/m/a,0.5,0.5,0,1\n')
    other = tmp_path / 'other.csv'
    other.write_text('/m/x,X\n')
    for name, value, message in (
        ('images', tmp_path / 'none', 'none of the .* images in the tables was found'),
        ('images', tmp_path / 'nowhere', 'none of the .* images in the tables was found'),
        ('boxes', flat, 'no usable box'),
        ('boxes', split['labels'], 'no column XMin'),
        ('classes', other, 'contains none of the 1 classes'),
        ('hierarchy', split['boxes'], 'line 1'),
    ):
        with pytest.raises(InputError, match=message):
            build_index(**{**split, name: value})
    with pytest.raises(InputError, match='boxes.csv.x.index: cannot be written'):
        build_index(**{**split, 'out': split['boxes'] / 'x.index'})
    assert split['out'].read_bytes() == before
    assert {p.name for p in split['out'].parent.iterdir()} == {
        'boxes.csv',
        'labels.csv',
        'classes.csv',
        'hierarchy.json',
        'images',
        'split.index',
    }


def test_keep_missing_needs_no_images(split, tmp_path):
    split['images'] = tmp_path / 'nowhere'
    report = build_index(**split, keep_missing=True)
    assert (
        report.counts['images']
        == report.counts['missing']
        == len(AnnotationIndex.open(split['out']))
    )


def test_truncated_files(split):
    build_index(**split)
    whole = split['out'].read_bytes()
    ends = {*range(0, 80), *range(80, len(whole), 97), len(whole) - 1}
    for end in ends:
        split['out'].write_bytes(whole[:end])
        with pytest.raises(InputError, match='split.index') as e:
            AnnotationIndex.open(split['out'])
        assert '\n' not in str(e.value)
    split['out'].write_bytes(whole + b'\0')
    with pytest.raises(InputError, match='bytes instead of'):
        AnnotationIndex.open(split['out'])


def test_flipped_bits(split):
    build_index(**split)
    whole = split['out'].read_bytes()
    index = AnnotationIndex.open(split['out'])
    length = struct.unpack_from('<I', whole, 12)[0]
    start = -(-(32 + length) // 64) * 64
    rng = np.random.default_rng(0)
    for at in rng.choice(32 + length, 200):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        split['out'].write_bytes(damaged)
        with pytest.raises(InputError, match='split.index'):
            AnnotationIndex.open(split['out'])
    for name, entry in index._header['columns'].items():
        size = index.columns[name].nbytes
        for at in {0, size // 2, size - 1}:
            damaged = bytearray(whole)
            damaged[start + entry['offset'] + at] ^= 16
            split['out'].write_bytes(damaged)
            with pytest.raises(InputError, match=f'column {name} is damaged|{name} does not match'):
                AnnotationIndex.open(split['out']).verify()


def test_foreign_files(split, tmp_path):
    build_index(**split)
    path = tmp_path / 'other.index'
    for content in (b'', b'PFDET', b'PK\x03\x04' * 100, split['boxes'].read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match='other.index: not a file of pfdet'):
            AnnotationIndex.open(path)
    newer = bytearray(split['out'].read_bytes())
    newer[8:12] = struct.pack('<I', 2)
    path.write_bytes(newer)
    with pytest.raises(InputError, match='format version 2; expected version 1'):
        AnnotationIndex.open(path)
    other = bytearray(split['out'].read_bytes())
    length = struct.unpack_from('<I', other, 12)[0]
    other[32 : 32 + length] = other[32 : 32 + length].replace(
        b'annotation index', b'annotation undex'
    )
    other[16:20] = struct.pack('<I', zlib.crc32(other[32 : 32 + length]))
    path.write_bytes(other)
    with pytest.raises(InputError, match="kind is 'annotation undex'"):
        AnnotationIndex.open(path)
    for missing in (tmp_path / 'none.index', tmp_path):
        with pytest.raises(InputError, match='cannot read'):
            AnnotationIndex.open(missing)


def test_moved_files(split, tmp_path):
    build_index(**split)
    here = split['out'].parent
    alone = tmp_path / 'elsewhere' / 'split.index'
    alone.parent.mkdir()
    shutil.copy(split['out'], alone)
    assert AnnotationIndex.open(alone).images == split['images']
    assert AnnotationIndex.open(alone, images='x').image_path(0).parent == Path('x')
    moved = tmp_path / 'deep' / 'moved'
    moved.parent.mkdir()
    here.rename(moved)
    assert AnnotationIndex.open(moved / 'split.index').images == moved / 'images'
    assert AnnotationIndex.open(moved / 'split.index').image_path(0).exists()


def test_pickle_reopens(split):
    build_index(**split)
    index = AnnotationIndex.open(split['out'], images='x')
    data = pickle.dumps(index)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert as_dict(copy, 3) == as_dict(index, 3) and copy.image_path(0) == index.image_path(0)


def test_open_index_survives_replacement(split):
    build_index(**split)
    index = AnnotationIndex.open(split['out'])
    before = [as_dict(index, i) for i in range(len(index))]
    split['boxes'].write_text('ImageID,LabelName,XMin,XMax,YMin,YMax\nA_B,/m/a,0,1,0,1\n')
    build_index(**split)
    assert [as_dict(index, i) for i in range(len(index))] == before
    assert AnnotationIndex.open(split['out']).counts['objects'] == 1


def test_opening_needs_numpy_only(split):
    build_index(**split)
    program = (
        'import sys\nfrom pfdet.openimages.index import AnnotationIndex\n'
        'index = AnnotationIndex.open(sys.argv[1])\nindex.annotation(0)\n'
        'print([m for m in ("pyarrow", "chainer", "cv2", "PIL", "scipy") '
        'if m in sys.modules])'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, str(split['out'])],
        text=True,
        check=True,
        capture_output=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert done.stdout == '[]\n'


def imports_pandas(program, *args):
    done = subprocess.run(
        [sys.executable, '-c', f'import sys\n{program}\nprint("pandas" in sys.modules)', *args],
        text=True,
        check=True,
        capture_output=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    return done.stdout.splitlines()[-1] == 'True'


def test_building_does_not_import_pandas(split):
    # pyarrow's own conversions import pandas, which takes longer than a build.
    if imports_pandas(
        'import pyarrow as pa\n'
        'a = pa.Array.from_buffers(pa.int8(), 1, [None, pa.py_buffer(b"1")])\n'
        'a.cast(pa.int32())'
    ):
        pytest.skip('this pyarrow, as 10 does, imports pandas in every compute function')
    # Rows in unusual forms and lists of images take other ways.
    fields = split['boxes'].read_text().splitlines()[1].split(',')
    fields[0], fields[-1] = f' {fields[0]}', '1.0'
    with open(split['boxes'], 'a') as f:
        f.write(','.join(fields))
    (split['out'].parent / 'ids.csv').write_text(f'ImageID\n{fields[0]}\n')
    flags = [part for name, value in split.items() for part in (f'--{name}', str(value))]
    assert not imports_pandas(
        'from pfdet.openimages.build_index import main\nmain(sys.argv[1:])',
        *(*flags, '--ids', str(split['out'].parent / 'ids.csv')),
    )


def test_command(split, capsys):
    flags = [part for name, value in split.items() for part in (f'--{name}', str(value))]
    main(flags)
    out = capsys.readouterr()
    assert 'images: 25; objects:' in out.out and '/m/unknown' in out.out and not out.err
    assert out.out.splitlines()[-1].startswith(f'{split["out"]}: ')
    split['boxes'].write_text(split['boxes'].read_text() + 'half,a,row\n')
    n_line = split['boxes'].read_bytes().count(b'\n')
    done = subprocess.run(
        [sys.executable, '-m', 'pfdet.openimages.build_index', *flags],
        text=True,
        capture_output=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == (
        f'error: {split["boxes"]}, line {n_line}: expected 13 fields as in the header, got 3\n'
    )
