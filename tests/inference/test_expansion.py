"""Detections raised to ancestors, compared with a plain reading in Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfdet.evaluation.detections import Detections
from pfdet.inference import expansion
from pfdet.inference.expansion import expand_blocks, expand_detections
from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.hierarchy import Hierarchy, challenge_hierarchy, flat_hierarchy

CLASSES = challenge_classes()
HIERARCHY = challenge_hierarchy()
IDS = {name: i for i, name in enumerate(CLASSES.names)}


def detections(*rows, n_image=1):
    """Detections from tuples ``(image, label, score, box)``."""
    image, label, score, bbox = zip(*rows) if rows else ((), (), (), ())
    return Detections(
        [f'image {i}' for i in range(n_image)],
        np.array(image, np.int32),
        np.array(label, np.int32),
        np.array(score, np.float32),
        np.array(bbox, np.float32).reshape(-1, 4),
    )


def rows_of(found):
    """The inverse of :func:`detections`."""
    return [
        (int(i), int(c), float(s), tuple(map(float, b)))
        for i, c, s, b in zip(found.image, found.label, found.score, found.bbox)
    ]


def random_detections(seed, n=400, n_image=3, labels=None):
    """Objects with boxes of several classes of one branch of the hierarchy, and stray boxes.

    Scores have one digit, so that many are equal. Some boxes have no area.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(len(CLASSES)) if labels is None else np.asarray(labels)
    parts = labels[HIERARCHY.ancestors[labels].any(axis=1)] if len(labels) > 10 else labels
    corner, size = rng.random((20, 2)) * 0.6, 0.1 + rng.random((20, 2)) * 0.3
    rows = []
    for _ in range(n):
        k = rng.integers(20)
        label = rng.choice(parts if rng.random() < 0.8 else labels)
        family = np.flatnonzero(HIERARCHY.closure[label])
        label = rng.choice(np.intersect1d(family, labels))
        low = np.clip(corner[k] + rng.normal(0, 0.03, 2), 0, 1)
        high = np.clip(low + size[k], 0, 1)
        if rng.random() < 0.1:
            low, high = corner[k], [corner[k][0] + 0.1, corner[k][1]]
        rows.append((rng.integers(n_image), label, rng.integers(1, 10) / 10, (*low, *high)))
    return detections(*rows, n_image=n_image + 1)


def iou(a, b):
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return height * width / (sum(area) - height * width)


def plain_reading(given_, hierarchy, iou_thresh, max_per_image):
    """The docstring of ``expand_detections``, row by row: class, score and box of each image."""
    result = []
    for image in range(len(given_.image_ids)):
        own = [(c, s, b) for i, c, s, b in rows_of(given_) if i == image]
        kept = []
        for label in range(hierarchy.n_class):
            candidates = [(s, 0, k, b) for k, (c, s, b) in enumerate(own) if c == label]
            raised = [
                (s, 1, k, b) for k, (c, s, b) in enumerate(own) if hierarchy.ancestors[c, label]
            ]
            leaders = []
            for candidate in sorted(candidates + raised, key=lambda x: (-x[0], x[1:3])):
                box = candidate[3]
                if not raised or not any(
                    box == other or iou(box, other) > iou_thresh for *_, other in leaders
                ):
                    leaders.append(candidate)
            kept += [(-s, is_raised, k, label, b) for s, is_raised, k, b in leaders]
        result.append([(label, -s, b) for s, _, _, label, b in sorted(kept)[:max_per_image]])
    return result


def test_an_experts_lobster_helps_its_ancestors():
    lobster, shellfish, animal, apple = (
        IDS[name] for name in ('Lobster', 'Shellfish', 'Animal', 'Apple')
    )
    box, shifted, elsewhere = (0, 0, 0.5, 0.5), (0.02, 0, 0.52, 0.5), (0.6, 0.6, 0.9, 0.9)
    found = expand_detections(
        detections(
            (0, lobster, 0.875, box),
            (0, shellfish, 0.5, shifted),
            (0, animal, 0.96875, shifted),
            (0, shellfish, 0.25, elsewhere),
            (0, apple, 0.75, box),
        ),
        HIERARCHY,
    )
    by_class = {}
    for _, label, score, bbox in rows_of(found):
        by_class.setdefault(CLASSES.names[label], []).append((score, bbox == box))
    assert by_class['Lobster'] == [(0.875, True)]
    # The Lobster wins, with its box as it is. The other Shellfish stays and is raised as well.
    assert by_class['Shellfish'] == [(0.875, True), (0.25, False)]
    # The Animal's own detection scores higher.
    assert by_class['Animal'] == [(0.96875, False), (0.25, False)]
    assert by_class['Apple'] == by_class['Fruit'] == [(0.75, True)]
    assert found.score.tolist() == sorted(found.score.tolist(), reverse=True)


