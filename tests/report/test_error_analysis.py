"""False positives and misses: they are those of the metric, with a plain version's reasons."""

import numpy as np
import pytest

from pfdet.evaluation.average_precision import average_precision
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import GroundTruth
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.report.error_analysis import REASONS, class_errors

# Classes 0 and 1 are kinds of 2, which is a kind of 3; 4 and 5 stand alone.
_ANCESTORS = np.zeros((6, 6), bool)
_ANCESTORS[[0, 1, 0, 1, 2], [2, 2, 3, 3, 3]] = True
HIERARCHY = Hierarchy(_ANCESTORS)


def _boxes(rng, n):
    # Corners on a coarse grid, so that equal overlaps and touching boxes are common.
    corner = rng.integers(0, 6, (n, 2))
    size = rng.integers(1, 5, (n, 2))
    return (np.concatenate((corner, corner + size), axis=1) / 10).astype(np.float32)


def _world(seed):
    rng = np.random.default_rng(seed)
    n_image, n_class = 4, 6
    n_object = int(rng.integers(0, 20))
    image, label = rng.integers(0, n_image, n_object), rng.integers(0, n_class, n_object)
    row, expanded = np.nonzero(HIERARCHY.closure[label])
    truth = GroundTruth(
        [f'{i:02d}' for i in range(n_image)],
        image[row].astype(np.int32),
        expanded.astype(np.int32),
        _boxes(rng, n_object)[row],
        (rng.random(n_object) < 0.2)[row],
        rng.random((n_image, n_class)) < 0.6,
    )
    n = int(rng.integers(0, 60))
    ids = [*rng.permutation(truth.image_ids), 'unknown']
    bbox = _boxes(rng, n)
    copied = np.flatnonzero(rng.random(n) < 0.3) if len(row) else []
    bbox[copied] = truth.bbox[rng.integers(0, max(1, len(row)), len(copied))]
    bbox[rng.random(n) < 0.03, 2] = 0
    bbox[:, 2] = np.maximum(bbox[:, 2], bbox[:, 0])
    detections = Detections(
        ids,
        rng.integers(0, len(ids), n).astype(np.int32),
        rng.integers(0, n_class, n).astype(np.int32),
        (rng.integers(1, 6, n) / 5).astype(np.float32),
        bbox,
    )
    return detections, truth


def _overlap(a, b, over_union=True):
    a, b = [float(x) for x in a], [float(x) for x in b]
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    both = height * width if height > 0 and width > 0 else 0.0
    of_a, of_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return both / (of_a + of_b - both if over_union else of_a)


def _plainly(d, t, c):
    """Image by image, detection by detection: (right, {wrong: reason}, missed)."""
    right, wrong, missed = set(), {}, set()
    for i, image_id in enumerate(t.image_ids):
        here = [g for g in range(len(t.label)) if t.image[g] == i]
        mine = [g for g in here if t.label[g] == c]
        normal = [g for g in mine if not t.group_of[g]]
        groups = [g for g in mine if t.group_of[g]]
        found = set()
        ks = [
            k
            for k in range(len(d))
            if d.image_ids[d.image[k]] == image_id
            and d.label[k] == c
            and d.bbox[k][0] < d.bbox[k][2]
            and d.bbox[k][1] < d.bbox[k][3]
        ]
        if not (t.verified[i, c] or mine):
            continue
        for k in sorted(ks, key=lambda k: (-d.score[k], -k)):
            ious = [_overlap(d.bbox[k], t.bbox[g]) for g in normal]
            covers = [_overlap(d.bbox[k], t.bbox[g], over_union=False) for g in groups]
            taken = False
            if ious and max(ious) >= 0.5:
                g = normal[ious.index(max(ious))]
                taken = g in found
                if not taken:
                    found.add(g)
                    right.add(k)
                    continue
            if covers and max(covers) >= 0.5:
                found.add(groups[covers.index(max(covers))])
                continue
            unrelated = [
                g
                for g in here
                if t.label[g] != c
                and not _ANCESTORS[c, t.label[g]]
                and not _ANCESTORS[t.label[g], c]
            ]
            if taken:
                wrong[k] = 'duplicate'
            elif any(_overlap(d.bbox[k], t.bbox[g]) >= 0.5 for g in unrelated):
                wrong[k] = 'confused'
            elif max([0, *ious, *covers]) >= 0.1:
                wrong[k] = 'localisation'
            else:
                wrong[k] = 'nothing there'
        missed |= set(mine) - found
    return right, wrong, missed


