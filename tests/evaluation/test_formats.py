"""Detections for other programs, compared with what these programs make of them."""

import contextlib
import io
import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import PIL.Image
import pytest

from pfdet.cli import export_detections
from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections, write_detections
from pfdet.evaluation.formats import predicted_images
from pfdet.evaluation.formats.label_studio import distinct_names
from pfdet.openimages.build_index import build_index
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex

ROOT = Path(__file__).resolve().parents[2]
CLASSES = Classes(
    ('/m/a', '/m/b', '/m/c', '/m/d'), ('Apple', 'Éclair "à la" & co: #1', 'Bat', 'Bat')
)
# Sorted. The last two have no detections, and the last one is not predicted.
IDS = [*(f'{k:02}' for k in range(8)), 'a.b', 'x c', 'é y', 'é z']
N_PREDICTED = 11


def pixels(bbox, size):
    return bbox.astype(np.float64) * (*size, *size)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """Images in folders, an index with flat classes, and noisy detections of its objects."""
    out = tmp_path_factory.mktemp('formats')
    rng = np.random.default_rng(0)
    lines, found = ['ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf'], []
    for k, image_id in enumerate(IDS):
        folder = out / 'images' / ('', 'é 1', 'b/c')[k % 3]
        folder.mkdir(parents=True, exist_ok=True)
        size = tuple(rng.integers(100, 300, 2).tolist())
        suffix = '.png' if k == 4 else '.jpg'
        PIL.Image.new('RGB', size[::-1]).save(folder / (image_id + suffix))
        for _ in range(rng.integers(1, 7)):
            corner, extent = rng.uniform(0, 0.6, 2), rng.uniform(0.05, 0.39, 2)
            box = np.concatenate([corner, corner + extent])
            label, crowd = rng.integers(4), int(rng.random() < 0.1)
            y_min, x_min, y_max, x_max = box.round(6)
            lines.append(
                f'{image_id},{CLASSES.mids[label]},{x_min},{x_max},{y_min},{y_max},{crowd}'
            )
            for _ in range(rng.integers(0, 4) if k < N_PREDICTED - 1 else 0):
                noisy = np.clip(box + rng.normal(0, 0.02, 4), 0, 1)
                guess = label if rng.random() < 0.8 else rng.integers(4)
                found.append((k, guess, rng.random(), noisy))
    (out / 'boxes.csv').write_text('\n'.join([*lines, '']))
    flat = Hierarchy(np.zeros((4, 4), bool))
    for name, hierarchy in ('flat', flat), ('tree', tree()):
        with contextlib.redirect_stdout(io.StringIO()):
            build_index(
                out / 'boxes.csv', None, CLASSES, hierarchy, out / 'images', out / f'{name}.index'
            )
    image, label, score, bbox = zip(*found)
    detections = Detections(
        IDS[:N_PREDICTED],
        np.array(image, np.int32),
        np.array(label, np.int32),
        np.array(score, np.float32),
        np.array(bbox, np.float32),
    )
    write_detections(out / 'd.parquet', detections, CLASSES)
    # CSV is never sorted; here its rows are not, either.
    rows = np.random.default_rng(1).permutation(len(image))
    write_detections(out / 'd.csv', detections.take(rows), CLASSES)
    return out, AnnotationIndex.open(out / 'flat.index'), detections


def tree():
    """Bats are Apples, of all things."""
    ancestors = np.zeros((4, 4), bool)
    ancestors[2, 0] = True
    return Hierarchy(ancestors)


@pytest.fixture
def export(world, tmp_path, monkeypatch):
    def run(form, name, *flags, detections='d.parquet', index='flat'):
        out = tmp_path / name
        arguments = ['--detections', world[0] / detections, '--index', world[0] / f'{index}.index']
        arguments += ['--format', form, '--out', out, *flags]
        monkeypatch.setattr(sys, 'argv', ['pfdet export-detections', *map(str, arguments)])
        export_detections.main()
        # No lock, no temporary file.
        assert not list(tmp_path.glob('.*')) and not list(out.parent.glob('.*'))
        return out

    return run


def load(path):
    return json.loads(path.read_text(encoding='utf-8'))


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
    assert [c['name'] for c in truth['categories']] == list(CLASSES.names)
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


