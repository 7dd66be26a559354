"""Labels of YOLO and tasks of Label Studio."""

import io
import xml.etree.ElementTree
from urllib.parse import unquote

import numpy as np
import pytest
from exported_world import CLASSES, IDS, N_PREDICTED, load

from pfdet.evaluation.class_names import distinct_names


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
    assert content == {'path': str(index.images), 'names': dict(enumerate(distinct_names(CLASSES)))}


def test_label_studio(world, export):
    _, index, detections = world
    out = export('labelstudio', 'tasks.json', '--score-thresh', 0.25)
    tasks = load(out)
    assert [task['data']['image_id'] for task in tasks] == IDS[:N_PREDICTED]
    view = xml.etree.ElementTree.parse(out.with_suffix('.xml')).getroot()
    control, image = view.find('RectangleLabels'), view.find('Image')
    labels = [tag.get('value') for tag in control]
    assert labels == [*CLASSES.names[:2], 'Bat (/m/c)', 'Bat (/m/d)']
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
