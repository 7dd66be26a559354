"""The label rules against a literal reading of PFDet's section 2, one region at a time."""

import numpy as np
import pytest

from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.openimages.hierarchy import challenge_hierarchy
from pfdet.openimages.tables import GROUP_OF
from pfdet.targets import rules
from pfdet.targets.batch_truth import collate
from pfdet.targets.sampling import RoiSample

CLASSES = challenge_classes()
HIERARCHY = challenge_hierarchy()
ID = {name: i for i, name in enumerate(CLASSES.names)}


def make_batch(images):
    """Images as lists of (box, class names, flags), and verified class names found and not."""
    C = len(CLASSES)
    columns = []
    for objects, positive, negative in images:
        label = np.zeros((len(objects), C), bool)
        for row, (_, names, _) in zip(label, objects, strict=True):
            row[[ID[n] for n in names]] = True
        verified = np.zeros((2, C), bool)
        verified[0, [ID[n] for n in positive]] = True
        verified[1, [ID[n] for n in negative]] = True
        columns.append((
            np.array([o[0] for o in objects], np.float32).reshape(-1, 4), label,
            np.array([o[2] for o in objects], np.uint8), *verified))
    return collate(*zip(*columns, strict=True), HIERARCHY)


def one_region(bbox, matched, foreground):
    return RoiSample(np.array([[bbox]], np.float32), np.array([[matched]]),
                     np.array([[foreground]]), np.array([[True]]))


def named(t, value):
    return {CLASSES.names[i] for i in np.flatnonzero(t[0, 0] == value)}


def ancestors(name):
    return {CLASSES.names[i] for i in np.flatnonzero(HIERARCHY.ancestors[ID[name]])}


def test_positives_are_expanded():
    truth = make_batch([([([0, 0, 10, 10], ['Apple'], 0)], [], [])])
    t = rules.positives(one_region([0, 0, 10, 10], 0, True), truth)
    assert named(t, 1) == {'Apple'} | ancestors('Apple')
    assert 'Fruit' in named(t, 1)
    assert t.dtype == np.int8 and (t >= 0).all()
    t = rules.positives(one_region([0, 0, 10, 10], 0, True), truth, expand_ancestors=False)
    assert named(t, 1) == {'Apple'}
    t = rules.positives(one_region([0, 0, 10, 10], 0, False), truth)
    assert (t == 0).all()


def test_descendants_of_a_parent_label_are_ignored():
    for labels, ignored in ((['Fruit'], True), (['Apple'], False), (['Fruit', 'Apple'], False)):
        truth = make_batch([([([0, 0, 10, 10], labels, 0)], [], [])])
        region = one_region([0, 0, 10, 10], 0, True)
        t = rules.ignore_descendants(
            rules.positives(region, truth), region, truth, HIERARCHY.descendants)
        assert ('Orange' in named(t, -1)) == ignored
        assert 'Fruit' in named(t, 1) and 'Car' in named(t, 0)
        if ignored:
            below = HIERARCHY.descendants[ID['Fruit']]
            assert named(t, -1) == {CLASSES.names[i] for i in np.flatnonzero(below)}


def test_classes_of_a_group_are_ignored_within_it():
    truth = make_batch([([([0, 0, 10, 10], ['Apple'], GROUP_OF)], [], [])])
    for bbox, within in (([0, 0, 5, 5], True), ([0, 0, 10, 19], True), ([0, 0, 10, 21], False)):
        region = one_region(bbox, 0, False)
        t = rules.ignore_group_of(rules.positives(region, truth), region, truth)
        assert named(t, -1) == ({'Apple'} | ancestors('Apple') if within else set())


def test_parts_are_ignored_in_their_subject_unless_verified():
    pairs = rules.CooccurrencePairs(*read_pairs(CLASSES))
    person = ([0, 0, 100, 50], ['Woman'], 0)
    for negative, also, bbox, expected in (
            ([], False, [0, 0, 20, 20], {'Human face', 'Human arm', 'Hat'}),
            (['Human face'], False, [0, 0, 20, 20], {'Human arm', 'Hat'}),
            (['Human face'], True, [0, 0, 20, 20], {'Human face', 'Human arm', 'Hat'}),
            ([], False, [0, 40, 20, 61], set())):
        truth = make_batch([([person], ['Woman'], negative)])
        region = one_region(bbox, 0, False)
        t = rules.ignore_cooccurring(
            rules.positives(region, truth), region, truth, pairs, also_verified=also)
        assert named(t, -1) & {'Human face', 'Human arm', 'Hat'} == expected
        assert 'Wheel' in named(t, 0)


