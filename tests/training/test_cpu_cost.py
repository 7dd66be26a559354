"""The note about the cost of a run of full size on CPUs."""

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import pytest

from pfdet import recipes
from pfdet.cli import train
from pfdet.links.complexity import CountOperations
from pfdet.training import build, cpu_cost
from pfdet.training.run_options import RunOptions


def test_operations_are_three_times_those_of_the_forward_passes():
    """Counted on an image of the whole size, not scaled from a smaller one."""
    settings = ['min_size=(96, 96)', 'max_size=128', 'n_roi=8']
    recipe = recipes.override(recipes.find('mini'), settings)
    network = build.detector(recipe, 10)
    img = np.zeros((1, 3, *network.padded_size((96, 128))), np.float32)
    rois = np.tile(np.array([0, 0, 64, 64], np.float32), (8, 1))
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        with CountOperations() as counted:
            maps = network.extractor(img)
            network.rpn(maps)
            network.head(maps, rois, np.zeros(8, np.int32))
    found = cpu_cost.operations_of_training(recipe, 10, 1000)
    assert found == pytest.approx(3 * 1000 * counted.flops, rel=0.02)


def test_the_default_recipe_at_full_size_takes_years():
    # 1.1 TFLOPs an image forward, 16 epochs of 1.7 million images.
    note = cpu_cost.cost_note(9.3e19, 1e11, 1)
    assert note.startswith('no GPU was found: this run takes at least 29.5 years here, for 9.3e+19')
    assert 'at 100 GFLOP/s of one rank' in note and note.endswith('--scale mini is for CPUs')


@pytest.mark.parametrize(
    'days, n_rank, words',
    [
        (0.99, 1, None),
        (1.5, 1, 'at least 1.5 days here'),
        (999, 1, 'at least 999.0 days'),
        (1095, 1, 'at least 3.0 years'),
        (4, 8, None),
        (16, 8, 'at least 2.0 days here, for 1.4e+17 operations at 800 GFLOP/s of 8 ranks'),
    ],
)
def test_the_note(days, n_rank, words):
    note = cpu_cost.cost_note(days * 86_400 * 1e11, 1e11, n_rank)
    assert note is None if words is None else words in note


def test_the_measured_speed_is_positive_and_finite():
    assert 0 < cpu_cost.operations_per_second(64, 2) < np.inf


class Index:
    def __init__(self, n_image, n_class=10):
        self.n_image, self.classes = n_image, range(n_class)

    def __len__(self):
        return self.n_image


@pytest.mark.parametrize(
    'options, n_image',
    [
        (RunOptions(), 10 * 10**9),
        (RunOptions(iterations=1000), 1000 * 4 * 3),
        (RunOptions(iterations=1000, accumulate=2), 1000 * 8 * 3),
    ],
)
def test_the_command_counts_the_images_of_the_run(options, n_image, monkeypatch, capsys):
    counted = []
    monkeypatch.setattr(
        cpu_cost, 'operations_of_training', lambda *args: counted.append(args) or 1e18
    )
    monkeypatch.setattr(cpu_cost, 'operations_per_second', lambda: 1e9)
    recipe = recipes.override(recipes.find('mini'), ['epochs=10', 'batch_size=4'])
    train.print_cost(recipe, options, Index(10**9), 3)
    assert counted == [(recipe, 10, n_image)]
    printed = capsys.readouterr()
    assert printed.err.startswith('note: no GPU was found: ') and printed.err.count('\n') == 1
    assert printed.out == ''
