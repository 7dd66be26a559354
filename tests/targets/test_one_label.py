"""One positive class is kept of each region: the deepest, and a random one of equally deep ones."""

import numpy as np
import pytest
from scipy.stats import binomtest

from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.hierarchy import challenge_hierarchy
from pfdet.targets import rules
from pfdet.targets.batch_truth import collate
from pfdet.targets.sampling import RoiSample, priorities

CLASSES = challenge_classes()
HIERARCHY = challenge_hierarchy()
ID = {name: i for i, name in enumerate(CLASSES.names)}
SEED = 5


def make_truth(objects_by_image, join_iou=None):
    """Ground truth of images with objects: pairs of a box and class names."""
    columns = []
    for objects in objects_by_image:
        label = np.zeros((len(objects), len(CLASSES)), bool)
        for row, (_, names) in zip(label, objects, strict=True):
            row[[ID[n] for n in names]] = True
        bbox = np.array([o[0] for o in objects], np.float32)
        columns.append((bbox, label, np.zeros(len(objects), np.uint8)))
    nothing = [np.zeros(len(CLASSES), bool)] * len(columns)
    return collate(*zip(*columns, strict=True), nothing, nothing, HIERARCHY, join_iou)


def regions_on(matched, positions=None):
    """Foreground regions that are matched to the given objects, (N, S)."""
    matched = np.array(matched)
    bbox = np.tile(np.array([0, 0, 10, 10], np.float32), (*matched.shape, 1))
    every = np.ones(matched.shape, bool)
    return RoiSample(bbox, matched, every, every, positions)


def kept_names(t):
    """Names of the positive classes of each region."""
    return [[{CLASSES.names[i] for i in np.flatnonzero(row > 0)} for row in image] for image in t]


def keep(truth, sample, **options):
    t = rules.positives(sample, truth)
    return rules.keep_one_label(t, sample, truth, HIERARCHY.depth, **options)


def plausible(count, n, p):
    """Whether a count of n independent events of probability p is not a coincidence of 1e-6."""
    return binomtest(int(count), n, p).pvalue > 1e-6


@pytest.mark.parametrize('others', [0, -1])
def test_one_label_is_kept(others):
    truth = make_truth([[([0, 0, 10, 10], ['Apple', 'Toy', 'Fruit'])]])
    region = regions_on([[0]])
    t = rules.positives(region, truth)
    ((labels,),) = kept_names(t)
    assert labels == {'Apple', 'Toy', 'Fruit'}
    after = rules.keep_one_label(t, region, truth, HIERARCHY.depth, others)
    assert kept_names(after) == [[{'Apple'}]]
    expected = t.copy()
    expected[0, 0, [ID[n] for n in labels - {'Apple'}]] = others
    np.testing.assert_array_equal(after, expected)
    # Without a seed, ties go to the lowest class id.
    after = rules.keep_one_label(t, region, truth, np.zeros(len(CLASSES)), others)
    assert kept_names(after) == [[{min(labels, key=ID.get)}]]
    priority = np.zeros(len(CLASSES))
    priority[ID['Apple']] = -5
    priority[ID['Toy']] = 2.5
    after = rules.keep_one_label(t, region, truth, priority, others)
    assert kept_names(after) == [[{'Toy'}]]
    background = region._replace(foreground=np.array([[False]]))
    t = rules.positives(background, truth)
    np.testing.assert_array_equal(
        rules.keep_one_label(t, background, truth, HIERARCHY.depth, others), t
    )


def test_one_label_with_an_invalid_value():
    with pytest.raises(ValueError, match='others'):
        rules.keep_one_label(None, None, None, HIERARCHY.depth, 1)


