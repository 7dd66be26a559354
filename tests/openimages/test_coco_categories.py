"""COCO's format with categories of Open Images, ambiguous names, and files of other sizes."""

import json
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes, challenge_classes
from pfdet.openimages.coco import build_coco_index, describe_report, main
from pfdet.openimages.coco_mapping import decide, read_mapping
from pfdet.openimages.hierarchy import flat_hierarchy, hierarchy_from_edges
from pfdet.openimages.index import AnnotationIndex

CHALLENGE = challenge_classes()
# The challenge's own file names two classes Mouse and two Bench.
OFFICIAL = Classes(
    CHALLENGE.mids,
    tuple(
        {'/m/020lf': 'Mouse', '/m/076lb9': 'Bench'}.get(mid, name)
        for mid, name in zip(CHALLENGE.mids, CHALLENGE.names)
    ),
)
TRANSLATED = Classes(CHALLENGE.mids, tuple(f'Klasse {i}' for i in range(500)))
OWN = Classes(('x1', 'x2', 'x3', 'x4'), ('Mouse', 'Computer mouse', 'Helmet', 'cup'))
TWO_OF_OWN = Classes(('x1', 'x2', 'x3'), ('Computer mouse', 'computer mouse', 'Helmet'))
EVERY = CHALLENGE.mids + OWN.mids

ANIMAL, COMPUTER, BENCH, TRAINING = '/m/04rmv', '/m/020lf', '/m/0cvnqh', '/m/076lb9'


@pytest.mark.parametrize(
    'classes, category, mid, how',
    [
        # COCO's own names are mapped by MID, whatever the classes are called.
        (CHALLENGE, 'mouse', COMPUTER, 'mapping file'),
        (OFFICIAL, 'mouse', COMPUTER, 'mapping file'),
        (TRANSLATED, 'mouse', COMPUTER, 'mapping file'),
        (OFFICIAL, 'bench', BENCH, 'same name'),
        (TRANSLATED, 'bench', BENCH, 'same name'),
        (TRANSLATED, 'person', '/m/01g317', 'same name'),
        # Categories of Open Images, as FiftyOne exports them.
        (CHALLENGE, 'Man', '/m/04yx4', 'same name'),
        (CHALLENGE, 'man', '/m/04yx4', 'same name'),
        (CHALLENGE, 'Person', '/m/01g317', 'same name'),
        (CHALLENGE, '/m/04yx4', '/m/04yx4', 'same MID'),
        (CHALLENGE, 'Mouse', ANIMAL, 'same name'),
        (CHALLENGE, 'Computer mouse', COMPUTER, 'same name'),
        (CHALLENGE, '/m/020lf', COMPUTER, 'same MID'),
        (CHALLENGE, 'Vehicle registration plate', '/m/01jfm_', 'same name'),
        # A name of two classes is no answer.
        (OFFICIAL, 'Mouse', None, 'several classes of this name'),
        (OFFICIAL, 'Bench', None, 'several classes of this name'),
        (TWO_OF_OWN, 'mouse', None, 'several classes of this name'),
        (TWO_OF_OWN, 'COMPUTER MOUSE', None, 'several classes of this name'),
        # Label spaces with MIDs of their own.
        (OWN, 'mouse', 'x2', 'mapping file'),
        (OWN, 'Mouse', 'x1', 'same name'),
        (OWN, 'helmet', 'x3', 'same name'),
        (OWN, 'x3', 'x3', 'same MID'),
        (OWN, 'cup', 'x4', 'same name'),
        (OWN, 'person', None, 'not among the classes'),
        (OWN, 'hovercraft', None, 'no class of COCO'),
        (TRANSLATED, 'Man', None, 'no class of COCO'),
    ],
)
def test_decisions(classes, category, mid, how):
    [decision] = decide([category], classes)
    assert (classes.mids[decision.class_id] if decision.class_id >= 0 else None) == mid
    assert decision.how == how and decision.coco == category
    if how == 'several classes of this name':
        assert len({classes.names[i].casefold() for i in decision.candidates}) == 1
        assert len(decision.candidates) == 2


def test_all_80_classes_by_mid():
    plain, official, translated = (
        decide(list(read_mapping()), classes) for classes in (CHALLENGE, OFFICIAL, TRANSLATED)
    )
    assert plain == official == translated
    assert all(decision.is_of_coco for decision in plain)


# Person is the ancestor of Man and Woman; Hat is alone.
CLASSES = Classes(
    ('/m/01g317', '/m/04yx4', '/m/03bt1vf', '/m/02dl1y'), ('Person', 'Man', 'Woman', 'Hat')
)
HIERARCHY = hierarchy_from_edges([('/m/01g317', '/m/04yx4'), ('/m/01g317', '/m/03bt1vf')], CLASSES)
PERSON, MAN, WOMAN, HAT = range(4)


