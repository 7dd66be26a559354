"""The scenes and annotations of MiniOpenImages have the gaps and errors of the options."""

import dataclasses
from collections import Counter, defaultdict

import numpy as np
import pytest

from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.openimages.make_mini import true_objects
from pfdet.openimages.mini.annotation import annotate, naming_shares
from pfdet.openimages.mini.classes import ancestors, mini_classes
from pfdet.openimages.mini.knobs import Knobs
from pfdet.openimages.mini.painting import paint
from pfdet.openimages.mini.scene import (
    GROUP_OF,
    INSIDE,
    OCCLUDED,
    TRUNCATED,
    VisibleObject,
    compose,
)
from pfdet.openimages.mini.world import CONFUSED, FIGURES, PARTS, object_counts, plan_images

SPLITS = ('train', 'validation')


@pytest.fixture(scope='module')
def truth():
    """The true objects at the default size."""
    return {split: true_objects(Knobs(), split) for split in SPLITS}


@pytest.fixture(scope='module')
def written(truth):
    return {split: annotate(truth[split], Knobs(), split) for split in SPLITS}


def iou(a, b):
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = np.clip(size, 0, None).prod()
    return both / (np.prod(np.subtract(a[2:], a[:2])) + np.prod(np.subtract(b[2:], b[:2])) - both)


def test_parts_are_among_the_47_pairs():
    names = challenge_classes().names
    real = {(names[x], names[y]) for x, y in zip(*read_pairs(challenge_classes()))}
    assert {(x, y) for x, parts in PARTS.items() for y in parts} <= real


def test_validation_is_verified_exhaustively(truth, written):
    boxes, labels = written['validation']
    verdicts = defaultdict(dict)
    for row in labels:
        assert row.name not in verdicts[row.image]
        verdicts[row.image][row.name] = row.positive
    boxed = defaultdict(set)
    for row in boxes:
        boxed[row.image] |= {row.name, *ancestors()[row.name]}
    for i in range(250):
        assert set(verdicts[i]) == set(mini_classes())
        assert {name for name, positive in verdicts[i].items() if positive} == boxed[i]
    parts = Counter(
        part.name for scene in truth['validation'] for one in scene for part in one.parts
    )
    found = Counter(row.name for row in boxes)
    assert all(found[name] == parts[name] for names in PARTS.values() for name in names)


def test_all_classes_have_validation_objects(written):
    objects = Counter()
    for row in written['validation'][0]:
        if not row.flags & GROUP_OF:
            objects.update({row.name, *ancestors()[row.name]})
    assert set(objects) == set(mini_classes())
    assert min(objects.values()) >= 5


def test_parts_are_boxed_only_where_verified(truth, written):
    boxes, labels = written['train']
    positive = {(row.image, row.name) for row in labels if row.positive}
    assert {(row.image, row.name) for row in boxes} == positive
    for subject, parts in PARTS.items():
        images = {
            i
            for i, scene in enumerate(truth['train'])
            if any(FIGURES[one.figure].subject == subject for one in scene)
        }
        verified = {row.image for row in labels if row.name in parts}
        boxed = {row.image for row in boxes if row.name in parts}
        assert boxed <= verified
        assert abs(len(boxed & images) / len(images) - 0.3) < 0.07
    # Images with visible but unverified parts.
    unverified = [
        i
        for i, scene in enumerate(truth['train'])
        if any(p.name == 'Human face' for one in scene for p in one.parts)
        and not any(row.image == i and row.name == 'Human face' for row in labels)
    ]
    assert len(unverified) > 200


@pytest.mark.parametrize('share', [0.5, 1.0])
def test_prominent_parts_are_verified_first(share, truth, written):
    knobs = Knobs(parts_prominent=share)
    _, labels = annotate(truth['train'], knobs, 'train')
    faces = PARTS['Person'][0]
    assert faces == 'Human face'
    size = {}
    for i, scene in enumerate(truth['train']):
        people = [one for one in scene if FIGURES[one.figure].subject == 'Person']
        if people:
            size[i] = np.mean(
                [
                    (b[2] - b[0]) * (b[3] - b[1])
                    for one in people
                    for b in (part.bbox for part in one.parts)
                ]
                or [0.0]
            )
    verified = {row.image for row in labels if row.name == faces} & size.keys()
    n = round(0.3 * len(size))
    # Random negatives may be of images with people without a visible face.
    assert n <= len(verified) <= n + 15
    largest = set(sorted(size, key=size.get)[-n:])
    expected = share + (1 - share) * 0.3 * (1 - share) / (1 - 0.3 * share)
    assert abs(len(largest & verified) / n - expected) < 0.06
    # The validation split is unchanged.
    assert annotate(truth['validation'], knobs, 'validation') == written['validation']


