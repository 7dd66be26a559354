"""AP compared with a plain implementation of the protocol, and with cases computed by hand."""

import numpy as np
import pytest

from pfdet.evaluation.average_precision import average_precision
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import GroundTruth


def _overlap(a, b, over_union):
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    area_a = (a[2] - a[0]) * (a[3] - a[1])
    area_b = (b[2] - b[0]) * (b[3] - b[1])
    inter = height * width
    return inter / (area_a + area_b - inter) if over_union else inter / area_a


def _argmax(values):
    best = 0
    for i, value in enumerate(values):
        if value > values[best]:
            best = i
    return best


def _evaluate_image(dets, normal, groups, iou_thresh, weight):
    """The entries (score, true positive weight) of one image and class, in the order of ties."""
    # Sorted in ascending order and reversed, so that the last of equal scores goes first.
    dets = sorted(dets, key=lambda d: d[0])[::-1]
    right, in_group = [False] * len(dets), [False] * len(dets)
    taken = [False] * len(normal)
    if normal:
        for i, (_, box) in enumerate(dets):
            ious = [_overlap(box, b, True) for b in normal]
            j = _argmax(ious)
            if ious[j] >= iou_thresh and not taken[j]:
                right[i] = taken[j] = True
    group_scores = [0.0] * len(groups)
    if groups:
        for i, (score, box) in enumerate(dets):
            parts = [_overlap(box, b, False) for b in groups]
            j = _argmax(parts)
            if not right[i] and parts[j] >= iou_thresh:
                in_group[i] = True
                group_scores[j] = max(group_scores[j], score)
    entries = [(d[0], float(r)) for d, r, g in zip(dets, right, in_group) if not g]
    return entries + [(s, weight) for s in group_scores if s > 0 and weight > 0]


def plain_average_precision(detections, truth, n_class, iou_thresh=0.5, weight=1.0):
    """The protocol step by step in plain Python: APs, and curves (score, recall, precision)."""
    aps, curves = [], []
    for c in range(n_class):
        entries, n_positive = [], 0
        for image_id in sorted(truth.image_ids):
            i = list(truth.image_ids).index(image_id)
            boxes = [
                g for g in range(len(truth.image)) if truth.image[g] == i and truth.label[g] == c
            ]
            normal = [truth.bbox[g].tolist() for g in boxes if not truth.group_of[g]]
            groups = [truth.bbox[g].tolist() for g in boxes if truth.group_of[g]]
            n_positive += len(normal) + weight * len(groups)
            if not boxes and not truth.verified[i, c]:
                continue
            dets = []
            for d in range(len(detections.image)):
                y0, x0, y1, x1 = box = detections.bbox[d].tolist()
                if (
                    detections.image_ids[detections.image[d]] == image_id
                    and detections.label[d] == c
                    and y0 < y1
                    and x0 < x1
                ):
                    dets.append((float(detections.score[d]), box))
            if dets:
                entries += _evaluate_image(dets, normal, groups, iou_thresh, weight)
        if n_positive == 0:
            aps.append(float('nan'))
            curves.append(None)
            continue
        entries = sorted(entries, key=lambda e: e[0])[::-1]
        points, tp, fp = [], 0.0, 0
        for score, value in entries:
            tp += value
            fp += value <= 0
            points.append((score, tp / n_positive, tp / (tp + fp)))
        ap, last = 0.0, 0.0
        for k, (_, recall, _) in enumerate(points):
            ap += (recall - last) * max(p for _, _, p in points[k:])
            last = recall
        aps.append(ap)
        curves.append(points)
    return aps, curves


