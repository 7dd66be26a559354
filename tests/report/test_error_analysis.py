"""Error analysis compared with the metric and with a plain implementation."""

import numpy as np
import pytest

from pfdet.evaluation.average_precision import average_precision
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import GroundTruth
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.report.error_analysis import REASONS, class_errors

# Classes 0 and 1 are children of 2, which is a child of 3. Classes 4 and 5 have no relatives.
_ANCESTORS = np.zeros((6, 6), bool)
_ANCESTORS[[0, 1, 0, 1, 2], [2, 2, 3, 3, 3]] = True
HIERARCHY = Hierarchy(_ANCESTORS)


def _boxes(rng, n):
    # A coarse grid makes equal overlaps and touching boxes common.
    corner = rng.integers(0, 6, (n, 2))
    size = rng.integers(1, 5, (n, 2))
    return (np.concatenate((corner, corner + size), axis=1) / 10).astype(np.float32)


def _random_case(seed):
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
    inter = height * width if height > 0 and width > 0 else 0.0
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return inter / (area_a + area_b - inter if over_union else area_a)


def _plain_errors(d, t, c):
    """Plain loops over images and detections: true positives, false positives, missed boxes."""
    true_positives, reasons, missed = set(), {}, set()
    for i, image_id in enumerate(t.image_ids):
        in_image = [g for g in range(len(t.label)) if t.image[g] == i]
        of_class = [g for g in in_image if t.label[g] == c]
        normal = [g for g in of_class if not t.group_of[g]]
        groups = [g for g in of_class if t.group_of[g]]
        found = set()
        ks = [
            k
            for k in range(len(d))
            if d.image_ids[d.image[k]] == image_id
            and d.label[k] == c
            and d.bbox[k][0] < d.bbox[k][2]
            and d.bbox[k][1] < d.bbox[k][3]
        ]
        if not (t.verified[i, c] or of_class):
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
                    true_positives.add(k)
                    continue
            if covers and max(covers) >= 0.5:
                found.add(groups[covers.index(max(covers))])
                continue
            unrelated = [
                g
                for g in in_image
                if t.label[g] != c
                and not _ANCESTORS[c, t.label[g]]
                and not _ANCESTORS[t.label[g], c]
            ]
            if taken:
                reasons[k] = 'duplicate'
            elif any(_overlap(d.bbox[k], t.bbox[g]) >= 0.5 for g in unrelated):
                reasons[k] = 'confusion'
            elif max([0, *ious, *covers]) >= 0.1:
                reasons[k] = 'localisation'
            else:
                reasons[k] = 'background'
        missed |= set(of_class) - found
    return true_positives, reasons, missed


def test_equals_plain_implementation_and_agrees_with_the_metric():
    seen = set()
    for seed in range(150):
        detections, truth = _random_case(seed)
        metric = average_precision(detections, truth, 6)
        for c in range(6):
            errors = class_errors(detections, truth, c, HIERARCHY)
            true_positives, reasons, missed = _plain_errors(detections, truth, c)
            assert set(errors.true_positive) == true_positives
            assert {k: REASONS[r] for k, r in zip(errors.false_positive, errors.reason)} == reasons
            assert set(errors.missed) == missed
            assert errors.n_ground_truth == metric['n_ground_truth'][c]
            n_true = metric['n_true_positive'][c]
            assert len(errors.false_positive) == metric['n_detection'][c] - n_true
            # In the metric, detected group-of boxes are true positives, too.
            assert errors.n_ground_truth - len(errors.missed) == n_true
            seen |= set(reasons.values())
            for indices in errors.true_positive, errors.false_positive:
                assert (np.diff(detections.score[indices]) <= 0).all()
            for overlap, box, reason in zip(errors.overlap, errors.box, errors.reason):
                assert (box >= 0) == (overlap > 0)
                if REASONS[reason] == 'confusion':
                    assert not HIERARCHY.closure[c, truth.label[box]]
    assert seen == set(REASONS)


def _errors_of_one_detection(bbox, label, truth_bbox, truth_label, group_of=False):
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
        (0, (0, 0, 0.5, 0.25), None),  # An IoU of exactly 0.5 is a match.
        (0, (0, 0, 0.4, 0.25), 'localisation'),
        (0, (0, 0, 0.1, 0.2), 'background'),  # The IoU is 0.08.
        (1, (0, 0, 0.5, 0.5), 'confusion'),
        (4, (0, 0, 0.5, 0.5), 'confusion'),
    ],
)
def test_reasons_by_hand(label, bbox, reason):
    errors, truth = _errors_of_one_detection(bbox, label, (0, 0, 0.5, 0.5), 0)
    assert [REASONS[r] for r in errors.reason] == ([reason] if reason else [])
    if reason == 'confusion':
        # The most specific class is reported, not its ancestors with the same box.
        assert truth.label[errors.box[0]] == 0


def test_box_of_an_ancestor_is_not_a_confusion():
    # Only the parent is annotated. A detection of the child is a false positive.
    errors, _ = _errors_of_one_detection((0, 0, 0.5, 0.5), 0, (0, 0, 0.5, 0.5), 2)
    assert [REASONS[r] for r in errors.reason] == ['background']


def test_missed_boxes_are_sorted_by_size():
    truth = GroundTruth(
        ['a'],
        np.zeros(3, np.int32),
        np.zeros(3, np.int32),
        np.array([[0, 0, 0.1, 0.1], [0, 0, 0.9, 0.9], [0, 0, 0.3, 0.3]], np.float32),
        np.array([False, True, False]),
        np.ones((1, 6), bool),
    )
    no_detections = Detections(
        [],
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
        np.zeros((0, 4), np.float32),
    )
    errors = class_errors(no_detections, truth, 0, HIERARCHY)
    assert errors.missed.tolist() == [1, 2, 0]
