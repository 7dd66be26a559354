"""The label rules against a literal implementation of PFDet's section 2, region by region."""

import functools
import importlib.resources
import json

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
PAIRS = rules.CooccurrencePairs(*read_pairs(CLASSES))
ID = {name: i for i, name in enumerate(CLASSES.names)}


def make_batch(images):
    """Make a batch from images: a list of (box, class names, flags), and names of the classes
    verified as present and as absent."""
    C = len(CLASSES)
    columns = []
    for objects, positive, negative in images:
        label = np.zeros((len(objects), C), bool)
        for row, (_, names, _) in zip(label, objects, strict=True):
            row[[ID[n] for n in names]] = True
        verified = np.zeros((2, C), bool)
        verified[0, [ID[n] for n in positive]] = True
        verified[1, [ID[n] for n in negative]] = True
        columns.append(
            (
                np.array([o[0] for o in objects], np.float32).reshape(-1, 4),
                label,
                np.array([o[2] for o in objects], np.uint8),
                *verified,
            )
        )
    return collate(*zip(*columns, strict=True), HIERARCHY)


def one_region(bbox, matched, foreground):
    return RoiSample(
        np.array([[bbox]], np.float32),
        np.array([[matched]]),
        np.array([[foreground]]),
        np.array([[True]]),
    )


def named(t, value):
    return {CLASSES.names[i] for i in np.flatnonzero(t[0, 0] == value)}


@functools.cache
def ancestors(name):
    """Names of all ancestors of a class, read from the JSON file independently."""
    data = importlib.resources.files('pfdet.openimages') / 'data'
    tree = json.loads((data / 'bbox_labels_500_hierarchy.json').read_text())
    mid = CLASSES.mids[ID[name]]
    found = set()

    def walk(node, above):
        if node['LabelName'] == mid:
            found.update(above)
        for child in node.get('Subcategory', []):
            walk(child, above | {node['LabelName']})
        for part in node.get('Part', []):
            walk(part, set())

    walk(tree, set())
    return {CLASSES.names[CLASSES.ids[m]] for m in found if m in CLASSES.ids}


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
            rules.positives(region, truth), region, truth, HIERARCHY.descendants
        )
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


def test_descendants_of_a_group_are_ignored_as_those_of_a_single_object():
    below_person = {'Man', 'Woman', 'Boy', 'Girl'}
    for labels, expected in (
        (['Person'], {'Person'} | below_person),
        (['Person', 'Man'], {'Person', 'Man'}),
        (['Man'], {'Person', 'Man'}),
    ):
        truth = make_batch([([([0, 0, 10, 10], labels, GROUP_OF)], [], [])])
        for bbox, within in (([0, 0, 5, 5], True), ([0, 0, 10, 21], False)):
            region = one_region(bbox, 0, False)
            t = rules.positives(region, truth)
            after = rules.ignore_group_of(t, region, truth, descendants=HIERARCHY.descendants)
            assert named(after, -1) == (expected if within else set())
            # The rule takes descendants only if they are given.
            after = rules.ignore_group_of(t, region, truth)
            assert named(after, -1) == (expected & {*labels, 'Person'} if within else set())
        # The descendants of single objects are those of another rule.
        truth = make_batch([([([0, 0, 10, 10], labels, 0)], [], [])])
        after = rules.ignore_group_of(t, region, truth, descendants=HIERARCHY.descendants)
        np.testing.assert_array_equal(after, t)


@pytest.mark.parametrize('group_of', [False, True])
@pytest.mark.parametrize(
    'label, positive, negative, absent',
    [
        ('Fruit', [], [], set()),
        ('Fruit', [], ['Apple'], {'Apple'}),
        ('Fruit', ['Fruit'], ['Apple', 'Lemon'], {'Apple', 'Lemon'}),
        # A class is absent with its descendants.
        ('Animal', [], ['Bear'], {'Bear', 'Brown bear', 'Polar bear', 'Teddy bear'}),
        # Absent classes elsewhere in the hierarchy, or present ones, change nothing.
        ('Fruit', ['Apple', 'Person'], ['Dog', 'Vehicle'], set()),
    ],
)
def test_absent_descendants_stay_negative(group_of, label, positive, negative, absent):
    below = {CLASSES.names[i] for i in np.flatnonzero(HIERARCHY.descendants[ID[label]])}
    assert below >= absent
    flags = GROUP_OF if group_of else 0
    # The second image has the same object, but nothing was verified as absent in it.
    objects = [([0, 0, 10, 10], [label], flags)]
    for also_absent, kept in (False, absent), (True, set()):
        for images, ignored in (
            ([(objects, positive, negative), (objects, [], [])], below - kept),
            ([(objects, [], []), (objects, positive, negative)], below),
        ):
            truth = make_batch(images)
            one = one_region([0, 0, 10, 10], 0, not group_of)
            regions = RoiSample(*(None if a is None else np.repeat(a, 2, axis=0) for a in one))
            t = rules.positives(regions, truth)
            rule = rules.ignore_group_of if group_of else rules.ignore_descendants
            after = rule(
                t, regions, truth, descendants=HIERARCHY.descendants, also_absent=also_absent
            )
            own = {label} | ancestors(label) if group_of else set()
            assert named(after, -1) == ignored | own


