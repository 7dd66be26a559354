"""Labels of logarithmic axes of counts."""

import numpy as np
import pytest

from pfdet.openimages.count_axis import CountLocator
from pfdet.openimages.statistics_plots import images_per_class
from pfdet.report.plots import ap_against_frequency


@pytest.mark.parametrize(
    'low, high, expected',
    [
        (0.7, 1500, [1, 10, 100, 1000]),
        (3, 2.5e6, [10, 100, 1000, 10_000, 100_000, 1_000_000]),
        (150, 900, [150, 300, 450, 600, 750, 900]),
        (8, 120, [10, 20, 50, 100]),
        (1, 1, [1]),
        (1, 4, [1, 2, 3, 4]),
    ],
)
def test_ticks(low, high, expected):
    ticks = CountLocator().tick_values(low, high)
    assert set(expected) <= set(ticks.tolist())
    assert len(ticks) == len(expected)


@pytest.mark.parametrize(
    'counts',
    [[300, 310, 350], [300, 900], [7, 7, 7], [1], [1, 2], [995, 1005], [1, 10**7], [99, 101, 250]],
)
def test_images_per_class_are_plain_numbers(counts):
    figure = images_per_class([('train', np.array(counts))], [f'c{k}' for k in counts])
    figure.canvas.draw()
    axis = figure.axes[0].yaxis
    labels = [
        label.get_text()
        for kind in ('major', 'minor')
        for label in axis.get_ticklabels(which=kind)
        if label.get_text()
    ]
    assert labels and len(labels) == len(set(labels)) <= 12
    assert all(label.replace(',', '').isdecimal() for label in labels)


def test_frequency_of_a_report_within_a_decade():
    images = {'/m/a': 350, '/m/b': 310}
    svg = ap_against_frequency(images, {'AP': {'/m/a': 0.5, '/m/b': 0.4}}, {}, 'x', 'images')
    assert 'mathdefault' not in svg
    assert any(f'>{n}<' in svg for n in (320, 330, 340))