def write_json(path, categories, boxes, file_names=None, size=(60, 80)):
    """One image per list of categories; each category has a box."""
    file_names = file_names or [f'{k}.jpg' for k in range(len(boxes))]
    path.write_text(
        json.dumps(
            {
                'images': [
                    {'id': k, 'file_name': name, 'height': size[0], 'width': size[1]}
                    for k, name in enumerate(file_names)
                ],
                'categories': [{'id': k, 'name': name} for k, name in enumerate(categories)],
                'annotations': [
                    {
                        'id': 9 * k + j,
                        'image_id': k,
                        'bbox': [8, 6, 16, 30],
                        'category_id': categories.index(name),
                    }
                    for k, names in enumerate(boxes)
                    for j, name in enumerate(names)
                ],
            }
        )
    )
    return path


def verified(index, i):
    annotation = index.annotation(i)
    return set(np.flatnonzero(annotation.positive)), set(np.flatnonzero(annotation.negative))


@pytest.mark.parametrize('as_mids', [False, True], ids=['names', 'MIDs'])
def test_an_export_of_open_images(tmp_path, as_mids, capsys):
    names = dict(zip(CLASSES.names, CLASSES.mids)) if as_mids else {n: n for n in CLASSES.names}
    boxes = [[names[n] for n in row] for row in (['Man'], ['Person'], ['Woman', 'Hat'])]
    path = write_json(tmp_path / 'a.json', [names[n] for n in CLASSES.names], boxes)
    out = tmp_path / 'coco.index'
    report = build_coco_index(path, tmp_path, out, CLASSES, HIERARCHY, keep_missing=True)
    index = AnnotationIndex.open(out)
    assert [verified(index, i) for i in range(3)] == [
        ({MAN}, set()),
        ({PERSON}, set()),
        ({WOMAN, HAT}, set()),
    ]
    assert report.counts['unmapped'] == 0
    assert any(
        'no class is verified as absent' in line for line in describe_report(report, CLASSES)
    )
    build_coco_index(path, tmp_path, out, CLASSES, HIERARCHY, True, keep_missing=True)
    index = AnnotationIndex.open(out)
    # A man is a person, and a person may be a man.
    assert [verified(index, i) for i in range(3)] == [
        ({MAN}, {WOMAN, HAT}),
        ({PERSON}, {HAT}),
        ({WOMAN, HAT}, {MAN}),
    ]
    (tmp_path / 'classes.csv').write_text(
        '\n'.join(f'{mid},{name}' for mid, name in zip(CLASSES.mids, CLASSES.names))
    )
    below = [{'LabelName': CLASSES.mids[c]} for c in (MAN, WOMAN)]
    (tmp_path / 'hierarchy.json').write_text(
        json.dumps({'LabelName': CLASSES.mids[PERSON], 'Subcategory': below})
    )
    flags = ['--annotations', str(path), '--images', str(tmp_path), '--out', str(out)]
    flags += ['--classes', str(tmp_path / 'classes.csv'), '--keep-missing']
    flags += ['--hierarchy', str(tmp_path / 'hierarchy.json')]
    main(flags)
    assert 'verified classes: 4 positive, 0 negative' in capsys.readouterr().out
    main([*flags, '--exhaustive'])
    assert 'verified classes: 4 positive, 4 negative' in capsys.readouterr().out
    with pytest.raises(InputError, match='--no-negatives and --exhaustive'):
        main([*flags, '--exhaustive', '--no-negatives'])


def test_an_ambiguous_name_is_reported(tmp_path):
    path = write_json(tmp_path / 'a.json', ['Mouse', 'Man\u200f'], [['Mouse', 'Man\u200f']])
    report = build_coco_index(
        path, tmp_path, tmp_path / 'coco.index', OFFICIAL, flat_hierarchy(500), keep_missing=True
    )
    assert report.counts['unmapped'] == 1
    [line] = [line for line in describe_report(report, OFFICIAL) if 'several' in line[:8]]
    assert line == f'several classes of this name: Mouse may be {COMPUTER}, {ANIMAL}'


@pytest.mark.parametrize(
    'name',
    [
        '../secret/s.jpg',
        '/secret/s.jpg',
        'a/../../s.jpg',
        '..\\s.jpg',
        's\u0000.jpg',
        'a//s.jpg',
        'C:\\s.jpg',
        '..',
        './s.jpg',
        'a/.jpg/..',
        's\u200f1.jpg',
    ],
)
def test_file_names_that_leave_the_directory(tmp_path, name):
    (tmp_path / 'secret').mkdir()
    write_image(tmp_path / 'secret' / 's.jpg', (60, 80))
    path = write_json(tmp_path / 'a.json', ['person'], [['person']] * 2, ['i.jpg', name])
    with pytest.raises(
        InputError, match=r'a.json: images\[1\] has file_name .*; expected a file b'
    ):
        build_coco_index(path, tmp_path / 'images', tmp_path / 'coco.index', keep_missing=True)


