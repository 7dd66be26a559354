"""The report: a self-contained page, missing data, examples, errors, plots and steps."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from pfdet.evaluation.average_precision import average_precision, score_dict
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import ground_truth_of_index
from pfdet.openimages.index import AnnotationIndex
from pfdet.report.examples import error_examples, example_images
from pfdet.report.images import boxes_to_draw, crop, encode_image
from pfdet.report.plots import ap_against_frequency, loss_curves, map_over_epochs
from pfdet.report.run_page import Example, write_report
from pfdet.report.table1_steps import table1_steps

_SCORE = {
    'mAP': 0.512,
    'AP': {'/m/a': 0.25, '/m/b': 0.774, '/m/c': None},
    'name': {'/m/a': 'Apple <i>&$x_1$', '/m/b': 'Fruit'},
    'n_ground_truth': {'/m/a': 1200, '/m/b': 1500},
    'n_image': 160,
    'parents': ['/m/b'],
    'precision': {'/m/a': [1.0] * 30 + [0.0] * 71, '/m/b': [0.8] * 101},
}
_LOG = [
    {
        'iteration': 10 * k,
        'epoch': 0,
        'lr': 0.01,
        'main/loss': 2 / k,
        'main/loss_cls': 1 / k,
        'main/loss_odd': float('nan'),
        **({'validation/main/map': 0.1 * k} if k % 2 else {}),
    }
    for k in range(1, 200)
]


def _example():
    return Example(
        'image-1 <script>',
        np.random.default_rng(0).uniform(0, 255, (3, 90, 120)),
        np.array([[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.5]]),
        ['Apple', 'Fruit'],
        np.array([[0.1, 0.1, 0.5, 0.52], [0.6, 0.6, 0.9, 0.9], [0, 0, 1, 1]]),
        ['Apple', 'Fruit', 'Toy'],
        np.array([0.9, 0.8, 0.1]),
    )


class _Page(html.parser.HTMLParser):
    """Collects tags, references, ids and text, and checks that tags are nested correctly."""

    void = {'meta', 'image', 'use', 'rect', 'path', 'br', 'img', 'link', 'polyline'}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.references, self.ids, self.text = [], [], [], [], ''
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attrs:
            if name in ('href', 'src', 'xlink:href'):
                self.references.append(value)
            if name == 'id':
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def _write(path, **changes):
    arguments = dict(
        title='A <b>run',
        recipe={'name': 'mini', 'head': {'fc': [256, 256], 'psp': True}},
        log=_LOG,
        score=_SCORE,
        examples=[_example(), _example()],
    )
    arguments.update(changes)
    write_report(path, **arguments)
    text = path.read_text()
    page = _Page(text)
    assert page.open == []
    return text, page


def test_self_contained_and_escaped(tmp_path):
    text, page = _write(
        tmp_path / 'report.html',
        facts={'Untrained mAP': 0.0031},
        notes=['1 < 2'],
        command='mpiexec -n 2 python x && y',
    )
    assert page.references
    assert all(r.startswith(('data:image/jpeg;base64,', '#')) for r in page.references)
    assert {r[1:] for r in page.references if r[0] == '#'} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r'url\((?!#)|@import|<script|<link', text)
    for shown in (
        'A <b>run',
        '0.512',
        '0.774',
        '1,200',
        'head.fc',
        '256, 256',
        '0.0031',
        '1 < 2',
        'Apple <i>&$x_1$',
        'image-1 <script>',
        'loss_cls',
        'x && y',
        '2,700',
    ):
        assert shown in page.text, shown
    assert 'script' not in page.tags and 'i' in page.tags
    assert [p.name for p in tmp_path.iterdir()] == ['report.html']


@pytest.fixture(scope='module')
def full_page(tmp_path_factory):
    return _write(tmp_path_factory.mktemp('report') / 'report.html')[1]


@pytest.mark.parametrize(
    'changes, absent',
    [
        (dict(log=[]), 'Training'),
        (dict(log=[{'iteration': 1, 'main/loss': 2.0}]), 'Learning rate'),
        (dict(examples=[]), 'Example detections'),
        (dict(score={'mAP': None, 'AP': {}}), 'Average precision by class'),
        (dict(score={'mAP': 0.5, 'AP': {'/m/a': 0.5}}), 'Precision and recall'),
        (dict(recipe={}), 'Recipe'),
    ],
)
def test_sections_without_data_are_omitted(tmp_path, full_page, changes, absent):
    _, page = _write(tmp_path / 'report.html', **changes)
    assert absent not in page.text
    assert absent in full_page.text


def test_example_without_boxes(tmp_path):
    example = Example(
        'none',
        np.zeros((3, 40, 60), np.uint8),
        np.zeros((0, 4)),
        [],
        np.zeros((0, 4)),
        [],
        np.zeros(0),
    )
    _write(tmp_path / 'report.html', examples=[example])


def test_boxes_of_one_object_are_merged():
    e = _example()
    hues = {'Apple': 0, 'Fruit': 120, 'Toy': 240}
    annotated = boxes_to_draw(e.gt_bbox, e.gt_name, hues)
    assert [(b.names, b.correct) for b in annotated] == [(['Apple', 'Fruit'], True)]
    detected = boxes_to_draw(e.bbox, e.name, hues, e.score, 0.3, (e.gt_bbox, e.gt_name))
    # The Toy is below the threshold. No Fruit is annotated at the second box.
    assert [(b.names, b.correct, b.hue) for b in detected] == [
        (['Apple 0.90'], True, 0),
        (['Fruit 0.80'], False, 120),
    ]
    np.testing.assert_allclose(
        [detected[0].x, detected[0].y, detected[0].width, detected[0].height], [10, 10, 42, 40]
    )


def test_encoded_image_is_resized():
    url, width, height = encode_image(np.full((3, 500, 2000), 300.0), max_size=560)
    assert (width, height) == (560, 140) and url.startswith('data:image/jpeg;base64,')


def test_plots_use_the_colours_of_the_page():
    svg = loss_curves(_LOG)
    assert 'var(--c1)' in svg and 'var(--fg)' in svg
    assert not re.search(r'#0[1-4]0', svg)


@pytest.fixture(scope='module')
def detected(small_world):
    """The validation set, detections that find every other box, plus random ones, and the score."""
    index = AnnotationIndex.open(small_world / 'validation.index')
    truth = ground_truth_of_index(index)
    rng = np.random.default_rng(0)
    found = np.arange(0, len(truth.label), 2)
    n_wrong = 60
    corner = rng.uniform(0, 0.6, (n_wrong, 2))
    bbox = np.concatenate(
        (truth.bbox[found], np.hstack((corner, corner + rng.uniform(0.1, 0.4, (n_wrong, 2)))))
    )
    label = np.concatenate((truth.label[found], rng.integers(0, len(index.classes), n_wrong)))
    detections = Detections(
        truth.image_ids,
        np.concatenate((truth.image[found], rng.integers(0, len(index), n_wrong))).astype(np.int32),
        label.astype(np.int32),
        rng.uniform(0.05, 1, len(bbox)).astype(np.float32),
        bbox.astype(np.float32),
    )
    score = score_dict(
        average_precision(detections, truth, len(index.classes)), index.classes, index.hierarchy
    )
    return index, detections, score


def test_error_counts_agree_with_the_score(detected):
    index, detections, score = detected
    samples = error_examples(index, detections, score, n_class=5, n_crop=3, score_thresh=0)
    assert [s.mid for s in samples] == sorted(
        score['name'], key=lambda mid: (score['AP'][mid], index.classes.ids[mid])
    )
    for position, s in enumerate(samples):
        n_false_positive = score['n_detection'][s.mid] - score['n_true_positive'][s.mid]
        assert sum(s.reasons.values()) == n_false_positive
        assert s.n_found == s.n_found_at_thresh == score['n_true_positive'][s.mid]
        assert s.n_ground_truth == score['n_ground_truth'][s.mid]
        n_crop = (
            (min(3, n_false_positive), min(3, s.n_ground_truth - s.n_found))
            if position < 5
            else (0, 0)
        )
        assert (len(s.false_positives), len(s.missed)) == n_crop
    high_scores = error_examples(index, detections, score, n_class=0, score_thresh=0.5)
    assert 0 < sum(s.n_found_at_thresh for s in high_scores) < sum(s.n_found for s in high_scores)
    assert (
        0
        < sum(sum(s.reasons.values()) for s in high_scores)
        < sum(sum(s.reasons.values()) for s in samples)
    )


def test_report_with_all_sections(detected, tmp_path):
    index, detections, score = detected
    shown = example_images(index, detections, 4)
    assert [e.image_id for e in shown] == [
        index.image_id(i) for i in (0, len(index) // 3, 2 * (len(index) - 1) // 3, len(index) - 1)
    ]
    text, page = _write(
        tmp_path / 'report.html',
        score=score,
        examples=shown,
        errors=error_examples(index, detections, score),
        frequency={mid: k + 1 for k, mid in enumerate(score['name'])},
    )
    assert len(page.ids) == len(set(page.ids))
    assert all(r.startswith(('data:image/jpeg;base64,', '#')) for r in page.references)
    for text_part in (
        'Errors by class',
        'AP against class frequency',
        'training images',
        'Precision',
    ):
        assert text_part in page.text, text_part
    assert len(text) < 3e6


def test_ancestors_of_an_annotation_are_correct(detected):
    index, detections, _ = detected
    for e in example_images(index, detections):
        names = {name for name in (*e.gt_name, *e.expanded[1])}
        annotation = index.annotation(index.find(e.image_id))
        is_correct = (annotation.label @ index.hierarchy.closure).any(axis=0)
        assert names == {index.classes.names[c] for c in np.flatnonzero(is_correct)}


@pytest.mark.parametrize(
    'bbox', [(0.4, 0.3, 0.6, 0.45), (0, 0, 0.1, 0.1), (0.9, 0.8, 1, 1), (0, 0, 1, 1)]
)
def test_crop_draws_its_box_around_the_object(bbox):
    img = np.zeros((3, 200, 300))
    y_min, x_min, y_max, x_max = np.round(np.array(bbox) * [200, 300, 200, 300]).astype(int)
    img[:, y_min:y_max, x_min:x_max] = 255
    c = crop(img, np.array(bbox), title='', max_size=400)
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(c.url.partition(',')[2]))))[..., 0]
    assert picture.shape == (c.height, c.width)
    inside = np.zeros(picture.shape, bool)
    top, left = c.box.y * c.height / 100, c.box.x * c.width / 100
    inside[
        round(top) : round(top + c.box.height * c.height / 100),
        round(left) : round(left + c.box.width * c.width / 100),
    ] = True
    # The tolerance is for JPEG artefacts at the border.
    assert ((picture > 127) != inside).mean() < 0.02


def test_table1_steps():
    recipe = {
        'min_size': (640, 1056),
        'backbone': 'se_resnext101',
        'psp': False,
        'head_bn': True,
        'schedule': 'cosine',
        'fpn_scale': 4,
        'cooccurrence': True,
        'epochs': 12.0,
        'context': False,
        'anchor_ratios': (0.5, 1, 2),
    }
    steps = table1_steps(recipe)
    assert [s.enabled for s in steps] == [
        'yes',
        'yes',
        'BN in the head only',
        'yes',
        '',
        'yes',
        '',
        '',
        '',
    ]
    assert (steps[3].paper, steps[3].recipe) == ('63.4 (+3.0)', 'table1-cosine')
    last = {
        **recipe,
        'backbone': 'senet154',
        'psp': True,
        'fpn_scale': 5,
        'epochs': 16.0,
        'context': True,
        'anchor_ratios': (1 / 3, 0.5, 1, 2, 3),
    }
    assert all(s.enabled == 'yes' for s in table1_steps(last))
    assert table1_steps({'name': 'other'}) == []


def test_names_of_many_classes_are_omitted():
    images = {f'/m/{k}': 1000 - k for k in range(500)}
    aps = {mid: k / 500 for k, mid in enumerate(images)}
    svg = ap_against_frequency(images, {'one': aps, 'two': aps}, {}, 'salt')
    assert 'rank of the class' in svg and '/m/' not in svg and 'mean over 15 classes' in svg
    assert ap_against_frequency({}, {'one': aps}, {}, 'salt') is None


def test_curves_of_seeds_are_averaged():
    epoch = np.arange(1.0, 4)
    svg = map_over_epochs({'one': [(epoch, epoch / 10), (epoch, epoch / 5)], 'two': []}, 'salt')
    # Two thin curves, and their mean with three points.
    assert svg.count('stroke-opacity: 0.45') == 2 and svg.count('<use ') >= 3
    assert map_over_epochs({'two': []}, 'salt') is None