@pytest.mark.parametrize('source', ['d.parquet', 'd.csv'])
@pytest.mark.parametrize('confidence', [True, False])
def test_yolo(world, export, source, confidence):
    _, index, detections = world
    out = export('yolo', 'out', *([] if confidence else ['--no-confidence']), detections=source)
    files = {path.relative_to(out / 'labels') for path in out.rglob('*.txt')}
    expected = {
        index.image_path(i).relative_to(index.images).with_suffix('.txt')
        for i in range(N_PREDICTED)
    }
    assert files == expected and {path.name for path in out.iterdir()} == {'labels', 'data.yaml'}
    assert (out / 'labels' / 'é 1' / 'é y.txt').read_bytes() == b''
    n = 0
    for i in range(N_PREDICTED - 1):
        name = index.image_path(i).relative_to(index.images).with_suffix('.txt')
        text = (out / 'labels' / name).read_text()
        if not text:
            assert i not in detections.image
            continue
        rows = np.loadtxt(io.StringIO(text), ndmin=2)
        n += len(rows)
        own = np.flatnonzero(detections.image == i)
        bbox = detections.bbox[own].astype(np.float64)
        center, extent = (bbox[:, 2:] + bbox[:, :2]) / 2, bbox[:, 2:] - bbox[:, :2]
        columns = [detections.label[own], center[:, 1], center[:, 0], extent[:, 1], extent[:, 0]]
        columns += [detections.score[own]] if confidence else []
        known = np.stack(columns, axis=1)
        # The order is that of the file.
        order = slice(None) if source == 'd.parquet' else np.lexsort(known.T)
        mine = slice(None) if source == 'd.parquet' else np.lexsort(rows.T)
        np.testing.assert_allclose(rows[mine], known[order], atol=1e-5)
    assert n == len(detections)


def test_names_of_yolo(world, export):
    _, index, _ = world
    text = (export('yolo', 'out') / 'data.yaml').read_text(encoding='utf-8')
    assert text.splitlines()[1:4] == ['names:', '  0: "Apple"', '  1: "Éclair \\"à la\\" & co: #1"']
    yaml = pytest.importorskip('yaml')
    content = yaml.safe_load(text)
    assert content == {'path': str(index.images), 'names': dict(enumerate(CLASSES.names))}


def test_label_studio(world, export):
    _, index, detections = world
    out = export('labelstudio', 'tasks.json', '--score-thresh', 0.25)
    tasks = load(out)
    assert [task['data']['image_id'] for task in tasks] == IDS[:N_PREDICTED]
    view = xml.etree.ElementTree.parse(out.with_suffix('.xml')).getroot()
    control, image = view.find('RectangleLabels'), view.find('Image')
    labels = [tag.get('value') for tag in control]
    assert labels == [*CLASSES.names[:2], 'Bat (/m/c)', 'Bat (/m/d)'] == distinct_names(CLASSES)
    assert control.get('toName') == image.get('name')
    key, ids, n = image.get('value').removeprefix('$'), set(), 0
    for i, task in enumerate(tasks):
        name = unquote(task['data'][key].removeprefix('/data/local-files/?d='))
        assert index.images / name == index.image_path(i)
        [prediction] = task['predictions']
        assert prediction['model_version'] == 'd'
        rows = np.flatnonzero((detections.image == i) & (detections.score >= 0.25))
        assert len(prediction['result']) == len(rows)
        n += len(rows)
        found = detections.score[rows]
        assert prediction['score'] == pytest.approx(found.mean() if len(rows) else 0, abs=1e-5)
        for region, k in zip(prediction['result'], rows):
            ids.add(region['id'])
            assert region['type'] == 'rectanglelabels'
            assert region['from_name'] == control.get('name')
            assert region['to_name'] == image.get('name')
            assert (region['original_height'], region['original_width']) == index.image_size(i)
            assert region['score'] == pytest.approx(detections.score[k], abs=1e-6)
            value = region['value']
            assert value['rectanglelabels'] == [labels[detections.label[k]]]
            x, y, width, height = (value[name] / 100 for name in ('x', 'y', 'width', 'height'))
            np.testing.assert_allclose(
                [y, x, y + height, x + width], detections.bbox[k], rtol=0, atol=2e-6
            )
    assert len(ids) == n and 0 < n < len(detections)
    out = export(
        *('labelstudio', 'other.json', '--model-version', 'run 3'),
        *('--image-prefix', 'https://host/', '--score-thresh', 1),
    )
    assert load(out)[10] == {
        'data': {'image': 'https://host/%C3%A9%201/%C3%A9%20y.jpg', 'image_id': 'é y'},
        'predictions': [{'model_version': 'run 3', 'score': 0.0, 'result': []}],
    }