def test_equally_deep_labels_are_kept_equally_often():
    torch, flashlight, toy = ID['Torch'], ID['Flashlight'], ID['Toy']
    depth = HIERARCHY.depth
    assert depth[torch] == depth[flashlight] < depth[ID['Apple']]
    # Boxes of one object with several labels, as joined boxes have.
    images = [
        [([0, 0, 100, 100], ['Torch']), ([0, 2, 100, 101], ['Flashlight'])],
        [([0, 0, 100, 100], ['Toy', 'Apple']), ([0, 1, 100, 101], ['Orange', 'Lemon'])],
    ]
    truth = make_truth(images, join_iou=0.9)
    n = 1500
    counts = {}
    for position in range(0, 2 * n, 2):
        after = keep(truth, regions_on([[0, 1]] * 2, [position, position + 1]), seed=SEED)
        for image in kept_names(after):
            assert len(image[0]) == 1 and image[0] == image[1]
            counts[min(image[0])] = counts.get(min(image[0]), 0) + 1
    # Neither Toy nor Fruit is kept: they are less deep.
    assert depth[toy] < depth[ID['Apple']]
    assert {*counts} == {'Torch', 'Flashlight', 'Apple', 'Orange', 'Lemon'}
    for name, share in ('Torch', 2), ('Apple', 3), ('Orange', 3), ('Lemon', 3):
        assert plausible(counts[name], n, 1 / share), counts
    assert not plausible(n, n, 1 / 2) and not plausible(0, n, 1 / 3)


def test_kept_label_depends_on_seed_and_position_only():
    objects = [([0, 0, 10, 10], ['Torch', 'Flashlight', 'Toy'])]
    n = 64

    def kept(positions, seed=SEED):
        truth = make_truth([objects] * len(positions))
        after = keep(truth, regions_on([[0]] * len(positions), positions), seed=seed)
        return [min(names) for (names,) in kept_names(after)]

    whole = kept(range(n))
    assert len(set(whole)) > 1
    # One image at a time, on two ranks, resumed in the middle, in another order, as an array
    assert [kept([p])[0] for p in range(n)] == whole
    assert [kept(range(r, n, 2)) for r in range(2)] == [whole[::2], whole[1::2]]
    assert kept(range(40, n)) == whole[40:]
    assert kept(range(n)[::-1]) == whole[::-1]
    assert kept(np.arange(n)) == whole
    # Other positions, another seed
    assert kept(range(n, 2 * n)) != whole and kept(range(n), SEED + 1) != whole


def test_random_keys_are_independent_of_the_order_of_regions():
    n = 2000
    first, keys = (priorities(SEED, range(n), 2, stream) for stream in (0, 1))
    sampling, ties = ((a[:, 0] < a[:, 1]) for a in (first, keys))
    assert plausible((sampling == ties).sum(), n, 1 / 2)
    # No position of one stream has the numbers of another position of the other one.
    assert not {*map(tuple, first.tolist())} & {*map(tuple, keys.tolist())}


@pytest.mark.parametrize('others', [0, -1])
def test_kept_labels_equal_the_definition(others):
    """The deepest label, and among equally deep ones that of the largest random key."""
    rng = np.random.default_rng(0)
    positions = [7, 3, 2**40, 8, 1, 0]
    N, G, S, C = len(positions), 4, 12, len(CLASSES)
    pool = [CLASSES.names[i] for i in rng.choice(C, 60, replace=False)]
    images = [
        [([0, 0, 10, 10], [str(s) for s in rng.choice(pool, 6)]) for _ in range(G)]
        for _ in range(N)
    ]
    truth = make_truth(images)
    sample = regions_on(rng.integers(0, G, (N, S)), positions)
    sample = sample._replace(foreground=rng.random((N, S)) < 0.7, used=rng.random((N, S)) < 0.9)
    t = rules.positives(sample, truth)
    t = np.where((t == 0) & (rng.random(t.shape) < 0.2), np.int8(-1), t)
    after = rules.keep_one_label(t, sample, truth, HIERARCHY.depth, others, SEED)
    n_changed = 0
    for n, position in enumerate(positions):
        key = priorities(SEED, [position], C, stream=1)[0]
        for s in range(S):
            expected = t[n, s].tolist()
            labels = [c for c in range(C) if expected[c] > 0]
            best = max(labels, key=lambda c: (HIERARCHY.depth[c], key[c]), default=None)
            for c in labels:
                expected[c] = 1 if c == best else others
            assert after[n, s].tolist() == expected
            lowest = max(labels, key=lambda c: (HIERARCHY.depth[c], -c), default=None)
            n_changed += best != lowest
    assert n_changed > 5


def test_ties_by_chance_need_positions():
    truth = make_truth([[([0, 0, 10, 10], ['Torch', 'Flashlight'])]])
    with pytest.raises(ValueError, match='positions'):
        keep(truth, regions_on([[0]]), seed=SEED)
