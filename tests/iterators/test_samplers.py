import numpy as np
import pytest

from pfdet.iterators.samplers import SequentialSampler, aspect_groups, replacements


def test_every_image_once_per_epoch_in_a_new_order():
    sampler = SequentialSampler(50, seed=3)
    epochs = [[sampler[p] for p in range(e * 50, (e + 1) * 50)] for e in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != list(range(50))


def test_image_depends_only_on_position_and_seed():
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


def test_common_aspect_ratios_have_different_groups():
    sizes = np.array([[300, 300], [300, 400], [200, 300], [400, 300], [300, 200], [301, 300]])
    groups = aspect_groups(sizes)
    assert len(set(groups[:5].tolist())) == 5 and groups[5] == groups[0]
    # In the order of the ratio.
    assert groups[4] < groups[3] < groups[0] < groups[1] < groups[2]


def test_runs_of_one_group():
    group = np.random.default_rng(0).integers(0, 3, 101)
    sampler = SequentialSampler(101, 5, group, 8)
    epochs = [[sampler[p] for p in range(e * 101, (e + 1) * 101)] for e in range(20)]
    assert epochs[0] != epochs[1]
    last = set()
    for epoch in epochs:
        assert sorted(epoch) == list(range(101))
        runs = [group[epoch[k : k + 8]] for k in range(0, 96, 8)]
        # There are two boundaries between three groups.
        assert sum(len(set(run)) > 1 for run in runs) <= 2
        assert all(np.ptp(run) <= 1 for run in runs)
        # The runs of the groups are shuffled.
        firsts = [int(run[0]) for run in runs]
        assert set(firsts) == {0, 1, 2} and firsts != sorted(firsts)
        last.update(group[epoch[96:]].tolist())
    assert last == {0, 1, 2}
    # The images of a run differ from epoch to epoch.
    runs_of_epoch = [{frozenset(epoch[k : k + 8]) for k in range(0, 96, 8)} for epoch in epochs[:2]]
    assert not runs_of_epoch[0] & runs_of_epoch[1]


def padding(sizes, sampler, n_batch):
    drawn = sizes[[sampler[p] for p in range(len(sampler))]].reshape(-1, n_batch, 2)
    return 1 - drawn.prod(axis=2).sum() / (drawn.max(axis=1).prod(axis=1).sum() * n_batch)


def test_grouping_saves_padding():
    rng = np.random.default_rng(0)
    ratio = 2 ** rng.uniform(-1, 1, 4096)
    sizes = np.stack([800 * np.maximum(1, 1 / ratio), 800 * np.maximum(1, ratio)], axis=1)
    group = aspect_groups(sizes)
    assert padding(sizes, SequentialSampler(4096, 0), 8) > 0.4
    for n_batch, chunk in (8, 8), (8, 64), (64, 64), (8, 512), (32, 4096), (6, 24), (7, 7):
        n = 4096 // n_batch * n_batch
        sampler = SequentialSampler(n, 0, group[:n], chunk)
        assert padding(sizes[:n], sampler, n_batch) < 0.06
    # Fewer images than a run.
    assert padding(sizes[:240], SequentialSampler(240, 0, group[:240], 512), 8) < 0.1


@pytest.mark.parametrize('n, chunk', [(240, 512), (2048, 512), (240, 24)])
def test_no_group_is_always_first(n, chunk):
    group = np.arange(n) * 10 // n
    sampler = SequentialSampler(n, 0, group, chunk)
    epochs = group[[sampler[p] for p in range(60 * n)]].reshape(60, n)
    for half in epochs[:, : n // 2], epochs[:, n // 2 :]:
        assert np.abs(half.mean(axis=0).mean() - 4.5) < 0.5
    first = np.bincount(epochs[:, 0], minlength=10)
    assert first.max() < 30 and (first > 0).sum() >= 6


def test_grouping_draws_the_same_images():
    """With or without groups, each image is drawn once per epoch."""
    rng = np.random.default_rng(0)
    for n, chunk, n_group in (1, 8, 1), (7, 8, 2), (64, 8, 3), (200, 16, 30), (333, 512, 4):
        group = rng.integers(0, n_group, n)
        sampler = SequentialSampler(n, 1, group, chunk)
        for epoch in range(3):
            drawn = [sampler[p] for p in range(epoch * n, (epoch + 1) * n)]
            assert sorted(drawn) == list(range(n))


def test_replacements_are_the_following_images():
    sampler = SequentialSampler(10, 0)
    for position in 0, 7, 9, 13:
        found = list(replacements(sampler, position, 40))
        # They cross the end of an epoch, but none occurs twice.
        assert sorted([sampler[position], *found]) == list(range(10))
        assert found[0] == next(
            sampler[p] for p in range(position + 1, position + 3) if sampler[p] != sampler[position]
        )
    assert len(list(replacements(sampler, 0, 4))) == 4
    assert list(replacements([5] * 100, 3)) == []


def test_replacements_are_mostly_of_the_same_group():
    group = np.random.default_rng(0).integers(0, 5, 4000)
    sampler = SequentialSampler(4000, 5, group, 64)
    same = [group[next(replacements(sampler, p))] == group[sampler[p]] for p in range(3000)]
    assert np.mean(same) > 0.97