def test_equal_to_a_plain_version_and_to_the_metric():
    seen = set()
    for seed in range(150):
        detections, truth = _world(seed)
        metric = average_precision(detections, truth, 6)
        for c in range(6):
            errors = class_errors(detections, truth, c, HIERARCHY)
            right, wrong, missed = _plainly(detections, truth, c)
            assert set(errors.true_positive) == right
            assert {k: REASONS[r] for k, r in zip(errors.false_positive, errors.reason)} == wrong
            assert set(errors.missed) == missed
            assert errors.n_ground_truth == metric['n_ground_truth'][c]
            n_true = metric['n_true_positive'][c]
            assert len(errors.false_positive) == metric['n_detection'][c] - n_true
            # The metric counts group-of boxes that were found as true positives, too.
            assert errors.n_ground_truth - len(errors.missed) == n_true
            seen |= set(wrong.values())
            for indices in errors.true_positive, errors.false_positive:
                assert (np.diff(detections.score[indices]) <= 0).all()
            for overlap, box, reason in zip(errors.overlap, errors.box, errors.reason):
                assert (box >= 0) == (overlap > 0)
                if REASONS[reason] == 'confused':
                    assert not HIERARCHY.closure[c, truth.label[box]]
    assert seen == set(REASONS)


def _one(bbox, label, truth_bbox, truth_label, group_of=False):
    closure = np.flatnonzero(HIERARCHY.closure[truth_label])
    n = len(closure)
    truth = GroundTruth(
        ['a'],
        np.zeros(n, np.int32),
        closure.astype(np.int32),
        np.tile(np.array(truth_bbox, np.float32), (n, 1)),
        np.full(n, group_of),
        np.ones((1, 6), bool),
    )
    detections = Detections(
        ['a'],
        np.zeros(1, np.int32),
        np.array([label], np.int32),
        np.ones(1, np.float32),
        np.array([bbox], np.float32),
    )
    return class_errors(detections, truth, label, HIERARCHY), truth


@pytest.mark.parametrize(
    'label, bbox, reason',
    [
        (0, (0, 0, 0.5, 0.25), None),  # half of the box: IoU of 0.5 is a match
        (0, (0, 0, 0.4, 0.25), 'localisation'),
        (0, (0, 0, 0.1, 0.2), 'nothing there'),  # 0.08 of it
        (1, (0, 0, 0.5, 0.5), 'confused'),
        (4, (0, 0, 0.5, 0.5), 'confused'),
    ],
)
def test_reasons_by_hand(label, bbox, reason):
    errors, truth = _one(bbox, label, (0, 0, 0.5, 0.5), 0)
    assert [REASONS[r] for r in errors.reason] == ([reason] if reason else [])
    if reason == 'confused':
        # The sibling itself, not its parents, whose boxes are the same.
        assert truth.label[errors.box[0]] == 0


def test_a_parents_box_is_no_confusion():
    # Only the parent is annotated: a detection of the child is wrong, but not for another class.
    errors, _ = _one((0, 0, 0.5, 0.5), 0, (0, 0, 0.5, 0.5), 2)
    assert [REASONS[r] for r in errors.reason] == ['nothing there']


def test_large_boxes_are_missed_first():
    truth = GroundTruth(
        ['a'],
        np.zeros(3, np.int32),
        np.zeros(3, np.int32),
        np.array([[0, 0, 0.1, 0.1], [0, 0, 0.9, 0.9], [0, 0, 0.3, 0.3]], np.float32),
        np.array([False, True, False]),
        np.ones((1, 6), bool),
    )
    nothing = Detections(
        [],
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
        np.zeros((0, 4), np.float32),
    )
    errors = class_errors(nothing, truth, 0, HIERARCHY)
    assert errors.missed.tolist() == [1, 2, 0]
