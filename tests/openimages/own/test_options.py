"""What is verified, which classes and images an index has, and what flags of objects become."""

import json
import shutil

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.box_flags import GROUP_OF, OCCLUDED, TRUNCATED
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.own.command import main

# Two images of 40 x 20 pixels (width x height).
DATA = [
    ('a', 40, 20, [('cat', 4, 2, 20, 10), ('dog', 0, 0, 40, 20)]),
    ('b', 40, 20, [('dog', 10, 5, 30, 15)]),
]
NAMES = ('dog', 'cat', 'fox')


@pytest.fixture
def images(tmp_path, own):
    return own.write_images(
        tmp_path / 'images', [(name, w, h, []) for name, w, h, _ in [*DATA, ('c', 30, 30, [])]]
    )


@pytest.fixture
def build(tmp_path, images, own):
    """Build the index of DATA from COCO, with flags."""

    def build(*flags, data=DATA, names=NAMES):
        path = own.write_coco(tmp_path, data, names)
        return run('coco', path, tmp_path, '--images', images, *flags)

    return build


def run(kind, annotations, tmp_path, *flags):
    out = tmp_path / f'{kind}.index'
    main(['--format', kind, '--annotations', str(annotations), '--out', str(out), *map(str, flags)])
    return AnnotationIndex.open(out)


def verified(index):
    """By image: the names of the classes that are verified as present and as absent."""
    found = {}
    for i in range(len(index)):
        one = index.annotation(i)
        found[index.image_id(i)] = tuple(
            {index.classes.names[c] for c in np.flatnonzero(values)}
            for values in (one.positive, one.negative)
        )
    return found


def test_all_classes_are_verified_unless_told_otherwise(build, tmp_path):
    assert verified(build()) == {'a': ({'cat', 'dog'}, {'fox'}), 'b': ({'dog'}, {'cat', 'fox'})}
    assert verified(build('--no-negatives')) == {
        'a': ({'cat', 'dog'}, set()),
        'b': ({'dog'}, set()),
    }
    labels = tmp_path / 'labels.csv'
    labels.write_text(
        'ImageID,LabelName,Confidence\nb,fox,0\nb,cat,1\nelsewhere,cat,0\na,dog,0\nb,bear,1\n'
    )
    # The box of a dog outweighs the label that there is none, as in Open Images.
    assert verified(build('--labels', labels)) == {
        'a': ({'cat', 'dog'}, set()),
        'b': ({'cat', 'dog'}, {'fox'}),
    }
    labels.write_text('ImageID,LabelName,Confidence\nelsewhere,cat,0\n')
    with pytest.raises(InputError, match=r'labels\.csv: none of its images .* such as .a.$'):
        build('--labels', labels)


def test_classes_are_in_the_order_of_the_category_ids(build):
    index = build()
    assert index.classes.names == index.classes.mids == NAMES
    assert index.annotated.tolist() == [0, 1, 2]


def test_classes_are_chosen_and_ordered(build, tmp_path, capsys):
    path = tmp_path / 'classes.txt'
    path.write_text('fox\ncat\n')
    index = build('--classes', path)
    printed = capsys.readouterr().out
    assert 'annotated classes that are not among these, 2 boxes, skipped: dog (2)' in printed
    assert 'classes without a box: 1: fox' in printed
    assert index.classes.names == ('fox', 'cat')
    assert verified(index) == {'a': ({'cat'}, {'fox'}), 'b': (set(), {'cat', 'fox'})}
    # By MID and name, and the ids of a label space that has MIDs.
    path.write_text('/m/0bt9lr,dog\n/m/01yrx,cat\n')
    index = build('--classes', path)
    assert index.classes.mids == ('/m/0bt9lr', '/m/01yrx')
    assert verified(index) == {'a': ({'cat', 'dog'}, set()), 'b': ({'dog'}, {'cat'})}
    path.write_text('/m/1,dog\n/m/2,dog\n')
    with pytest.raises(
        InputError, match='class dog is annotated by a name of two classes, /m/1 an'
    ):
        build('--classes', path)
    assert build('--classes', path, '--rename', 'dog=/m/2').columns['label'].tolist() == [1, 1]
    path.write_text('wolf\nbear\n')
    with pytest.raises(InputError, match='none of its 3 classes, such as dog, is among the 2'):
        build('--classes', path)


