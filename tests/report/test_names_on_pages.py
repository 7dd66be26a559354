"""Names with control characters and direction marks are shown as escapes, and markup as text."""

import html
import warnings

import numpy as np
import pytest

from pfdet.report.images import Example
from pfdet.report.run_page import write_report

NAMES = [
    '<script>alert(1)</script>',
    'a\x1b[2Jb',
    '\u202eelppA',
    '"\' onload=x &amp; $x^$',
    '\u05d0\u4e2d',
]


@pytest.mark.faults('forms of text')
@pytest.mark.parametrize('name', NAMES)
def test_names_on_the_page(tmp_path, name):
    score = {
        'mAP': 0.5,
        'AP': {'/m/a': 0.25, '/m/b': 0.75},
        'name': {'/m/a': name, '/m/b': 'Fruit'},
        'n_ground_truth': {'/m/a': 12, '/m/b': 15},
        'n_image': 160,
        'parents': ['/m/b'],
        'precision': {'/m/a': [1.0] * 30 + [0.0] * 71, '/m/b': [0.8] * 101},
    }
    box = np.array([[0.1, 0.1, 0.5, 0.5]])
    img = np.zeros((3, 90, 120))
    example = Example(name, img, box, [name], box, [name], np.array([0.9]))
    log = [{'iteration': k, 'epoch': 0, 'lr': 0.1, 'main/loss': 1 / k} for k in range(1, 9)]
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph')
        write_report(
            tmp_path / 'report.html',
            title=name,
            recipe={'name': name},
            log=log,
            score=score,
            examples=[example],
            notes=[f'{name}\nsecond line'],
        )
    text = (tmp_path / 'report.html').read_text()
    assert not {c for c in text if c < ' ' and c != '\n'} and '\u202e' not in text
    assert '<script>alert' not in text and ' onload=x' not in html.unescape(text).replace(name, '')
    shown = name.replace('\x1b', '\\x1b').replace('\u202e', '\\u202e')
    # In the title, the tables, the plot and the images.
    assert html.unescape(text).count(shown) > 5
    assert 'second line' in text