def test_parts_are_ignored_in_their_subject_unless_verified():
    person = ([0, 0, 100, 50], ['Woman'], 0)
    for negative, also, bbox, expected in (
        ([], False, [0, 0, 20, 20], {'Human face', 'Human arm', 'Hat'}),
        (['Human face'], False, [0, 0, 20, 20], {'Human arm', 'Hat'}),
        (['Human face'], True, [0, 0, 20, 20], {'Human face', 'Human arm', 'Hat'}),
        ([], False, [0, 40, 20, 61], set()),
    ):
        truth = make_batch([([person], ['Woman'], negative)])
        region = one_region(bbox, 0, False)
        t = rules.ignore_cooccurring(
            rules.positives(region, truth), region, truth, PAIRS, also_verified=also
        )
        assert named(t, -1) & {'Human face', 'Human arm', 'Hat'} == expected
        assert 'Wheel' in named(t, 0)


def literal(region, objects, positive, negative, pairs, also_verified=False, also_absent=False):
    """Literal implementation of PFDet's section 2 for one region, with sets of names.

    benchmarks/losses.py times this function.
    """
    bbox, matched, foreground = region
    t = {n: 0 for n in CLASSES.names}

    def share(box):
        h = min(bbox[2], box[2]) - max(bbox[0], box[0])
        w = min(bbox[3], box[3]) - max(bbox[1], box[1])
        return max(h, 0) * max(w, 0) / ((bbox[2] - bbox[0]) * (bbox[3] - bbox[1]))

    def is_a(name, other):
        return name == other or other in ancestors(name)

    def ignore_below(names):
        for name in names:
            if any(name in ancestors(other) for other in names):
                continue
            for down in CLASSES.names:
                absent = any(is_a(down, other) for other in negative)
                if name in ancestors(down) and t[down] == 0 and (also_absent or not absent):
                    t[down] = -1

    if foreground:
        own = objects[matched][1]
        for name in own:
            for up in {name} | ancestors(name):
                t[up] = 1
        ignore_below(own)
    for box, names, flags in objects:
        if flags & GROUP_OF and share(box) >= 0.5:
            for name in names:
                for up in {name} | ancestors(name):
                    if t[up] == 0:
                        t[up] = -1
            ignore_below(names)
    for subject, part in pairs:
        verified = any(is_a(name, part) for name in positive) or any(
            is_a(part, name) for name in negative
        )
        if verified and not also_verified or t[part] != 0:
            continue
        for box, names, _ in objects:
            if share(box) >= 0.5 and any(is_a(name, subject) for name in names):
                t[part] = -1
    return t


def random_image(rng, pool, n_region):
    """Draw objects, verified classes and regions; half of the names are from ``pool``."""

    def pick(n):
        return [str(rng.choice(pool if rng.random() < 0.5 else CLASSES.names)) for _ in range(n)]

    def box():
        corner = rng.integers(0, 60, 2)
        return [*corner.tolist(), *(corner + rng.integers(5, 60, 2)).tolist()]

    objects = [
        (box(), pick(rng.choice([1, 1, 1, 2, 3])), int(rng.choice([0, GROUP_OF], p=[0.8, 0.2])))
        for _ in range(rng.integers(0, 6))
    ]
    regions = []
    for _ in range(n_region):
        matched = int(rng.integers(len(objects))) if objects else 0
        bbox = objects[matched][0] if objects and rng.random() < 0.3 else box()
        regions.append((bbox, matched, bool(objects and rng.random() < 0.5)))
    return objects, pick(rng.integers(0, 4)), pick(rng.integers(0, 10)), regions


