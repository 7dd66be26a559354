import pickle
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from pfdet.iterators import balanced
from pfdet.iterators.balanced import ClassAwareSampler, SoftBalanceSampler, soft_balance
from pfdet.iterators.class_images import ClassImages
from pfdet.iterators.samplers import SequentialSampler
from pfdet.iterators.sharded import ShardedIterator

N_DRAW = 1_000_000
# A long tail like that of Open Images: 500 classes with 400,000 to 13 images.
LONG_TAIL = np.geomspace(400_000, 13, 500).astype(int)


def from_lists(lists, n_image=None):
    offsets = np.append(0, np.cumsum([len(images) for images in lists]))
    images = np.concatenate([np.array(images, np.int32) for images in lists])
    return ClassImages(offsets, images, n_image or int(images.max()) + 1)


@pytest.fixture(scope='module')
def long_tail():
    """Classes with a long tail that share images."""
    rng = np.random.default_rng(0)
    return from_lists(
        [np.sort(rng.choice(1_000_000, n, replace=False)) for n in LONG_TAIL], 1_000_000
    )


@pytest.fixture(scope='module')
def few():
    """Four classes; the second has no image, and images 0, 20 and 21 have no class."""
    return from_lists([range(1, 15), [], [3, 16, 17], [18, 1, 19]], 22)


