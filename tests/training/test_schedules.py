"""Tests of the learning rate schedules."""

import pytest

from pfdet.training.schedules import learning_rate, linear_scaling


def test_linear_scaling_follows_the_paper():
    # "The initial learning rate is set to 0.01 for batch size of 8"; 512 GPUs with one image each.
    assert linear_scaling(0.01, 8, 8) == 0.01
    assert linear_scaling(0.01, 8, 512) == pytest.approx(0.64)


def test_step_schedule_follows_the_paper():
    # Divided by 10 "at epoch 8 and 11" of 12, here with 100 iterations per epoch.
    rates = [learning_rate(i, 1200, 1.0, 'step') for i in (0, 799, 800, 1099, 1100, 1199)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine():
    rates = [learning_rate(i, 100, 2.0, 'cosine') for i in (0, 25, 50, 75, 100, 120)]
    assert rates == pytest.approx([2, 1 + 2**-0.5, 1, 1 - 2**-0.5, 0, 0])


def test_warmup_grows_linearly_into_the_schedule():
    rates = [learning_rate(i, 1000, 1.0, 'step', n_warmup=10) for i in range(12)]
    assert rates == pytest.approx([0.1 + 0.09 * i for i in range(10)] + [1, 1])


def test_unknown_schedule():
    with pytest.raises(ValueError, match='schedule'):
        learning_rate(0, 10, 1.0, 'linear')