@pytest.mark.parametrize(
    'also_verified, also_absent', [(False, False), (True, False), (False, True)]
)
def test_all_rules_equal_the_literal_implementation(also_verified, also_absent):
    """Random images in batches of 8, with the real classes, hierarchy and pairs."""
    rng = np.random.default_rng(int(also_verified))
    names = [(CLASSES.names[s], CLASSES.names[p]) for s, p in zip(*PAIRS, strict=True)]
    pool = sorted({n for pair in names for n in pair}) + [
        'Woman',
        'Boy',
        'Car',
        'Land vehicle',
        'Apple',
        'Fruit',
        'Toy',
        'Furniture',
        'Animal',
        'Vehicle',
        'Tank',
        'Carnivore',
        'Footwear',
    ]
    seen = dict.fromkeys((-1, 0, 1), 0)
    n_absent = 0
    n_region = 4
    for _ in range(125):
        images = [random_image(rng, pool, n_region) for _ in range(8)]
        truth = make_batch([image[:3] for image in images])
        bbox, matched, foreground = (
            np.array([[r[k] for r in regions] for *_, regions in images]) for k in range(3)
        )
        used = rng.random(foreground.shape) < 0.95
        sample = RoiSample(bbox.astype(np.float32), matched, foreground, used)
        t = rules.positives(sample, truth)
        below = {'descendants': HIERARCHY.descendants, 'also_absent': also_absent}
        other = {'descendants': HIERARCHY.descendants, 'also_absent': not also_absent}
        for rule in rules.ignore_descendants, rules.ignore_group_of:
            n_absent += (rule(t, sample, truth, **below) != rule(t, sample, truth, **other)).sum()
            t = rule(t, sample, truth, **below)
        t = rules.ignore_cooccurring(t, sample, truth, PAIRS, also_verified=also_verified)
        assert t.dtype == np.int8
        expected = np.array(
            [
                [
                    list(literal(region, *image, names, also_verified, also_absent).values())
                    for region in regions
                ]
                for *image, regions in images
            ],
            np.int8,
        )
        expected[~used] = -1
        np.testing.assert_array_equal(t, expected)
        for value in seen:
            seen[value] += (t[used] == value).sum()
    assert min(seen.values()) > 3000 and n_absent > 100, (seen, n_absent)


def test_padding_regions_are_ignored():
    truth = make_batch([([([0, 0, 10, 10], ['Apple'], 0)], [], [])])
    region = one_region([0, 0, 10, 10], 0, False)._replace(used=np.array([[False]]))
    assert (rules.positives(region, truth) == -1).all()


def test_rules_do_not_modify_their_argument():
    objects = [([0, 0, 9, 9], ['Fruit', 'Toy'], 0), ([0, 0, 9, 9], ['Woman'], GROUP_OF)]
    truth = make_batch([(objects, [], [])])
    region = one_region([0, 0, 9, 9], 0, True)
    t = rules.positives(region, truth)
    before = t.copy()
    for after in (
        rules.ignore_descendants(t, region, truth, HIERARCHY.descendants),
        rules.ignore_group_of(t, region, truth),
        rules.ignore_cooccurring(t, region, truth, PAIRS),
        rules.keep_one_label(t, region, truth, HIERARCHY.depth),
    ):
        assert (after != before).any()
        np.testing.assert_array_equal(t, before)


def test_share_is_an_option():
    truth = make_batch([([([0, 0, 10, 10], ['Person'], GROUP_OF)], [], [])])
    region = one_region([0, 0, 10, 30], 0, False)
    t = rules.positives(region, truth)
    for share, ignored in (0.3, True), (0.4, False):
        after = rules.ignore_cooccurring(t, region, truth, PAIRS, share=share)
        assert ('Human face' in named(after, -1)) == ignored
        assert ('Person' in named(rules.ignore_group_of(t, region, truth, share), -1)) == ignored


def test_without_pairs_nothing_is_ignored():
    truth = make_batch([([([0, 0, 10, 10], ['Person'], 0)], [], [])])
    region = one_region([0, 0, 10, 10], 0, False)
    none = rules.CooccurrencePairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    t = rules.positives(region, truth)
    np.testing.assert_array_equal(rules.ignore_cooccurring(t, region, truth, none), t)