@pytest.mark.parametrize('iou_thresh', [0, 0.3, 0.5, 0.9, 1])
@pytest.mark.parametrize('max_per_image', [None, 40])
def test_equals_the_plain_reading(iou_thresh, max_per_image):
    for seed in range(2):
        given_ = random_detections(seed)
        found = expand_detections(given_, HIERARCHY, iou_thresh, max_per_image)
        assert found.image_ids == given_.image_ids
        expected = plain_reading(given_, HIERARCHY, iou_thresh, max_per_image)
        assert rows_of(found) == [(i, *row) for i, rows in enumerate(expected) for row in rows]
        assert max_per_image or len(found) > len(given_)


@pytest.mark.parametrize('max_per_image', [None, 7, 40])
@pytest.mark.parametrize('iou_thresh', [0, 0.5, 1])
def test_expanding_twice_changes_nothing(iou_thresh, max_per_image):
    for seed in range(5):
        once = expand_detections(random_detections(seed), HIERARCHY, iou_thresh, max_per_image)
        assert rows_of(expand_detections(once, HIERARCHY, iou_thresh, max_per_image)) == (
            rows_of(once)
        )


_CHAIN = Hierarchy(np.tril(np.ones((4, 4), bool), -1))
_EDGE = st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.75, 1.0])


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 3),
            st.sampled_from([0.25, 0.5, 0.75]),
            st.tuples(_EDGE, _EDGE, _EDGE, _EDGE).map(
                lambda b: (min(b[::2]), min(b[1::2]), max(b[::2]), max(b[1::2]))
            ),
        ),
        max_size=25,
    ),
    iou_thresh=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    max_per_image=st.sampled_from([None, 1, 2, 5, 10]),
)
def test_properties_of_any_expansion(rows, iou_thresh, max_per_image):
    given_ = detections(*rows, n_image=2)
    found = expand_detections(given_, _CHAIN, iou_thresh, max_per_image)
    again = expand_detections(found, _CHAIN, iou_thresh, max_per_image)
    assert rows_of(again) == rows_of(found)
    # Nothing is made up: each detection has the score and box of one of a descendant.
    boxes = {(i, s, tuple(np.float32(b).tolist())): set() for i, _, s, b in rows}
    for i, c, s, b in rows:
        boxes[i, s, tuple(np.float32(b).tolist())] |= {c, *np.flatnonzero(_CHAIN.ancestors[c])}
    for i, c, s, b in rows_of(found):
        assert c in boxes[i, s, b]
    if max_per_image is None:
        # Nothing is lost: a class has each image's highest score of the class and its descendants.
        for image in range(2):
            for label in range(4):
                below = [s for i, c, s, _ in rows if i == image and _CHAIN.closure[c, label]]
                scores = found.score[(found.image == image) & (found.label == label)]
                assert scores.max(initial=0) == max(below, default=0)


def test_detections_of_leaves_alone():
    leaves = np.flatnonzero(HIERARCHY.is_leaf)
    given_ = random_detections(0, labels=leaves)
    found = expand_detections(given_, HIERARCHY)
    is_leaf = HIERARCHY.is_leaf[found.label]
    assert sorted(r for r in rows_of(found) if HIERARCHY.is_leaf[r[1]]) == sorted(rows_of(given_))
    assert set(found.label[~is_leaf]) == set(
        np.flatnonzero(HIERARCHY.ancestors[np.unique(given_.label)].any(axis=0))
    )


def test_without_ancestors_only_the_order_changes():
    given_ = random_detections(0)
    found = expand_detections(given_, flat_hierarchy(len(CLASSES)))
    assert sorted(rows_of(found)) == sorted(rows_of(given_))
    assert rows_of(found) == sorted(rows_of(found), key=lambda row: (row[0], -row[2]))
    nothing = detections(n_image=3)
    assert rows_of(expand_detections(nothing, HIERARCHY)) == []
    assert expand_detections(nothing, HIERARCHY).image_ids == nothing.image_ids
    assert expand_detections(detections(n_image=0), HIERARCHY).image_ids == []


def test_images_do_not_interact(monkeypatch):
    given_ = random_detections(0, n_image=6)
    expected = rows_of(expand_detections(given_, HIERARCHY))
    monkeypatch.setattr(expansion, '_ROWS_AT_ONCE', 100)
    assert rows_of(expand_detections(given_, HIERARCHY)) == expected
    given_ = given_.take(np.argsort(given_.image, kind='stable'))
    blocks = [given_.slice_images(begin, begin + 2) for begin in range(0, 6, 2)]
    found = list(expand_blocks(iter(blocks), HIERARCHY))
    assert [rows_of(block) for block in found] == [
        [(i - begin, *rest) for i, *rest in expected if begin <= i < begin + 2]
        for begin in (0, 2, 4)
    ]