def test_classes_like_those_of_another_index(build, tmp_path):
    first = build()
    shutil.copy(first.path, tmp_path / 'first.index')
    # Fewer classes, in another order.
    index = build('--like', tmp_path / 'first.index', names=('cat', 'dog'))
    assert index.classes == first.classes
    assert index.checksums == first.checksums


def test_names_are_merged(build):
    index = build('--rename', 'dog=pet', 'cat=pet')
    assert index.classes.names == ('pet', 'fox')
    assert verified(index) == {'a': ({'pet'}, {'fox'}), 'b': ({'pet'}, {'fox'})}
    for texts, message in (
        (['dgo=pet'], '--rename dgo: no such class in .*; expected one of dog, cat, fox'),
        (['dog'], "--rename 'dog': expected OLD=NEW"),
        (['dog=a', 'dog=b'], 'dog is given twice'),
    ):
        with pytest.raises(InputError, match=message):
            build('--rename', *texts)


def test_a_hierarchy_of_names(build, tmp_path):
    path = tmp_path / 'hierarchy.json'
    below = [{'LabelName': 'dog', 'Subcategory': [{'LabelName': 'fox'}]}, {'LabelName': 'cat'}]
    path.write_text(json.dumps({'LabelName': 'everything', 'Subcategory': below}))
    index = build('--hierarchy', path)
    assert np.argwhere(index.hierarchy.ancestors).tolist() == [[2, 0]]
    # A dog may be a fox, so no fox is absent.
    assert verified(index) == {'a': ({'cat', 'dog'}, set()), 'b': ({'dog'}, {'cat'})}


def test_images_of_a_list(build, tmp_path, capsys):
    path = tmp_path / 'train.txt'
    path.write_text('b\nnot-there\n')
    index = build('--ids', path)
    assert 'images that are not in the lists, left out: 1' in capsys.readouterr().out
    assert [index.image_id(i) for i in range(len(index))] == ['b']
    np.testing.assert_array_equal(
        index.annotation(0).bbox, np.array([[0.25, 0.25, 0.75, 0.75]], np.float32)
    )
    path.write_text('not-there\n')
    with pytest.raises(
        InputError, match=r'train\.txt: none of its images .*; expected ids such as'
    ):
        build('--ids', path)


def test_images_without_a_file(build, images, capsys):
    (images / 'a.jpg').unlink()
    assert len(build()) == 1
    assert 'images without a file, skipped: 1 (a)' in capsys.readouterr().out
    index = build('--keep-missing')
    assert [index.image_id(i) for i in range(len(index))] == ['a', 'b']
    assert len(index.annotation(0).bbox) == 2
    (images / 'b.jpg').write_bytes(b'no image')
    with pytest.raises(InputError, match='none of the 2 images in .* was found'):
        build()


@pytest.mark.parametrize(
    'box, accepted',
    [
        # Less than the image away: clipped. Else it is no box of this image.
        ((-5, 2, 20, 10), True),
        ((4, 2, 20, 25), True),
        ((40, 2, 50, 10), False),
        ((4, -9, 20, 0), False),
        ((4, 2, 20, 4000), False),
    ],
)
def test_boxes_that_leave_the_image(build, box, accepted, capsys):
    data = [DATA[1], ('a', 40, 20, [('cat', 1, 1, 5, 5), ('dog', *box)])]
    if accepted:
        index = build(data=data)
        assert 'clipped: 1' in capsys.readouterr().out and len(index.annotation(0).bbox) == 2
        return
    with pytest.raises(
        InputError, match=r'instances\.json: annotations\[2\]: the box .* 40 x 20 pixels'
    ):
        build(data=data)


@pytest.fixture
def voc(tmp_path, images, own):
    """Build the index of the second box of an image with attributes."""

    def build(*flags, name='dog', **attributes):
        folder = tmp_path / 'Annotations'
        folder.mkdir(exist_ok=True)
        (folder / 'a.xml').write_text(own.voc_text(40, 20, [(name, 4, 2, 20, 10)], **attributes))
        (folder / 'b.xml').write_text(own.voc_text(40, 20, [('cat', 4, 2, 20, 10)]))
        return run('voc', folder, tmp_path, '--images', images, *flags)

    return build