def test_negatives_are_correct_and_sparse(truth, written):
    _, labels = written['train']
    n = 0
    for row in labels:
        if not row.positive:
            n += 1
            present = {
                name
                for one in truth['train'][row.image]
                for name in (*FIGURES[one.figure].labels, *(p.name for p in one.parts))
            }
            assert row.name not in present.union(*(ancestors()[name] for name in present))
    assert 2.7 < n / 1000 < 4.2


@pytest.mark.parametrize('seed', [0, 1])
def test_imbalance_is_at_least_100(seed):
    knobs = Knobs(seed=seed)
    images = Counter()
    for plan in plan_images(knobs, 'train'):
        names = {name for figure in plan.figures for name in FIGURES[figure].labels}
        images.update(names.union(*(ancestors()[name] for name in names)))
    assert images['Person'] == max(images.values())
    assert images['Person'] / min(images.values()) >= 100
    assert 3 <= min(images.values()) < 10
    flat = object_counts(Knobs(tail=0), 'train')
    assert max(flat.values()) == min(flat.values())


@pytest.mark.parametrize(
    'rates', [{}, {'torch_flashlight': (0.2, 0.8), 'leopard_cheetah': (0.0, 0.0)}]
)
def test_concurrent_rates_are_those_of_the_options(truth, rates):
    knobs = Knobs(**rates)
    boxes, _ = annotate(truth['train'], knobs, 'train')
    by_image = defaultdict(list)
    for row in boxes:
        by_image[row.image].append(row)
    for figure, knob in CONFUSED.items():
        one, other = FIGURES[figure].labels
        both, single = 0, Counter()
        for rows in by_image.values():
            named = [r for r in rows if r.name in (one, other) and not r.flags & GROUP_OF]
            for a in named:
                matches = [b for b in named if b.name != a.name and iou(a.bbox, b.bbox) >= 0.9]
                assert all(b.bbox != a.bbox for b in matches)
                single[a.name] += 1
                both += bool(matches) and a.name == one
        expected = getattr(knobs, knob)
        assert both / single[one] == pytest.approx(expected[0], abs=0.03)
        assert both / single[other] == pytest.approx(expected[1], abs=0.03)


def test_naming_shares_have_the_given_rates():
    one, other, both = naming_shares(0.65, 0.5)
    assert one + other + both == pytest.approx(1)
    assert both / (one + both) == pytest.approx(0.65)
    assert both / (other + both) == pytest.approx(0.5)


def test_validation_naming(truth):
    for naming, everywhere in (('both', True), ('as-training', False)):
        boxes, _ = annotate(truth['validation'], Knobs(validation_naming=naming), 'validation')
        number = Counter(row.name for row in boxes)
        assert (number['Torch'] == number['Flashlight']) == everywhere


def test_parent_only_labels(truth):
    for rate in (0.0, 0.2, 1.0):
        boxes, _ = annotate(truth['train'], Knobs(parent_only=rate), 'train')
        apples = {
            i
            for i, scene in enumerate(truth['train'])
            if any(one.figure == 'apple' for one in scene)
        }
        named = {row.image for row in boxes if row.name == 'Apple'}
        assert named <= apples
        assert 1 - len(named) / len(apples) == pytest.approx(rate, abs=0.01)
    boxes, _ = annotate(truth['validation'], Knobs(parent_only=1.0), 'validation')
    assert not any(row.name == 'Fruit' for row in boxes)


def test_toy_cars_are_labelled_car_and_toy_with_one_box(truth, written):
    boxes, _ = written['train']
    toys = sum(one.figure == 'toy car' for scene in truth['train'] for one in scene)
    cars = sum(one.figure in ('car', 'toy car') for scene in truth['train'] for one in scene)
    assert toys / cars == pytest.approx(0.25, abs=0.03)
    car_boxes = {(row.image, row.bbox) for row in boxes if row.name == 'Car'}
    assert sum(row.name == 'Toy' and (row.image, row.bbox) in car_boxes for row in boxes) == toys


def test_boxes_are_inside_the_image_and_not_degenerate(truth):
    for knobs, split in ((Knobs(), 'train'), (Knobs(jitter=1.0), 'train'), (Knobs(), 'validation')):
        boxes, _ = annotate(truth[split], knobs, split)
        bbox = np.array([row.bbox for row in boxes])
        assert bbox.min() >= 0 and bbox.max() <= 1
        assert (bbox[:, 2:] - bbox[:, :2]).min() > 0.005


