import numpy as np
import pytest

from pfdet.iterators.samplers import SequentialSampler, aspect_groups


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


def test_groups_set_common_ratios_apart():
    sizes = np.array([[300, 300], [300, 400], [200, 300], [400, 300], [300, 200], [301, 300]])
    groups = aspect_groups(sizes)
    assert len(set(groups[:5].tolist())) == 5 and groups[5] == groups[0]


def test_runs_of_one_group():
    group = np.random.default_rng(0).integers(0, 3, 101)
    sampler = SequentialSampler(101, 5, group, 8)
    epochs = [[sampler[p] for p in range(e * 101, (e + 1) * 101)] for e in range(2)]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        assert sorted(epoch) == list(range(101))
        runs = [group[epoch[k:k + 8]] for k in range(0, 101, 8)]
        pure = [len(set(run)) == 1 for run in runs]
        n_pure = sum(int((group == g).sum()) // 8 for g in range(3))
        assert all(pure[:n_pure])
        # runs of the groups alternate: they are shuffled
        groups = [int(run[0]) for run in runs[:n_pure]]
        assert set(groups) == {0, 1, 2} and groups != sorted(groups)
