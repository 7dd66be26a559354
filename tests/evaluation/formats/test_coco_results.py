"""COCO's results and annotations, compared with the index and scored by pycocotools."""

import contextlib
import io
import json

import numpy as np
import PIL.Image
import pytest
from exported_world import CLASSES, IDS, load, pixels

from pfdet.errors import InputError
from pfdet.evaluation.class_names import distinct_names
from pfdet.openimages.classes import Classes
from pfdet.openimages.coco_json import read_instances


def truth_of(index):
    """Per image: boxes in pixels, labels, crowds."""
    for i in range(len(index)):
        annotation = index.annotation(i)
        row, label = np.nonzero(annotation.label)
        yield (
            pixels(annotation.bbox[row], index.image_size(i)),
            label,
            annotation.flags[row] & 4 != 0,
        )


def test_coco_is_what_the_index_and_the_detections_say(world, export, tmp_path):
    _, index, detections = world
    truth = tmp_path / 'instances.json'
    results = load(export('coco', 'results.json', '--ground-truth', truth))
    truth = load(truth)
    assert [image['id'] for image in truth['images']] == list(range(1, len(IDS) + 1))
    for image in truth['images']:
        with PIL.Image.open(index.images / image['file_name']) as file:
            assert file.size == (image['width'], image['height'])
    assert truth['images'][4]['file_name'] == 'é 1/04.png'
    assert [c['name'] for c in truth['categories']] == distinct_names(index.classes)
    assert [c['mid'] for c in truth['categories']] == list(index.classes.mids)
    assert len(results) == len(detections)
    for row, k in zip(results, np.argsort(detections.image, kind='stable').tolist()):
        i = int(detections.image[k])
        y_min, x_min, y_max, x_max = pixels(detections.bbox[k], index.image_size(i))
        assert row['image_id'] == i + 1 and row['category_id'] == detections.label[k] + 1
        assert np.float32(row['score']) == detections.score[k]
        np.testing.assert_allclose(
            row['bbox'], [x_min, y_min, x_max - x_min, y_max - y_min], atol=1e-4
        )
    expected = [
        (i + 1, c + 1, int(crowd), x_min, y_min, x_max - x_min, y_max - y_min)
        for i, (boxes, labels, crowds) in enumerate(truth_of(index))
        for (y_min, x_min, y_max, x_max), c, crowd in zip(boxes, labels, crowds)
    ]
    rows = truth['annotations']
    np.testing.assert_allclose(
        [(a['image_id'], a['category_id'], a['iscrowd'], *a['bbox']) for a in rows],
        expected,
        atol=1e-4,
    )
    assert [a['id'] for a in rows] == list(range(1, len(expected) + 1))
    assert {a['iscrowd'] for a in rows} == {0, 1}


def scores(cocoeval, truth, results, **params):
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = cocoeval.COCOeval(truth, results, 'bbox')
        for name, value in params.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize('source', ['d.parquet', 'd.csv'])
def test_coco_scores_under_pycocotools(world, export, tmp_path, source):
    """Equal to those of boxes built by hand, and of ChainerCV's own conversion of arrays."""
    coco = pytest.importorskip('pycocotools.coco')
    cocoeval = pytest.importorskip('pycocotools.cocoeval')
    from chainercv.evaluations import eval_detection_coco

    _, index, detections = world
    path = tmp_path / 'instances.json'
    out = export('coco', 'r.json', '--ground-truth', path, detections=source)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(path))
        exported = scores(cocoeval, truth, truth.loadRes(str(out)))

        hand, number = coco.COCO(), 0
        annotations = []
        for i, (boxes, labels, crowds) in enumerate(truth_of(index)):
            for (y_min, x_min, y_max, x_max), c, crowd in zip(boxes, labels, crowds):
                number += 1
                height, width = y_max - y_min, x_max - x_min
                annotations.append(
                    dict(
                        id=number,
                        image_id=i,
                        category_id=int(c),
                        bbox=[x_min, y_min, width, height],
                    )
                    | dict(area=height * width, iscrowd=int(crowd))
                )
        hand.dataset = {
            'info': {},
            'images': [{'id': i} for i in range(len(index))],
            'annotations': annotations,
            'categories': [{'id': c} for c in range(4)],
        }
        hand.createIndex()
        rows = []
        for i, c, score, box in zip(
            *(getattr(detections, n) for n in ('image', 'label', 'score', 'bbox'))
        ):
            y_min, x_min, y_max, x_max = pixels(box, index.image_size(int(i)))
            rows.append([int(i), x_min, y_min, x_max - x_min, y_max - y_min, float(score), int(c)])
        by_hand = scores(cocoeval, hand, hand.loadRes(np.array(rows)))
    np.testing.assert_allclose(exported.stats, by_hand.stats, atol=1e-9)
    np.testing.assert_allclose(exported.eval['precision'], by_hand.eval['precision'], atol=1e-9)
    # Neither everything nor nothing is found.
    assert 0.1 < exported.stats[0] < 0.9 and exported.stats[1] > exported.stats[0]

    predicted = [np.flatnonzero(detections.image == i) for i in range(len(index))]
    truths = list(truth_of(index))
    result = eval_detection_coco(
        [
            pixels(detections.bbox[rows], index.image_size(i)).astype(np.float32)
            for i, rows in enumerate(predicted)
        ],
        [detections.label[rows] for rows in predicted],
        [detections.score[rows] for rows in predicted],
        [boxes.astype(np.float32) for boxes, _, _ in truths],
        [label.astype(np.int32) for _, label, _ in truths],
        gt_crowdeds=[crowd for _, _, crowd in truths],
    )
    for k, name in enumerate(['0.50:0.95', '0.50', '0.75']):
        mean = result[f'map/iou={name}/area=all/max_dets=100']
        assert exported.stats[k] == pytest.approx(mean, abs=1e-6)