def test_jitter_has_the_given_standard_deviation(truth):
    exact, _ = annotate(truth['train'], Knobs(jitter=0.0), 'train')
    off, _ = annotate(truth['train'], Knobs(jitter=0.02), 'train')
    # Only objects with one name: the second box of a confused object is always shifted.
    pairs = [
        (np.array(a.bbox), np.array(b.bbox))
        for a, b in zip(exact, off)
        if a.name == b.name == 'Tree'
    ]
    exact_box, off_box = (np.array(side) for side in zip(*pairs))
    shift = (off_box - exact_box)[:, 1] / (exact_box[:, 3] - exact_box[:, 1])
    assert 0.015 < shift[shift != 0].std() < 0.025


def test_group_of_inside_and_flags(truth, written):
    n_flag: Counter = Counter()
    for scene in truth['train']:
        for one in scene:
            assert not (one.flags & GROUP_OF and not FIGURES[one.figure].heaps)
            assert bool(one.flags & INSIDE) == (one.figure == 'cabin')
            if one.flags & INSIDE:
                assert one.bbox == (0, 0, 1, 1)
            n_flag.update(bit for bit in range(5) if one.flags >> bit & 1)
    assert 45 <= n_flag[2] <= 50  # 5 % of 1000 images, without hidden ones
    assert 4 <= n_flag[4] <= 5  # 0.5 %
    assert 0.02 < n_flag[3] / sum(map(len, truth['train'])) < 0.04  # depictions, 3 %
    assert n_flag[0] > 300 and n_flag[1] > 150


@pytest.mark.parametrize(
    'name, value, empty',
    [
        ('group_of', 0.0, GROUP_OF),
        ('inside', 0.0, INSIDE),
        ('depictions', 0.0, 8),
        ('truncated', 0.0, 2),
    ],
)
def test_options_can_be_turned_off(name, value, empty):
    knobs = dataclasses.replace(Knobs(images=60, inside=0.0, portraits=0.0), **{name: value})
    assert not any(one.flags & empty for scene in true_objects(knobs, 'train') for one in scene)


def test_portraits_end_at_the_waist_and_at_the_border():
    knobs = Knobs(images=80, truncated=0.0, depictions=0.0, inside=0.0, parts_verified=1.0)
    people = {True: [], False: []}
    for scene in true_objects(knobs, 'train'):
        for one in scene:
            if FIGURES[one.figure].subject == 'Person' and not one.flags & OCCLUDED:
                face = [p.bbox for p in one.parts if p.name == 'Human face']
                people[bool(one.flags & TRUNCATED)] += [
                    (one.bbox, (box[3] - box[1]) / (one.bbox[3] - one.bbox[1])) for box in face
                ]
    assert min(map(len, people.values())) >= 10
    assert all(box[3] > 0.99 for box, _ in people[True])
    half, whole = (np.median([share for _, share in people[cut]]) for cut in (True, False))
    assert half > 1.6 * whole


def test_boxes_are_tight():
    """The box of a single object is the extent of the pixels that it changes in the image."""
    knobs = Knobs(images=150, truncated=0.0, depictions=0.0, inside=0.0, group_of=0.0)
    checked = 0
    for plan in plan_images(knobs, 'train'):
        scene = compose(plan, knobs)
        if len(scene.objects) != 1 or plan.figures[0] in ('hand lamp', 'tree') or checked == 12:
            continue
        solid = [p for p in scene.placed[0].patches if p.solid]
        with_it = paint(scene._replace(placed=[scene.placed[0]._replace(patches=solid)]), knobs)[0]
        without = paint(scene._replace(placed=[], owner=scene.owner * 0), knobs)[0]
        changed = np.abs(with_it.astype(int) - without).max(axis=2) > 24
        ys, xs = np.flatnonzero(changed.sum(1) > 1), np.flatnonzero(changed.sum(0) > 1)
        pixels = np.array(
            [
                xs[0] / scene.width,
                ys[0] / scene.height,
                (xs[-1] + 1) / scene.width,
                (ys[-1] + 1) / scene.height,
            ]
        )
        assert iou(pixels, np.array(scene.objects[0].bbox)) > 0.88, plan
        checked += 1
    assert checked == 12


def test_images_have_objects(truth):
    for split in SPLITS:
        assert all(isinstance(one, VisibleObject) for scene in truth[split] for one in scene)
        assert sum(not scene for scene in truth[split]) <= 0.02 * len(truth[split])