def literal(region, objects, positive, negative, pairs):
    """PFDet's section 2 read literally: one region, sets of names."""
    bbox, matched, foreground = region
    t = {n: 0 for n in CLASSES.names}

    def share(box):
        h = min(bbox[2], box[2]) - max(bbox[0], box[0])
        w = min(bbox[3], box[3]) - max(bbox[1], box[1])
        return max(h, 0) * max(w, 0) / ((bbox[2] - bbox[0]) * (bbox[3] - bbox[1]))

    def is_a(name, other):
        return name == other or other in ancestors(name)

    if foreground:
        own = objects[matched][1]
        for name in own:
            for up in {name} | ancestors(name):
                t[up] = 1
        for name in own:
            if any(name in ancestors(other) for other in own):
                continue
            for down in CLASSES.names:
                if name in ancestors(down) and t[down] == 0:
                    t[down] = -1
    for box, names, flags in objects:
        if flags & GROUP_OF and share(box) >= 0.5:
            for name in names:
                for up in {name} | ancestors(name):
                    if t[up] == 0:
                        t[up] = -1
    for subject, part in pairs:
        verified = any(is_a(name, part) for name in positive) or any(
            is_a(part, name) for name in negative)
        if verified or t[part] != 0:
            continue
        for box, names, _ in objects:
            if share(box) >= 0.5 and any(is_a(name, subject) for name in names):
                t[part] = -1
    return t


@pytest.mark.parametrize('seed', range(5))
def test_all_rules_equal_a_literal_reading(seed):
    rng = np.random.default_rng(seed)
    subject, part = read_pairs(CLASSES)
    pairs = rules.CooccurrencePairs(subject, part)
    names = [(CLASSES.names[s], CLASSES.names[p]) for s, p in zip(subject, part, strict=True)]
    pool = ['Woman', 'Person', 'Car', 'Land vehicle', 'Human face', 'Wheel', 'Apple', 'Fruit',
            'Helmet', 'Door', 'Toy', 'Tire', 'Hat', 'Furniture']

    def pick(n):
        return [str(v) for v in rng.choice(pool, n, replace=False)]

    def box():
        corner = rng.integers(0, 60, 2)
        return [*corner.tolist(), *(corner + rng.integers(5, 60, 2)).tolist()]

    images, regions = [], []
    for _ in range(4):
        objects = [(box(), pick(rng.integers(1, 3)), int(rng.choice([0, GROUP_OF], p=[.7, .3])))
                   for _ in range(rng.integers(1, 5))]
        images.append((objects, pick(2), pick(2)))
        regions.append([(box(), int(rng.integers(len(objects))), bool(rng.random() < .5))
                        for _ in range(6)])
    truth = make_batch(images)
    sample = RoiSample(
        np.array([[r[0] for r in rs] for rs in regions], np.float32),
        np.array([[r[1] for r in rs] for rs in regions]),
        np.array([[r[2] for r in rs] for rs in regions]), np.ones((4, 6), bool))
    t = rules.positives(sample, truth)
    t = rules.ignore_descendants(t, sample, truth, HIERARCHY.descendants)
    t = rules.ignore_group_of(t, sample, truth)
    t = rules.ignore_cooccurring(t, sample, truth, pairs)
    for n, (objects, positive, negative) in enumerate(images):
        for s, region in enumerate(regions[n]):
            expected = literal(region, objects, positive, negative, names)
            assert dict(zip(CLASSES.names, t[n, s].tolist(), strict=True)) == expected
    assert (t == -1).any() and (t == 1).any()


def test_regions_that_fill_up_teach_nothing():
    truth = make_batch([([([0, 0, 10, 10], ['Apple'], 0)], [], [])])
    region = one_region([0, 0, 10, 10], 0, False)._replace(used=np.array([[False]]))
    assert (rules.positives(region, truth) == -1).all()