def _random_case(rng):
    n_image, n_class = rng.integers(1, 4), rng.integers(1, 4)
    ids = [f'{i:02}' for i in rng.permutation(n_image)]

    def boxes(n):
        # A coarse grid makes equal boxes, equal overlaps and empty boxes common.
        corners = rng.integers(0, 5, (2, n, 2)) / 4
        b = np.concatenate((corners.min(0), corners.max(0)), axis=1).astype(np.float32)
        return b + np.where(rng.random((n, 1)) < 0.3, rng.random((n, 4)) * 0.05, 0).astype(
            np.float32
        )

    g, d = rng.integers(0, 13), rng.integers(0, 21)
    truth = GroundTruth(
        image_ids=ids,
        image=rng.integers(0, n_image, g).astype(np.int32),
        label=rng.integers(0, n_class, g).astype(np.int32),
        bbox=boxes(g),
        group_of=rng.random(g) < rng.choice([0, 0.3, 1]),
        verified=rng.random((n_image, n_class)) < 0.5,
    )
    det_ids = [f'{i:02}' for i in rng.permutation(n_image + 1)]
    score = rng.random(d)
    if rng.random() < 0.6:
        # Equal scores, including 0 and -0, negative and subnormal scores.
        score = rng.integers(rng.choice([-2, 0]), 4, d) / 4 * rng.choice([1, -1, 1e-40])
    detections = Detections(
        image_ids=det_ids,
        image=rng.integers(0, n_image + 1, d).astype(np.int32),
        label=rng.integers(0, n_class, d).astype(np.int32),
        score=score.astype(np.float32),
        bbox=boxes(d),
    )
    if d and g:
        copies = rng.random(d) < 0.5
        detections.bbox[copies] = truth.bbox[rng.integers(0, g, copies.sum())]
    return detections, truth, n_class


@pytest.mark.parametrize('iou_thresh, weight', [(0.5, 1.0), (0.5, 0.0), (0.25, 0.5), (1.0, 1.0)])
def test_equals_plain_implementation(iou_thresh, weight):
    rng = np.random.default_rng(0)
    informative = 0
    for _ in range(1500):
        detections, truth, n_class = _random_case(rng)
        expected, curves = plain_average_precision(detections, truth, n_class, iou_thresh, weight)
        result = average_precision(detections, truth, n_class, iou_thresh, weight)
        np.testing.assert_allclose(result['ap'], expected, rtol=0, atol=1e-9)
        for c, points in enumerate(curves):
            if points is None:
                assert result['precision'][c] is None
                continue
            columns = [result[name][c] for name in ('score', 'recall', 'precision')]
            np.testing.assert_allclose(
                np.stack(columns, axis=1), np.reshape(points, (-1, 3)), rtol=0, atol=1e-9
            )
            assert result['n_detection'][c] == len(points)
        finite = [ap for ap in expected if ap == ap]
        informative += any(0 < ap < 1 for ap in finite)
        if finite:
            assert result['map'] == pytest.approx(np.mean(finite), abs=1e-9)
        else:
            assert np.isnan(result['map'])
    assert informative > 100


def test_double_precision_and_overlaps_close_to_the_threshold():
    # Some corners are moved by one ulp from where the overlap is exactly one half.
    rng = np.random.default_rng(2)
    informative = 0
    for dtype in (np.float32, np.float64):
        for _ in range(200):
            detections, truth, n_class = _random_case(rng)
            detections.score = detections.score.astype(dtype)
            for table in (detections, truth):
                bbox = table.bbox.round(2).astype(dtype)
                moved = (rng.random(bbox.shape) < 0.3) & (bbox > 0.1)
                bbox[moved] = np.nextafter(bbox, rng.choice([-1, 2]), dtype=dtype)[moved]
                table.bbox = bbox
            expected, _ = plain_average_precision(detections, truth, n_class)
            result = average_precision(detections, truth, n_class)
            np.testing.assert_allclose(result['ap'], expected, rtol=0, atol=1e-9)
            informative += any(0 < ap < 1 for ap in expected)
    assert informative > 50