def test_flags_of_voc(voc):
    assert voc().annotation(0).flags.tolist() == [0]
    both = voc(truncated=1, occluded='1').annotation(0).flags.tolist()
    assert both == [TRUNCATED | OCCLUDED]
    assert voc(truncated='Unspecified', occluded='').annotation(0).flags.tolist() == [0]


def test_difficult_objects(voc, capsys):
    index = voc(difficult=1)
    assert index.annotation(0).flags.tolist() == [GROUP_OF]
    assert 'group-of: 1' in (printed := capsys.readouterr().out)
    assert 'difficult objects: 1' in printed
    everything = {'a': ({'dog'}, {'cat'}), 'b': ({'cat'}, {'dog'})}
    assert verified(index) == everything
    kept = voc('--difficult', 'keep', difficult=1)
    assert kept.annotation(0).flags.tolist() == [0] and verified(kept) == everything
    skipped = voc('--difficult', 'skip', difficult=1)
    assert len(skipped.annotation(0).bbox) == 0
    # There is a dog, which is neither to be found nor absent.
    assert verified(skipped) == {'a': (set(), {'cat'}), 'b': ({'cat'}, {'dog'})}
    # Two of one class, of which one is difficult.
    both = voc('--difficult', 'skip', difficult=1, name='cat')
    assert verified(both) == {'a': (set(), set()), 'b': ({'cat'}, set())}


def test_coordinates_of_voc(voc):
    """(4, 2) to (20, 10) are edges; the XML has 5, 3, 20 and 10."""
    np.testing.assert_array_equal(voc().annotation(0).bbox, np.float32([[0.1, 0.1, 0.5, 0.5]]))
    np.testing.assert_array_equal(
        voc('--coordinates', 'edges').annotation(0).bbox, np.float32([[0.15, 0.125, 0.5, 0.5]])
    )


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--format', 'coco', '--split', 'val'], '--split: needs --format yolo, but it is coco'),
        (['--format', 'yolo', '--difficult', 'keep'], '--difficult: needs --format voc'),
        (['--format', 'coco', '--coordinates', 'voc'], '--coordinates: needs --format voc'),
        (['--format', 'coco'], '--images: missing'),
        (
            ['--format', 'coco', '--like', 'a', '--classes', 'b'],
            '--like and --classes: expected one',
        ),
        (['--format', 'coco', '--like', 'a', '--hierarchy', 'b'], '--like and --hierarchy'),
        (['--format', 'coco', '--labels', 'a', '--no-negatives'], '--labels and --no-negatives'),
        (['--format', 'yolo', '--split', 'a', '--images', 'b'], '--split and --images'),
        (['--format', 'cocoa'], '--format cocoa: did you mean coco'),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        main(['--annotations', 'x', '--out', str(tmp_path / 'x.index'), *flags])


def test_coco_without_classes_and_with_too_many(build):
    data = [(name, w, h, []) for name, w, h, _ in DATA]
    with pytest.raises(InputError, match='0 classes; expected 1 to 32767'):
        build(data=data, names=())
    with pytest.raises(InputError, match='40000 classes; expected 1 to 32767'):
        build(data=data, names=[f'class {k}' for k in range(40_000)])
    # Images without any object are a data set, too.
    assert verified(build(data=data)) == {name: (set(), set(NAMES)) for name in ('a', 'b')}


def test_ids_of_categories(tmp_path, images):
    """Numbers by value, then texts; messages have the position in the file."""
    path = tmp_path / 'a.json'
    content = {
        'images': [{'id': 0, 'file_name': 'a.jpg', 'width': 40, 'height': 20}],
        'categories': [{'id': i, 'name': f'class {i}'} for i in ('b', 10, 'a', 9)],
        'annotations': [{'image_id': 0, 'category_id': 'b', 'bbox': [0, 0, 20, 10]}],
    }
    path.write_text(json.dumps(content))
    index = run('coco', path, tmp_path, '--images', images)
    assert index.classes.names == ('class 9', 'class 10', 'class a', 'class b')
    assert index.columns['label'].tolist() == [3]
    content['categories'][2]['name'] = 'class b'
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r'categories\[2\] has the name "class b" of categories\[0\]'
    ):
        run('coco', path, tmp_path, '--images', images)
