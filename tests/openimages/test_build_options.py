"""Options of build_index: lists of images, folders, pixels, machine labels, boxes alone."""

import os
import unicodedata

import cv2
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.annotation_files import ReadOptions
from pfdet.openimages.build_index import build_index, main
from pfdet.openimages.image_files import find_image_files
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.shared_images import shared_images
from pfdet.openimages.subset import subset

BOX_HEADER = 'ImageID,LabelName,XMin,XMax,YMin,YMax'


def write_image(path, height=10, width=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    img = np.zeros((height, width, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix.lower(), img)[1].tobytes())


def ids_of(index):
    return [index.image_id(i) for i in range(len(index))]


def build(split, **options):
    keep_missing = options.pop('keep_missing', False)
    report = build_index(**split, keep_missing=keep_missing, options=ReadOptions(**options))
    return AnnotationIndex.open(split['out']), report.counts


def same(a, i, b, j):
    return all(np.array_equal(x, y) for x, y in zip(a.annotation(i), b.annotation(j)))


@pytest.fixture
def listed(split, tmp_path):
    whole, _ = build(split)
    chosen = ids_of(whole)[3:10]
    path = tmp_path / 'ids.csv'
    path.write_text('\n'.join(['ImageID', *reversed(chosen), 'not-in-the-tables']) + '\n')
    return split, whole, chosen, path


def test_ids_and_the_rest_are_the_whole(listed, tmp_path):
    split, whole, chosen, path = listed
    some, counts = build({**split, 'out': tmp_path / 'some.index'}, ids=path)
    rest, _ = build({**split, 'out': tmp_path / 'rest.index'}, exclude_ids=path)
    assert ids_of(some) == chosen
    assert ids_of(rest) == [i for i in ids_of(whole) if i not in chosen]
    assert counts['listed'] == 8 and counts['listed_missing'] == 1
    assert counts['excluded'] == len(rest)
    for part in (some, rest):
        for i, image_id in enumerate(ids_of(part)):
            assert same(part, i, whole, whole.find(image_id))
    assert shared_images(some, rest) == [] and shared_images(some, whole) == chosen


@pytest.mark.parametrize('name', ['ids', 'exclude_ids'])
def test_lists_that_fit_no_image(listed, tmp_path, name):
    split, _, _, path = listed
    other = tmp_path / 'other.csv'
    other.write_text('ImageID\nx\ny\n')
    with pytest.raises(InputError, match='other.csv: none of the 2 images is in the tables'):
        build(split, **{name: other})
    with pytest.raises(InputError, match='leave none of the images'):
        build(split, ids=path, exclude_ids=path)


def test_lists_from_the_command_line(listed, tmp_path, capsys):
    split, _, chosen, path = listed
    out = tmp_path / 'some.index'
    flags = [part for name, value in split.items() for part in (f'--{name}', str(value))]
    main([*flags, '--out', str(out), '--ids', str(path)])
    assert ids_of(AnnotationIndex.open(out)) == chosen
    printed = capsys.readouterr().out
    assert 'images in the lists: 8; of these, without a row: 1; images not chosen' in printed
    main([*flags, '--out', str(out), '--exclude-ids', str(path)])
    assert not set(chosen) & set(ids_of(AnnotationIndex.open(out)))


@pytest.mark.parametrize('lengths', [(3, 3), (1, 4)], ids=['equal', 'different'])
def test_shared_images(split, tmp_path, lengths):
    rng = np.random.default_rng(0)
    names = sorted(
        {''.join(rng.choice(list('abc'), rng.integers(*lengths, endpoint=True))) for _ in range(60)}
    )
    for _ in range(5):
        indexes = []
        for k in range(2):
            some = rng.choice(names, rng.integers(1, len(names)), replace=False)
            path = tmp_path / f'{k}.csv'
            path.write_text('\n'.join([BOX_HEADER, *(f'{name},/m/a,0,1,0,1' for name in some)]))
            arguments = {**split, 'boxes': path, 'labels': None, 'out': tmp_path / f'{k}.index'}
            indexes.append(build(arguments, keep_missing=True)[0])
        expected = sorted(set(ids_of(indexes[0])) & set(ids_of(indexes[1])))
        assert shared_images(*indexes) == shared_images(*indexes[::-1]) == expected


def boxes_only(split, rows, tmp_path):
    path = tmp_path / 'rows.csv'
    path.write_text('\n'.join([BOX_HEADER, *rows]) + '\n')
    return {**split, 'boxes': path, 'labels': None}


def verified(index, i):
    annotation = index.annotation(i)
    return set(np.flatnonzero(annotation.positive)), set(np.flatnonzero(annotation.negative))


def test_boxes_without_image_labels(split, tmp_path):
    # Animal, Bird (an Animal), Cat (an Animal), Duck (a Bird), Egg.
    rows = ['i,/m/b,0,1,0,1', 'j,/m/e,0,1,0,1', 'k,/m/c,0,1,0,1', 'k,/m/e,0,0.5,0,0.5']
    arguments = boxes_only(split, rows, tmp_path)
    index, counts = build(arguments, keep_missing=True)
    assert [verified(index, i) for i in range(3)] == [({1}, set()), ({4}, set()), ({2, 4}, set())]
    assert counts['image_label_rows'] == 0
    # All others are absent, except for ancestors, and Duck where an object is a Bird.
    index, _ = build(arguments, keep_missing=True, exhaustive=True)
    assert [verified(index, i) for i in range(3)] == [
        ({1}, {2, 4}),
        ({4}, {0, 1, 2, 3}),
        ({2, 4}, {1, 3}),
    ]


def test_boxes_without_image_labels_from_the_command_line(split, tmp_path, capsys):
    arguments = boxes_only(split, ['A_B,/m/b,0,1,0,1'], tmp_path)
    del arguments['labels']
    flags = [part for name, value in arguments.items() for part in (f'--{name}', str(value))]
    main(flags)
    assert 'verified classes: 1 positive, 0 negative' in capsys.readouterr().out
    main([*flags, '--exhaustive'])
    assert 'verified classes: 1 positive, 2 negative' in capsys.readouterr().out


def test_machine_labels_are_counted_and_left_out(split, capsys):
    split['labels'].write_text(
        'ImageID,Source,LabelName,Confidence\nA_B,verification,/m/c,0\n'
        'A_B,machine,/m/e,0\nA_B,machine,/m/d,1.0\nA_B,guess\x1b[31m,/m/d,1\n'
    )
    flags = [part for name, value in split.items() for part in (f'--{name}', str(value))]
    main(flags)
    index = AnnotationIndex.open(split['out'])
    _, negative = verified(index, index.find('A_B'))
    assert negative == {2}
    printed = capsys.readouterr().out
    assert 'not of annotators, skipped: 3 (Source machine (2), guess\\x1b[31m (1))' in printed
    assert '\x1b' not in printed
    main([*flags, '--machine-labels'])
    positive, negative = verified(AnnotationIndex.open(split['out']), index.find('A_B'))
    assert 3 in positive and negative == {2, 4} - positive


LAYOUTS = {
    'flat': lambda i, name: name,
    'first digit': lambda i, name: f'{name[0]}/{name}',
    'train_0 to train_f': lambda i, name: f'train_{name[0]}/{name}',
    'by class': lambda i, name: f'{["Apple", "Human face"][i % 2]}/{name}',
    'deep': lambda i, name: f'OID/Dataset/train/{i}/{name}',
}


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_images_in_folders(split, tmp_path, layout):
    flat, _ = build(split)
    images = tmp_path / 'folders'
    for i, image_id in enumerate(ids_of(flat)):
        path = images / layout(i, f'{image_id}.jpg')
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(flat.image_path(i), path)
        (path.parent / 'notes.txt').write_text('not an image')
    index, counts = build({**split, 'images': images, 'out': tmp_path / 'folders.index'})
    assert ids_of(index) == ids_of(flat) and counts['missing'] == counts['repeated'] == 0
    for i, image_id in enumerate(ids_of(flat)):
        assert index.image_path(i) == images / layout(i, f'{image_id}.jpg')
        assert index.image_size(i) == flat.image_size(i) and same(index, i, flat, i)
    subset(index, np.arange(0, len(index), 3), tmp_path / 'subset.index')
    some = AnnotationIndex.open(tmp_path / 'subset.index')
    assert [some.image_path(k) for k in range(len(some))] == [
        index.image_path(i) for i in range(0, len(index), 3)
    ]


def test_the_nearest_of_several_files(tmp_path):
    for name in ('b/i.jpg', 'a/i.jpg', 'a/b/j.png', 'c/j.jpg', 'k.png', 'c/k.jpg', 'c/k.png'):
        write_image(tmp_path / name, 10 + len(name))
    write_image(tmp_path / '.thumbnails' / 'l.jpg')
    write_image(tmp_path / 'a' / 'm.png')
    write_image(tmp_path / 'a' / 'm.jpg')
    os.symlink(tmp_path, tmp_path / 'a' / 'loop')
    os.mkfifo(tmp_path / 'n.jpg')
    (tmp_path / 'o.jpg').mkdir()
    files = find_image_files(tmp_path, list('ijklmno'))
    names = [
        os.path.join(files.folders[f], c + ['.jpg', '.jpeg', '.png'][s])
        for f, c, s in zip(files.folder, 'ijklmno', files.suffix)
    ]
    assert names[:3] == ['a/i.jpg', 'c/j.jpg', 'k.png'] and names[4] == 'a/m.jpg'
    assert files.repeated == ['i', 'j', 'k'] and files.missing == ['l', 'n', 'o']
    assert (files.size[[0, 1, 2, 4]] > 0).all()


def test_no_file_outside_of_the_images(split, tmp_path):
    """No id leads out of the directory of the images, whatever table has it."""
    write_image(tmp_path / 'secret' / 's.jpg')
    write_image(tmp_path / 'inside' / 'i.jpg')
    for image_id in ('../secret/s', f'{tmp_path}/secret/s', 'i/../../secret/s'):
        arguments = boxes_only(split, ['i,/m/a,0,1,0,1', f'{image_id},/m/a,0,1,0,1'], tmp_path)
        with pytest.raises(InputError, match='rows.csv, line 3: expected ImageID to be an image'):
            build({**arguments, 'images': tmp_path / 'inside'})
        # The search itself never leaves the directory.
        files = find_image_files(tmp_path / 'inside', ['i', image_id])
        assert files.missing == [image_id]


def test_folders_in_ids(split, tmp_path):
    write_image(tmp_path / 'images' / 'sub' / 'i.jpg', 11)
    write_image(tmp_path / 'images' / 'i.jpg', 12)
    rows = ['i,/m/a,0,1,0,1', 'sub/i,/m/a,0,1,0,1']
    arguments = boxes_only(split, rows, tmp_path)
    index, _ = build({**arguments, 'images': tmp_path / 'images'})
    assert ids_of(index) == ['i', 'sub/i']
    assert [index.image_size(i)[0] for i in range(2)] == [12, 11]
    assert index.image_path(1) == tmp_path / 'images' / 'sub' / 'i.jpg'


def test_file_names_in_another_normalization(split, tmp_path):
    composed, decomposed = (unicodedata.normalize(form, 'z-\u00fcber') for form in ('NFC', 'NFD'))
    images = tmp_path / 'images'
    write_image(images / 'a' / f'{decomposed}.jpg', 13)
    write_image(images / 'i.jpg')
    rows = [f'{composed},/m/a,0,1,0,1', 'i,/m/a,0,1,0,1']
    index, _ = build({**boxes_only(split, rows, tmp_path), 'images': images})
    assert ids_of(index) == ['i', composed]
    assert index.image_path(1) == images / 'a' / f'{decomposed}.jpg'
    assert index.image_size(1)[0] == 13 and index.image_path(1).exists()
    for chosen, expected in (([0], {}), ([1], {composed: f'a/{decomposed}.jpg'})):
        subset(index, np.array(chosen), tmp_path / 'subset.index')
        some = AnnotationIndex.open(tmp_path / 'subset.index')
        assert some.file_names == expected
        assert some.image_path(0) == index.image_path(chosen[0])
    write_image(images / 'a' / f'{composed}.jpg')
    with pytest.raises(InputError, match='have the same name in two forms of Unicode'):
        build({**boxes_only(split, rows, tmp_path), 'images': images})


def in_pixels(rows, size):
    height, width = size
    return [
        ','.join(
            [
                image_id,
                mid,
                *(f'{float(x) * width:.9g}' for x in xs),
                *(f'{float(y) * height:.9g}' for y in ys),
            ]
        )
        for image_id, mid, *coordinates in (row.split(',') for row in rows)
        for xs, ys in [(coordinates[:2], coordinates[2:])]
    ]


def test_pixels(split, tmp_path, capsys):
    write_image(tmp_path / 'images' / 'i.jpg', 480, 640)
    relative = ['i,/m/a,0.5390625,1,0,0.25', 'i,/m/b,0.125,0.25,0.5,1.0003', 'i,/m/c,0,0,0,1']
    arguments = {**boxes_only(split, relative, tmp_path), 'images': tmp_path / 'images'}
    expected, _ = build(arguments)
    rows = in_pixels(relative, (480, 640))
    assert rows[0] == 'i,/m/a,345,640,0,120'
    arguments = {**boxes_only(split, rows, tmp_path), 'images': tmp_path / 'images'}
    with pytest.raises(
        InputError,
        match=r'rows.csv, line 2: expected XMin to be a number from 0 '
        r"to 1 \(for a table in pixels, give --pixels to pfdet index\), got '345'",
    ):
        build(arguments)
    index, counts = build(arguments, pixels=True)
    assert same(index, 0, expected, 0)
    assert counts['box_clipped'] == counts['box_degenerate'] == 1
    del arguments['labels']
    flags = [part for name, value in arguments.items() for part in (f'--{name}', str(value))]
    main([*flags, '--pixels'])
    assert 'boxes clipped: 1; of zero area, skipped: 1' in capsys.readouterr().out
    # The first line in pixels is named, wherever it is.
    rows = ['i,/m/a,0,1,0,1'] * 700 + rows
    with pytest.raises(InputError, match='rows.csv, line 702: expected XMin'):
        build(boxes_only(split, rows, tmp_path))


@pytest.mark.parametrize(
    'value, accepted',
    [
        ('1.0003', True),
        ('-0.0003', True),
        ('1.2', True),
        ('-0.2', True),
        ('2.5', False),
        ('-1.5', False),
        ('345', False),
        ('3e38', False),
    ],
)
def test_slightly_outside_is_clipped(split, tmp_path, value, accepted):
    low, high = (value, '0.5') if value.startswith('-') else ('0.5', value)
    arguments = boxes_only(split, [f'A_B,/m/a,0,0.5,{low},{high}'], tmp_path)
    if accepted:
        index, counts = build(arguments)
        assert counts['box_clipped'] == 1
        assert index.annotation(0).bbox.tolist() == [
            [0, 0, 0.5, 0.5] if low != '0.5' else [0.5, 0, 1, 0.5]
        ]
        return
    with pytest.raises(InputError, match='rows.csv, line 2: expected YM.. to be a number from 0'):
        build(arguments)


def test_pixels_that_do_not_fit(split, tmp_path):
    write_image(tmp_path / 'images' / 'i.jpg', 480, 640)
    for rows, message in (
        (['i,/m/a,0,1,0,0.5'], 'rows.csv: no coordinate is above 1'),
        (['i,/m/a,0,6400,0,480'], "image 'i' has 640 x 480 pixels, but a box with XMin 0, XMax"),
    ):
        arguments = {**boxes_only(split, rows, tmp_path), 'images': tmp_path / 'images'}
        with pytest.raises(InputError, match=message):
            build(arguments, pixels=True)
    rows = ['i,/m/a,0,640,0,480', 'j,/m/a,0,640,0,480']
    arguments = {**boxes_only(split, rows, tmp_path), 'images': tmp_path / 'images'}
    assert len(build(arguments, pixels=True)[0]) == 1
    with pytest.raises(InputError, match="no readable file of image 'j'; expected all files"):
        build(arguments, pixels=True, keep_missing=True)