def p_value(count, expected):
    """P-value of a chi-square test, with all classes of small expectation merged into one."""
    rare = expected < 5
    count = np.append(count[~rare], count[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    if expected[-1] < 5:
        assert count[-1] < 30
        count, expected = count[:-1], expected[:-1]
    return chi2.sf(((count - expected) ** 2 / expected).sum(), len(expected) - 1)


def paper_probability(n, lam):
    """Equations 6 to 8 as printed."""
    p_n = n / n.sum()
    alpha = 1 / (len(n) * p_n)
    p_s = alpha**lam * p_n
    return p_s / p_s.sum()


@pytest.mark.parametrize('lam', [0, 0.3, 0.7, 1, 1.5])
def test_classes_are_drawn_with_the_papers_probabilities(long_tail, lam):
    sampler = SoftBalanceSampler(long_tail, lam, seed=1)
    count = np.bincount([sampler.label(p) for p in range(N_DRAW)], minlength=500)
    # Random counts are neither too far from their expectation nor too close to it.
    assert 1e-4 < p_value(count, N_DRAW * paper_probability(LONG_TAIL, lam)) < 1 - 1e-4
    # The test distinguishes lambdas.
    assert p_value(count, N_DRAW * paper_probability(LONG_TAIL, lam + 0.02)) < 1e-4


def test_classes_are_independent_of_the_position_in_a_block(long_tail):
    """A block's counts are drawn together, but no position may favour a class or a pair."""
    sampler = SoftBalanceSampler(long_tail, 0.7, seed=1)
    label = np.array([sampler.label(p) for p in range(400_000)])
    p = np.add.reduceat(paper_probability(LONG_TAIL, 0.7), range(0, 500, 50))
    for part in label[:262_144:64], label[-100_000:], label[131_068 : 131_072 + 4096]:
        count = np.bincount(part // 50, minlength=10)
        assert 1e-4 < p_value(count, len(part) * p) < 1 - 1e-4
    pairs = np.bincount(label[:-1] // 50 * 10 + label[1:] // 50, minlength=100)
    assert 1e-4 < p_value(pairs, len(label) * np.outer(p, p).ravel()) < 1 - 1e-4


def test_sequential_sampling_has_the_data_sets_class_distribution():
    """Half of the set is drawn without replacement, which halves the variance."""
    n = np.geomspace(24_000, 40, 500).astype(int)
    n[0] += 2 * N_DRAW - n.sum()
    label = np.random.default_rng(0).permutation(np.repeat(np.arange(500), n))
    sampler = SequentialSampler(2 * N_DRAW, seed=1)
    count = np.bincount(label[[sampler[p] for p in range(N_DRAW)]], minlength=500)
    expected = N_DRAW * n / len(label)
    statistic = ((count - expected) ** 2 / expected).sum() * 2
    assert 1e-4 < chi2.sf(statistic, 499) < 1 - 1e-4


def test_soft_balance():
    n = np.array([900, 90, 0, 10])
    np.testing.assert_allclose(soft_balance(n, 0), [0.9, 0.09, 0, 0.01], rtol=1e-14)
    np.testing.assert_array_equal(soft_balance(n, 1), [1 / 3, 1 / 3, 0, 1 / 3])
    for lam in 0.3, 0.7, 1.5:
        p = soft_balance(n, lam)
        np.testing.assert_allclose(p[n > 0], paper_probability(n[n > 0], lam), rtol=1e-12)
        assert p[2] == 0
    for lam in 200, 1e5:
        np.testing.assert_allclose(soft_balance(n, lam), [0, 0, 0, 1], atol=1e-12)
    for lam in -0.1, np.nan, np.inf:
        with pytest.raises(ValueError, match='lambda must be'):
            soft_balance(n, lam)
    with pytest.raises(ValueError, match='a class with an image'):
        soft_balance(np.zeros(3, int), 0.5)


def test_lambda_zero_and_one(long_tail):
    np.testing.assert_allclose(
        SoftBalanceSampler(long_tail, 0, 0).probability, LONG_TAIL / LONG_TAIL.sum(), rtol=1e-12
    )
    soft, aware = SoftBalanceSampler(long_tail, 1, 3), ClassAwareSampler(long_tail, 3)
    np.testing.assert_allclose(aware.probability, 1 / 500, rtol=1e-12)
    assert [soft[p] for p in range(2000)] == [aware[p] for p in range(2000)]


def assert_without_replacement(sampler, n):
    """Check that every class draws all of its images before it repeats one."""
    classes = sampler.classes
    drawn = {}
    for p in range(n):
        drawn.setdefault(sampler.label(p), []).append(sampler[p])
    for c, images in drawn.items():
        own = sorted(classes.images[classes.offsets[c] : classes.offsets[c + 1]].tolist())
        whole = len(images) // len(own) * len(own)
        passes = np.reshape(images[:whole], (-1, len(own)))
        assert (np.sort(passes, axis=1) == own).all()
        rest = images[whole:]
        assert len(set(rest)) == len(rest) and set(rest) <= set(own)
    return drawn


@pytest.mark.parametrize('lam', [0, 1.5])
def test_without_replacement_until_exhausted(few, monkeypatch, lam):
    # Small sizes, so that the sequence crosses blocks, cells and passes drawn together.
    monkeypatch.setattr(balanced, '_BLOCK', 256)
    monkeypatch.setattr(balanced, '_CELL', 16)
    monkeypatch.setattr(balanced, '_PASSES', 30)
    drawn = assert_without_replacement(SoftBalanceSampler(few, lam, 5), 3000)
    assert drawn.keys() == {0, 2, 3}
    passes = np.reshape(drawn[0][: 14 * 20], (-1, 14)).tolist()
    assert len(set(map(tuple, passes))) == 20


def test_without_replacement_at_the_default_block_size(few, long_tail):
    assert_without_replacement(SoftBalanceSampler(few, 1, 5), 280_000)
    assert_without_replacement(SoftBalanceSampler(long_tail, 1.5, 5), 280_000)


def test_passes_are_uniform():
    """All orders of three images are equally likely, in the first pass and later."""
    sampler = SoftBalanceSampler(from_lists([[0, 1, 2]]), 1, 0)
    orders = Counter(tuple(sampler[p + k] for k in range(3)) for p in range(0, 60_000, 3))
    assert 1e-4 < p_value(np.array(list(orders.values())), np.full(6, 20_000 / 6))
    first = Counter(
        SoftBalanceSampler(from_lists([range(5000)]), 1, seed)[0] // 1000 for seed in range(500)
    )
    assert 1e-4 < p_value(np.array(list(first.values())), np.full(5, 100.0))


def test_images_without_a_class_are_never_drawn(few):
    sampler = SoftBalanceSampler(few, 0.5, 0)
    assert len(sampler) == 22
    assert {sampler[p] for p in range(2000)} == set(range(1, 20)) - {15}


GROUP = np.arange(22) % 3


@pytest.mark.parametrize('options', [{}, {'group': GROUP, 'chunk': 8}])
def test_image_depends_only_on_position_and_seed(few, monkeypatch, options):
    monkeypatch.setattr(balanced, '_BLOCK', 64)
    monkeypatch.setattr(balanced, '_CELL', 16)
    make = lambda seed: SoftBalanceSampler(few, 0.7, seed, **options)  # noqa: E731
    sampler = make(7)
    in_order = [(sampler[p], sampler.label(p)) for p in range(600)]
    shuffled = np.random.default_rng(0).permutation(600).tolist()
    sampler = make(7)
    for p in [599, 0, *shuffled]:
        assert (sampler[p], sampler.label(p)) == in_order[p]
    assert in_order[599] == (make(7)[599], make(7).label(599))
    assert [make(8)[p] for p in range(60)] != [image for image, _ in in_order[:60]]
    with pytest.raises(IndexError, match='-1'):
        sampler[-1]


def test_random_access_to_far_positions(long_tail):
    sampler = SoftBalanceSampler(long_tail, 0.7, 0)
    far = sampler[10**9]
    assert far == SoftBalanceSampler(long_tail, 0.7, 0)[10**9]
    # The counts before a far position equal those of the sequence up to it.
    count = np.bincount([sampler.label(p) for p in range(2 << 17)], minlength=500)
    np.testing.assert_array_equal(sampler._count_before(2), count)


@pytest.mark.parametrize('group', [False, True])
def test_ranks_share_one_sequence(long_tail, group):
    options = {'group': np.arange(1_000_000) % 5, 'chunk': 512} if group else {}
    sampler = SoftBalanceSampler(long_tail, 0.7, 0, **options)
    start, length = 260 * 1024, 12_288
    sequence = [sampler[p] for p in range(start, start + length)]
    for n_rank in 1, 2, 3, 8, 512:
        images = {}
        for rank in range(n_rank):
            own = SoftBalanceSampler(long_tail, 0.7, 0, **options) if rank < 3 else sampler
            iterator = ShardedIterator(own, lambda *args: args, 2, rank, n_rank)
            for at in range(start, start + length, iterator.global_batch_size):
                for p in iterator.positions(at):
                    assert p not in images
                    images[p] = own[p]
            iterator.finalize()
        assert [images[p] for p in range(start, start + length)] == sequence


def test_pickles(few, tmp_path):
    for sampler in (
        SoftBalanceSampler(few, 0.7, 0),
        ClassAwareSampler(few, 3),
        SoftBalanceSampler(few, 0.7, 0, GROUP, 8),
    ):
        before = [sampler[p] for p in range(100)]
        copy = pickle.loads(pickle.dumps(sampler))
        assert type(copy) is type(sampler) and [copy[p] for p in range(100)] == before


def test_runs_of_one_group(long_tail):
    group = np.random.default_rng(0).integers(0, 5, 1_000_000)
    grouped = SoftBalanceSampler(long_tail, 0.7, 2, group, 500)
    n = 262 * 500  # a block of whole runs
    images = np.array([grouped[p] for p in range(4 * n)])
    labels = np.array([grouped.label(p) for p in range(4 * n)])
    runs = group[images].reshape(-1, 500)
    pure = (runs == runs[:, :1]).all(axis=1)
    assert pure.mean() > 0.98
    assert np.mean(runs[1:, 0] == runs[:-1, 0]) < 0.3
    # Every image has the class drawn, and the class probabilities are the same.
    for c in 0, 100, 499:
        own = long_tail.images[long_tail.offsets[c] : long_tail.offsets[c + 1]]
        assert np.isin(images[labels == c], own).all()
    expected = 4 * n * paper_probability(LONG_TAIL, 0.7)
    assert 1e-4 < p_value(np.bincount(labels, minlength=500), expected) < 1 - 1e-4
    # All images are drawn equally often, except for the passes that a block boundary splits.
    times = np.bincount(images[labels == 499], minlength=1_000_000)
    times = times[long_tail.images[long_tail.offsets[499] :]]
    assert times.max() - times.min() <= 1 < times.min()


def test_fewer_images_than_a_run(few):
    sampler = SoftBalanceSampler(few, 0.7, 0, GROUP, 64)
    assert {sampler[p] for p in range(2000)} == set(range(1, 20)) - {15}
    with pytest.raises(ValueError, match='chunk'):
        SoftBalanceSampler(few, 0.7, 0, GROUP, 0)
