import numpy as np
import pytest

from pfdet.iterators import aspect_runs
from pfdet.iterators.aspect_runs import Runs, number_groups, sort_by_group
from pfdet.iterators.balanced import SoftBalanceSampler
from pfdet.iterators.class_images import ClassImages
from pfdet.iterators.samplers import SequentialSampler
from pfdet.iterators.sharded import ShardedIterator


@pytest.mark.parametrize('n_group', [1, 40, 300])
def test_sorted_and_numbered(n_group, monkeypatch):
    monkeypatch.setattr(aspect_runs, '_PIECE', 64)
    rng = np.random.default_rng(n_group)
    group = rng.choice(rng.permutation(np.arange(-900, 900))[:n_group], 1000).astype(np.int16)
    values, number = np.unique(group, return_inverse=True)
    found, n = number_groups(group)
    np.testing.assert_array_equal(found, number)
    assert n == len(values) and found.dtype == (np.uint8 if n <= 256 else np.uint16)
    images, ends = sort_by_group(group)
    np.testing.assert_array_equal(images, np.argsort(group, kind='stable'))
    np.testing.assert_array_equal(ends, np.cumsum(np.bincount(number)))


@pytest.mark.parametrize('n, chunk', [(64, 8), (61, 8), (5, 8), (200, 24), (30, 1), (77, 7)])
def test_runs_are_a_permutation_of_consecutive_elements(n, chunk):
    rng = np.random.default_rng(0)
    ends = np.unique(np.append(rng.integers(1, n, 4), n))
    order = Runs(ends, chunk, rng)
    indices = np.array([order[k] for k in range(n)])
    assert sorted(indices) == list(range(n))
    # Runs, halves of runs, and so on each hold consecutive indices in some order.
    while True:
        whole = indices[: n // chunk * chunk].reshape(-1, chunk)
        assert (np.ptp(whole, axis=1) == chunk - 1).all()
        if chunk % 2:
            break
        chunk //= 2


def test_halves_are_swapped_only_in_mixed_runs():
    """In a run of two groups either may come first. A run of one group keeps the list's order."""
    firsts = set()
    for seed in range(50):
        order = Runs(np.array([4, 16]), 8, np.random.default_rng(seed))
        for k in 0, 8:
            run = [order[k + i] for i in range(8)]
            if min(run) == 8:
                assert run == list(range(8, 16))
            else:
                firsts.add(run[0])
    assert firsts == set(range(8))


def test_ranks_share_the_sequential_sampler():
    n, length = 3000, 6144
    group = np.random.default_rng(0).integers(0, 9, n)
    for options in {}, {'group': group, 'chunk': 512}:
        one = SequentialSampler(n, 3, **options)
        sequence = [one[p] for p in range(length)]
        assert sorted(sequence[:n]) == sorted(sequence[n : 2 * n]) == list(range(n))
        for n_rank in 1, 2, 3, 8, 512:
            images = {}
            for rank in range(n_rank):
                own = SequentialSampler(n, 3, **options) if rank < 3 else one
                iterator = ShardedIterator(own, lambda *args: args, 2, rank, n_rank)
                for at in range(0, length, iterator.global_batch_size):
                    for p in iterator.positions(at):
                        assert p not in images
                        images[p] = own[p]
                iterator.finalize()
            assert [images[p] for p in range(length)] == sequence


def test_balanced_runs_with_more_groups_than_fit_into_32_bits():
    """With one group per image, image and group need 64 bits."""
    n = 70_000
    classes = ClassImages(
        np.array([0, n, n + 50]), np.append(np.arange(n), np.arange(50)).astype(np.int32), n
    )
    group = np.random.default_rng(0).permutation(n)
    sampler = SoftBalanceSampler(classes, 1, 0, group, 64)
    assert sampler._shuffled[0].dtype == np.uint64
    images = np.array([sampler[p] for p in range(68_000)])
    labels = np.array([sampler.label(p) for p in range(68_000)])
    assert images.min() >= 0 and images.max() < n
    assert images[labels == 1].max() < 50 and abs(labels.mean() - 0.5) < 0.01
    assert np.unique(images[labels == 0], return_counts=True)[1].max() == 1
    # Each run holds similar groups.
    assert np.median(np.ptp(group[images[:67_968]].reshape(-1, 64), axis=1)) < 400