def write_image(path: Path, size, orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.fromarray(np.zeros((*size, 3), np.uint8))
    exif = PIL.Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(path, exif=exif)


@pytest.mark.parametrize(
    'stored, orientation, accepted',
    [
        ((60, 80), None, True),
        # An orientation without effect on the shape.
        ((60, 80), 3, True),
        # Annotated upright, stored on its side.
        ((80, 60), 6, False),
        ((80, 60), 8, False),
        ((80, 60), None, False),
        # Resized with and without the proportions.
        ((120, 160), None, True),
        ((30, 40), None, True),
        ((45, 60), None, True),
        ((41, 55), None, True),
        ((60, 60), None, False),
        ((416, 416), None, False),
    ],
)
def test_sizes_of_the_files(tmp_path, stored, orientation, accepted):
    images, out = tmp_path / 'images', tmp_path / 'coco.index'
    path = write_json(tmp_path / 'a.json', ['person'], [['person']] * 3)
    write_image(images / '0.jpg', (60, 80))
    write_image(images / '2.jpg', stored, orientation)
    if not accepted:
        with pytest.raises(InputError) as e:
            build_coco_index(path, images, out)
        assert f'2.jpg: {stored[1]} x {stored[0]} pixels, but 80 x 60 in {path}' in str(e.value)
        assert not out.exists()
        return
    report = build_coco_index(path, images, out)
    index = AnnotationIndex.open(out)
    assert [index.image_size(i) for i in range(len(index))] == [(60, 80), stored]
    for i in range(2):
        np.testing.assert_allclose(index.annotation(i).bbox, [[0.1, 0.1, 0.6, 0.3]])
    assert report.counts['resized'] == (stored != (60, 80)) and report.counts['missing'] == 1


def test_files_in_folders_and_files_that_are_no_images(tmp_path):
    decomposed = unicodedata.normalize('NFD', '\u00fc.jpg')
    names = ['train/0.png', '1.jpg', '2.jpg', '3.jpg', '\u00fc.jpg', 'train/5.jpg']
    path = write_json(tmp_path / 'a.json', ['person'], [['person']] * 6, names)
    images, out = tmp_path / 'images', tmp_path / 'coco.index'
    for name in ('train/0.png', 'deep/er/1.jpg', decomposed, 'train/5.jpg'):
        write_image(images / name, (60, 80))
    # The suffix is that in the JSON.
    write_image(images / 'train/0.jpg', (9, 9))
    write_image(images / '2.png', (9, 9))
    (images / '3.jpg').write_bytes(b'no image')
    report = build_coco_index(path, images, out)
    index = AnnotationIndex.open(out)
    assert [index.image_id(i) for i in range(len(index))] == ['1', 'train/0', 'train/5', '\u00fc']
    assert [index.image_path(i) for i in range(len(index))] == [
        images / name for name in ('deep/er/1.jpg', 'train/0.png', 'train/5.jpg', decomposed)
    ]
    assert all(cv2.imread(str(index.image_path(i))) is not None for i in range(len(index)))
    assert report.counts['missing'] == report.counts['unreadable'] == 1


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-le'])
def test_encodings(tmp_path, encoding):
    path = write_json(tmp_path / 'a.json', ['person'], [['person']])
    path.write_bytes(path.read_text().encode(encoding))
    report = build_coco_index(path, tmp_path, tmp_path / 'coco.index', keep_missing=True)
    assert report.counts['objects'] == 1


def test_control_characters_are_not_printed(tmp_path, capsys):
    path = write_json(tmp_path / 'a.json', ['person', 'x\u202ey'], [['person', 'x\u202ey']])
    flags = ['--annotations', str(path), '--images', str(tmp_path), '--keep-missing', '--table']
    main([*flags, '--out', str(tmp_path / 'coco.index')])
    printed = capsys.readouterr().out
    assert 'no class of COCO (500): x\\u202ey' in printed and '\u202e' not in printed
    path = write_json(tmp_path / 'b.json', ['person', 'x\x1b[2Jy'], [['person']])
    with pytest.raises(InputError, match=r'categories\[1\] has name "x\\u001b\[2Jy"; expected a'):
        build_coco_index(path, tmp_path, tmp_path / 'coco.index', keep_missing=True)