def test_classes_of_coco_are_expanded(world, export, tmp_path):
    truth = tmp_path / 'instances.json'
    export('coco', 'r.json', '--ground-truth', truth, index='tree')
    boxes = {}
    for row in load(truth)['annotations']:
        boxes.setdefault((row['image_id'], *row['bbox']), set()).add(row['category_id'])
    assert {3, 1} in boxes.values() and {3} not in boxes.values() and {4} in boxes.values()


def test_own_annotations_can_be_read_again(world, export, tmp_path):
    """The reader of COCO's annotations finds the objects of the index."""
    _, index, _ = world
    export('coco', 'r.json', '--ground-truth', tmp_path / 'instances.json')
    read = read_instances(tmp_path / 'instances.json')
    assert list(read.names) == distinct_names(index.classes)
    names = [index.image_path(i).relative_to(index.images) for i in range(len(index))]
    order = {str(name.with_suffix('')): i for i, name in enumerate(names)}
    images = [order[image_id] for image_id in read.image_ids]
    assert sorted(images) == list(range(len(index)))
    assert [tuple(size) for size in read.size] == [index.image_size(i) for i in images]
    rows = [
        (i, int(c), bool(crowd), *box)
        for i, (boxes, labels, crowds) in enumerate(truth_of(index))
        for box, c, crowd in zip(boxes, labels, crowds)
    ]
    found = [
        (images[i], c, bool(flags), *box)
        for i, c, flags, box in zip(read.image, read.category, read.flags, read.bbox)
    ]
    np.testing.assert_allclose(sorted(found), sorted(rows), atol=2e-4)


@pytest.fixture
def foreign(world, export, tmp_path):
    """The annotations as somebody else has written them: with other ids, in another order."""
    export('coco', 'r.json', '--ground-truth', tmp_path / 'instances.json')
    content = load(tmp_path / 'instances.json')
    images = {image['id']: 1000 - 7 * image['id'] for image in content['images']}
    categories = {1: 90, 2: 3, 3: 12, 4: 7}
    names = world[1].classes.names
    for image in content['images']:
        image['id'] = images[image['id']]
    for category in content['categories']:
        category['name'] = names[category['id'] - 1]
        category['id'] = categories[category['id']]
    for row in content['annotations']:
        row['image_id'] = images[row['image_id']]
        row['category_id'] = categories[row['category_id']]
    content['images'].reverse()
    content['categories'].reverse()
    return content


def test_ids_of_given_annotations(world, export, tmp_path, foreign, monkeypatch):
    classes = Classes(CLASSES.mids, (*CLASSES.names[:3], 'Cat'))
    monkeypatch.setattr('pfdet.openimages.index.Classes', lambda *_: classes)
    foreign['categories'][0]['name'] = 'Cat'
    path = tmp_path / 'given.json'
    path.write_text(json.dumps(foreign))
    plain = load(export('coco', 'plain.json'))
    found = load(export('coco', 'found.json', '--annotations', path))
    assert len(found) == len(plain) == len(world[2])
    for row, other in zip(found, plain):
        assert row.pop('image_id') == 1000 - 7 * other.pop('image_id')
        assert row.pop('category_id') == {1: 90, 2: 3, 3: 12, 4: 7}[other.pop('category_id')]
        assert row == other
    # Without folders, images are found by their ids.
    for image in foreign['images']:
        image['file_name'] = image['file_name'].rpartition('/')[2]
    path.write_text(json.dumps(foreign))
    out = export('coco', 'flat.json', '--annotations', path)
    assert out.read_bytes() == (tmp_path / 'found.json').read_bytes()
    coco = pytest.importorskip('pycocotools.coco')
    cocoeval = pytest.importorskip('pycocotools.cocoeval')
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(path))
        given = scores(cocoeval, truth, truth.loadRes(str(out)))
        own = coco.COCO(str(tmp_path / 'instances.json'))
        expected = scores(cocoeval, own, own.loadRes(str(tmp_path / 'plain.json')))
    np.testing.assert_allclose(given.stats, expected.stats, atol=1e-9)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda c: c['categories'].pop(), "given.json: no category 'Apple', of which"),
        (lambda c: c['images'].pop(), "given.json: no image with the file_name '00.jpg'"),
        (lambda c: c['images'][0].pop('id'), r"given.json: images\[0\] has no 'id'"),
        (lambda c: c['categories'][0].update(name='Apple'), 'given.json: categories.*unique name'),
        (lambda c: c.pop('images'), "given.json: no list 'images'"),
    ],
)
def test_annotations_that_lack_something(export, tmp_path, foreign, change, message):
    foreign['categories'][0]['name'] = 'Cat'
    change(foreign)
    (tmp_path / 'given.json').write_text(json.dumps(foreign))
    with pytest.raises(InputError, match=message) as error:
        export('coco', 'x.json', '--annotations', tmp_path / 'given.json')
    assert '\n' not in str(error.value) and not (tmp_path / 'x.json').exists()