def test_a_block_ends_anywhere(world, export, monkeypatch):
    """Files that are larger than memory are read in blocks."""
    whole = [
        export(*given).read_bytes() for given in (('coco', 'a.json'), ('labelstudio', 'b.json'))
    ]
    monkeypatch.setattr(predicted_images, '_ROWS_AT_ONCE', 3)
    assert export('coco', 'c.json').read_bytes() == whole[0]
    assert export('labelstudio', 'd.json').read_bytes() == whole[1]


@pytest.mark.parametrize(
    'form, name, flags, message',
    [
        ('coco', 'results.txt', [], '--out .*results.txt: expected a name ending in .json'),
        ('labelstudio', 'tasks', [], '--out .*tasks: expected a name ending in .json'),
        ('coco', 'r.json', ['--ground-truth', 'a.txt'], '--ground-truth a.txt: expected a name'),
        ('yolo', 'out', ['--ground-truth', 'a.json'], '--ground-truth: for --format coco only'),
        ('coco', 'r.json', ['--no-confidence'], '--confidence: for --format yolo only'),
        ('coco', 'r.json', ['--model-version', 'x'], '--model-version: for --format labelstudio'),
        ('yolo', 'out', ['--image-prefix', 'x'], '--image-prefix: for --format labelstudio only'),
    ],
)
def test_flags_that_do_not_fit(export, tmp_path, form, name, flags, message):
    with pytest.raises(InputError, match=message):
        export(form, name, *flags)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'form, name', [('coco', 'r.json'), ('yolo', 'r'), ('labelstudio', 'r.json')]
)
def test_an_image_that_the_index_lacks(world, tmp_path, monkeypatch, form, name):
    detections = world[2]
    other = Detections(
        [*detections.image_ids[:-1], 'zz'],
        *(getattr(detections, n) for n in ('image', 'label', 'score', 'bbox')),
    )
    write_detections(tmp_path / 'other.parquet', other, CLASSES)
    arguments = ['--detections', tmp_path / 'other.parquet', '--index', world[0] / 'flat.index']
    arguments += ['--format', form, '--out', tmp_path / name]
    monkeypatch.setattr(sys, 'argv', ['pfdet export-detections', *map(str, arguments)])
    with pytest.raises(InputError, match=r"other.parquet: image 'zz' is not one of the 12 images"):
        export_detections.main()
    assert {p.name for p in tmp_path.rglob('*')} <= {'other.parquet', 'r'}


def test_images_without_a_size(world, tmp_path, monkeypatch):
    with contextlib.redirect_stdout(io.StringIO()):
        build_index(
            world[0] / 'boxes.csv',
            *(None, CLASSES, tree(), tmp_path, tmp_path / 'x.index'),
            keep_missing=True,
        )
    for form, name in ('coco', 'r.json'), ('labelstudio', 'r.json'), ('yolo', 'out'):
        arguments = ['--detections', world[0] / 'd.parquet', '--index', tmp_path / 'x.index']
        arguments += ['--format', form, '--out', tmp_path / name]
        monkeypatch.setattr(sys, 'argv', ['pfdet export-detections', *map(str, arguments)])
        if form == 'yolo':
            # Its coordinates are relative.
            export_detections.main()
            assert (tmp_path / 'out' / 'labels' / '00.txt').exists()
            continue
        with pytest.raises(InputError, match="x.index: no size of image '0.', which had no file"):
            export_detections.main()
        assert not (tmp_path / name).exists()


def test_labels_are_not_mixed(export, tmp_path):
    """Labels of an earlier run would stay where the later one has no image."""
    out = export('yolo', 'out')
    before = sorted(path.read_bytes() for path in out.rglob('*.txt'))
    with pytest.raises(InputError, match='labels: is not empty; expected a new directory'):
        export('yolo', 'out', '--score-thresh', 0.5)
    assert sorted(path.read_bytes() for path in out.rglob('*.txt')) == before
    (tmp_path / 'file').write_text('x')
    with pytest.raises(InputError, match='file: cannot be written'):
        export('yolo', 'file')


def test_script(world, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / 'evaluate' / 'export_detections.py', '--format', 'coco']
        + ['--detections', world[0] / 'd.parquet', '--index', world[0] / 'flat.index']
        + ['--out', tmp_path / 'r.json'],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=600,
        env={'PYTHONPATH': str(ROOT), 'PATH': ''},
    )
    n = len(world[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{tmp_path / "r.json"}: {n} detections in 11 of 12 images\n'