def _case(dets, boxes, verified=((True,),), ids=('a',)):
    """Detections from (image, label, score, box), ground truth from (image, label, box, group)."""
    return (
        Detections(
            image_ids=ids,
            image=np.array([d[0] for d in dets], np.int32),
            label=np.array([d[1] for d in dets], np.int32),
            score=np.array([d[2] for d in dets], np.float32),
            bbox=np.array([d[3] for d in dets], np.float32).reshape(-1, 4),
        ),
        GroundTruth(
            image_ids=ids,
            image=np.array([b[0] for b in boxes], np.int32),
            label=np.array([b[1] for b in boxes], np.int32),
            bbox=np.array([b[2] for b in boxes], np.float32).reshape(-1, 4),
            group_of=np.array([b[3] for b in boxes], bool),
            verified=np.array(verified),
        ),
    )


_LEFT, _RIGHT = (0, 0, 1, 0.5), (0, 0.5, 1, 1)
_ALL, _TOP_LEFT = (0, 0, 1, 1), (0, 0, 0.5, 0.5)


def test_duplicate_is_false_positive_even_if_another_box_is_unmatched():
    # The second detection has its highest IoU with the left box, which is matched already. It also
    # overlaps the wide box by half, but is not matched with it.
    dets = [(0, 0, 0.9, _LEFT), (0, 0, 0.8, (0, 0, 1, 0.52)), (0, 0, 0.7, (0, 0, 1, 0.51))]
    boxes = [(0, 0, _LEFT, False), (0, 0, _ALL, False)]
    result = average_precision(*_case(dets, boxes), 1)
    assert result['ap'][0] == pytest.approx(0.5)
    assert result['n_detection'][0] == 3 and result['n_true_positive'][0] == 1


def test_group_of_counts_once_with_its_best_score():
    dets = [(0, 0, 0.9, _RIGHT), (0, 0, 0.8, _TOP_LEFT), (0, 0, 0.7, _LEFT), (0, 0, 0.6, _LEFT)]
    result = average_precision(*_case(dets, [(0, 0, _LEFT, True)]), 1)
    # A false positive at 0.9, then the group-of box at 0.8. The other two are ignored.
    np.testing.assert_allclose(result['score'][0], [0.9, 0.8], rtol=1e-6)
    np.testing.assert_allclose(result['precision'][0], [0, 0.5])
    np.testing.assert_allclose(result['recall'][0], [0, 1])
    assert result['ap'][0] == pytest.approx(0.5)
    assert result['n_ignored']['group of'] == 3
    ignored = average_precision(*_case(dets, [(0, 0, _LEFT, True)]), 1, group_of_weight=0)
    assert np.isnan(ignored['ap'][0])


def test_unverified_class_is_ignored_and_negative_label_is_not():
    dets = [(0, 0, 0.9, _LEFT), (1, 0, 0.95, _LEFT)]
    boxes = [(0, 0, _LEFT, False)]
    unverified = average_precision(*_case(dets, boxes, [[False], [False]], ('a', 'b')), 1)
    assert unverified['ap'][0] == 1 and unverified['n_ignored']['unverified class'] == 1
    negative = average_precision(*_case(dets, boxes, [[False], [True]], ('a', 'b')), 1)
    assert negative['ap'][0] == pytest.approx(0.5)


def test_no_ground_truth_and_no_detections():
    no_boxes = average_precision(*_case([(0, 0, 0.9, _LEFT)], []), 1)
    assert np.isnan(no_boxes['map']) and no_boxes['precision'] == [None]
    no_detections = average_precision(*_case([], [(0, 0, _LEFT, False)]), 1)
    assert no_detections['map'] == 0 and len(no_detections['recall'][0]) == 0
    nothing = average_precision(*_case([], []), 1)
    assert np.isnan(nothing['map'])


def test_shape_of_verified_is_checked():
    detections, truth = _case([], [])
    with pytest.raises(ValueError, match='verified has shape'):
        average_precision(detections, truth, 2)


def test_blocks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(1)
    cases = [_random_case(rng) for _ in range(50)]
    whole = [average_precision(*case)['ap'] for case in cases]
    monkeypatch.setattr('pfdet.boxes.pairs.PAIRS_PER_BLOCK', 3)
    for case, expected in zip(cases, whole):
        np.testing.assert_array_equal(average_precision(*case)['ap'], expected)
