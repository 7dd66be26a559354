import numpy as np
import pytest

from pfdet.iterators.samplers import SequentialSampler


def test_every_image_once_an_epoch_in_new_order():
    sampler = SequentialSampler(50, seed=3)
    epochs = [[sampler[p] for p in range(e * 50, (e + 1) * 50)] for e in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != list(range(50))


def test_position_and_seed_decide():
    a, b = SequentialSampler(50, 3), SequentialSampler(50, 3)
    backwards = [b[p] for p in reversed(range(120))]
    assert [a[p] for p in range(120)] == backwards[::-1]
    assert [SequentialSampler(50, 4)[p] for p in range(50)] != [a[p] for p in range(50)]


def test_no_image():
    with pytest.raises(ValueError, match='at least one image'):
        SequentialSampler(0, 0)


def test_orders_are_uniform():
    first = [SequentialSampler(4, seed)[0] for seed in range(400)]
    assert np.bincount(first, minlength=4).min() > 60
