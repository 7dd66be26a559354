"""The report is one file that asks for nothing, and copes with what a run may lack."""

import html.parser
import re

import numpy as np
import pytest

from pfdet.evaluation.figures import loss_curves
from pfdet.evaluation.photographs import boxes_to_draw, photograph
from pfdet.evaluation.report import Example, write_report

_SCORE = {
    'mAP': .512, 'AP': {'/m/a': .25, '/m/b': .774, '/m/c': None},
    'name': {'/m/a': 'Apple <i>&$x_1$', '/m/b': 'Fruit'},
    'n_ground_truth': {'/m/a': 1200, '/m/b': 1500}, 'n_image': 160, 'parents': ['/m/b'],
    'precision': {'/m/a': [1.] * 30 + [0.] * 71, '/m/b': [.8] * 101}}
_LOG = [
    {'iteration': 10 * k, 'epoch': 0, 'lr': .01, 'main/loss': 2 / k, 'main/loss_cls': 1 / k,
     'main/loss_odd': float('nan'), **({'validation/main/map': .1 * k} if k % 2 else {})}
    for k in range(1, 200)]


def _example():
    return Example(
        'image-1 <script>', np.random.default_rng(0).uniform(0, 255, (3, 90, 120)),
        np.array([[.1, .1, .5, .5], [.1, .1, .5, .5]]), ['Apple', 'Fruit'],
        np.array([[.1, .1, .5, .52], [.6, .6, .9, .9], [0, 0, 1, 1]]), ['Apple', 'Fruit', 'Toy'],
        np.array([.9, .8, .1]))


class _Page(html.parser.HTMLParser):
    """Tags, the references in them, and whether every tag is closed in order."""

    void = {'meta', 'image', 'use', 'rect', 'path', 'br', 'img', 'link'}

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
        title='A <b>run', recipe={'name': 'mini', 'head': {'fc': [256, 256], 'psp': True}},
        log=_LOG, score=_SCORE, examples=[_example(), _example()])
    arguments.update(changes)
    write_report(path, **arguments)
    text = path.read_text()
    page = _Page(text)
    assert page.open == []
    return text, page


def test_self_contained_and_escaped(tmp_path):
    text, page = _write(
        tmp_path / 'report.html', facts={'Untrained mAP': .0031}, notes=['1 < 2'],
        command='mpiexec -n 2 python x && y')
    assert page.references
    assert all(r.startswith(('data:image/jpeg;base64,', '#')) for r in page.references)
    assert {r[1:] for r in page.references if r[0] == '#'} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r'url\((?!#)|@import|<script|<link', text)
    for shown in ('A <b>run', '0.512', '0.774', '1,200', 'head.fc', '256, 256', '0.0031', '1 < 2',
                  'Apple <i>&$x_1$', 'image-1 <script>', 'loss_cls', 'x && y', '2,700'):
        assert shown in page.text, shown
    assert 'script' not in page.tags and 'i' in page.tags
    assert [p.name for p in tmp_path.iterdir()] == ['report.html']


@pytest.fixture(scope='module')
def full_page(tmp_path_factory):
    return _write(tmp_path_factory.mktemp('report') / 'report.html')[1]


@pytest.mark.parametrize('changes, absent', [
    (dict(log=[]), 'Training'),
    (dict(log=[{'iteration': 1, 'main/loss': 2.}]), 'Learning rate'),
    (dict(examples=[]), 'What it sees'),
    (dict(score={'mAP': None, 'AP': {}}), 'Average precision by class'),
    (dict(score={'mAP': .5, 'AP': {'/m/a': .5}}), 'Precision and recall'),
    (dict(recipe={}), 'Recipe'),
])
def test_what_is_missing_is_left_out(tmp_path, full_page, changes, absent):
    _, page = _write(tmp_path / 'report.html', **changes)
    assert absent not in page.text
    assert absent in full_page.text


def test_example_without_boxes(tmp_path):
    nothing = Example(
        'none', np.zeros((3, 40, 60), np.uint8), np.zeros((0, 4)), [], np.zeros((0, 4)), [],
        np.zeros(0))
    _write(tmp_path / 'report.html', examples=[nothing])


def test_boxes_of_one_object_share_a_label():
    e = _example()
    hues = {'Apple': 0, 'Fruit': 120, 'Toy': 240}
    annotated = boxes_to_draw(e.gt_bbox, e.gt_name, hues)
    assert [(b.names, b.agrees) for b in annotated] == [(['Apple', 'Fruit'], True)]
    detected = boxes_to_draw(e.bbox, e.name, hues, e.score, .3, (e.gt_bbox, e.gt_name))
    # The Toy is below the threshold; nobody annotated a Fruit where the second box is.
    assert [(b.names, b.agrees, b.hue) for b in detected] == [
        (['Apple 0.90'], True, 0), (['Fruit 0.80'], False, 120)]
    np.testing.assert_allclose(
        [detected[0].x, detected[0].y, detected[0].width, detected[0].height], [10, 10, 42, 40])


def test_photograph_is_made_small():
    url, width, height = photograph(np.full((3, 500, 2000), 300.), longest=560)
    assert (width, height) == (560, 140) and url.startswith('data:image/jpeg;base64,')


def test_colours_follow_the_page():
    svg = loss_curves(_LOG)
    assert 'var(--c1)' in svg and 'var(--fg)' in svg
    assert not re.search(r'#0[1-4]0', svg)
