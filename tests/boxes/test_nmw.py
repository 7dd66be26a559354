"""NMS and NMW compared with plain loops and with the package ensemble-boxes."""

import numpy as np
import pytest

from pfdet.boxes.nms import non_maximum_suppression
from pfdet.boxes.nmw import non_maximum_weighted


def _iou(a, b):
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    inter = height * width
    if inter == 0:
        return 0.0
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def _by_score(kept):
    # By descending score, then by index.
    kept = sorted(kept, key=lambda k: (-k[1], k[3]))
    return (
        np.array([k[0] for k in kept]).reshape(-1, 4),
        np.array([k[1] for k in kept]),
        np.array([k[2] for k in kept], int),
    )


def loop_nmw(bbox, score, label, iou_thresh, weighted=True):
    """Per class: take the highest-scoring box, merge the boxes that overlap it, repeat."""
    kept = []
    bbox, score = bbox.astype(float), score.astype(float)
    for c in np.unique(label):
        left = sorted(np.flatnonzero(label == c), key=lambda i: (-score[i], i))
        while left:
            leader, rest = left[0], left[1:]
            ious = {i: _iou(bbox[leader], bbox[i]) for i in rest}
            joined = [i for i in rest if ious[i] > iou_thresh]
            left = [i for i in rest if ious[i] <= iou_thresh]
            weights = [score[leader]] + [score[i] * ious[i] for i in joined]
            box = bbox[leader]
            if weighted and sum(weights) > 0:
                box = np.average(bbox[[leader] + joined], axis=0, weights=weights)
            kept.append((box, score[leader], c, leader))
    return _by_score(kept)


def _random_boxes(rng, n, n_class, n_object=8, dtype=np.float32):
    """Jittered copies of a few boxes, so that suppression chains occur."""
    objects = rng.random((n_object, 2, 2))
    corners = objects[rng.integers(0, n_object, n)] + rng.normal(0, 0.06, (n, 2, 2))
    corners = corners.clip(0, 1)
    bbox = np.concatenate((corners.min(1), corners.max(1)), axis=1).astype(dtype)
    return bbox, rng.random(n).astype(dtype), rng.integers(0, n_class, n)


@pytest.mark.parametrize('iou_thresh', [0.0, 0.3, 0.5, 0.9, 1.0])
def test_equals_loop(iou_thresh):
    rng = np.random.default_rng(0)
    merged = 0
    for _ in range(60):
        bbox, score, label = _random_boxes(rng, rng.integers(0, 60), rng.integers(1, 4))
        if rng.random() < 0.3:
            score = (score * 4).round() / 4
        for function, weighted in ((non_maximum_weighted, True), (non_maximum_suppression, False)):
            result = function(bbox, score, label, iou_thresh)
            expected = loop_nmw(bbox, score, label, iou_thresh, weighted)
            np.testing.assert_allclose(result[0], expected[0], atol=1e-6)
            np.testing.assert_array_equal(result[1], expected[1].astype(np.float32))
            np.testing.assert_array_equal(result[2], expected[2])
            assert result[0].dtype == np.float32 and result[2].dtype == label.dtype
        merged += len(bbox) - len(result[0])
    assert merged > 100 or iou_thresh > 0.8


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('iou_thresh', [0.25, 0.5, 1 / 3, 0.6])
def test_overlap_equal_to_the_threshold_or_next_to_it(dtype, iou_thresh):
    # On a grid, many IoUs are exactly the threshold. Some corners are moved by one ulp. Decisions
    # made in single precision must agree with the IoU in double precision.
    rng = np.random.default_rng(4)
    at_threshold = 0
    for scale in (1, 1 / 7, 1e-3, 1e4):
        for _ in range(25):
            corner = rng.integers(0, 4, (2, 40, 2))
            bbox = np.concatenate((corner.min(0), corner.max(0) + 1), axis=1) * scale
            bbox = bbox.astype(dtype)
            moved = rng.random(bbox.shape) < 0.2
            bbox[moved] = np.nextafter(bbox, dtype(rng.choice([0, 1e9])))[moved]
            score, label = rng.random(40).astype(dtype), rng.integers(0, 3, 40)
            result = non_maximum_weighted(bbox, score, label, iou_thresh)
            expected = loop_nmw(bbox, score, label, iou_thresh)
            np.testing.assert_array_equal(result[1], expected[1].astype(dtype))
            np.testing.assert_allclose(result[0], expected[0], rtol=1e-6, atol=1e-6 * scale)
            ious = [_iou(a, b) for a in bbox.astype(float) for b in bbox.astype(float)]
            at_threshold += sum(abs(iou - iou_thresh) < 1e-6 for iou in ious)
    assert at_threshold > 100


def loop_nearest(bbox, score, label, iou_thresh):
    """As in ensemble-boxes: each box joins the leader it overlaps most, or becomes a leader."""
    groups = []
    for i in sorted(range(len(score)), key=lambda i: (-score[i], i)):
        ious = [
            _iou(bbox[g[0]].astype(float), bbox[i].astype(float))
            if label[g[0]] == label[i]
            else 0.0
            for g in groups
        ]
        best = max(range(len(groups)), key=lambda g: (ious[g], -g), default=None)
        if best is not None and ious[best] > iou_thresh:
            groups[best].append(i)
        else:
            groups.append([i])
    kept = []
    for leader, *joined in groups:
        weights = [score[leader]] + [
            score[i] * _iou(bbox[leader].astype(float), bbox[i].astype(float)) for i in joined
        ]
        box = np.average(bbox[[leader] + joined].astype(float), axis=0, weights=weights)
        kept.append((box, score[leader], label[leader], leader))
    return _by_score(kept)


def test_nearest_equals_loop():
    rng = np.random.default_rng(5)
    for k in range(60):
        bbox, score, label = _random_boxes(rng, rng.integers(1, 60), rng.integers(1, 3))
        if k % 2:
            # Some scores and some IoUs are equal.
            bbox, score = (bbox * 6).round() / 6, (score * 3).round() / 3 + np.float32(0.1)
        result = non_maximum_weighted(bbox, score, label, 0.3, join='nearest')
        expected = loop_nearest(bbox, score, label, 0.3)
        np.testing.assert_allclose(result[0], expected[0], atol=1e-6)
        np.testing.assert_array_equal(result[1], expected[1].astype(np.float32))
        np.testing.assert_array_equal(result[2], expected[2])


@pytest.mark.parametrize('label_type', [np.int32, np.int64, np.uint16])
def test_any_scores_and_labels(label_type):
    # Scores may be negative, 0 or -0, and labels may be far apart.
    rng = np.random.default_rng(6)
    bbox, _, label = _random_boxes(rng, 200, 4)
    score = rng.normal(size=200).round(1).astype(np.float32)
    score[::7] = -0.0
    far = np.array([0, 1, 2, np.iinfo(label_type).max]).astype(label_type)
    if label_type == np.int64:
        far[0] = -(2**62)
    result = non_maximum_suppression(bbox, score, far[label])
    expected = loop_nmw(bbox, score, label, 0.5, weighted=False)
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_array_equal(result[1], expected[1])
    np.testing.assert_array_equal(result[2], far[expected[2]])
    assert result[2].dtype == label_type
    in_double = non_maximum_suppression(bbox, score.astype(np.float64), label)
    np.testing.assert_array_equal(in_double[0], expected[0])


def test_boxes_far_from_the_origin():
    bbox, score, label = _random_boxes(np.random.default_rng(7), 200, 2, dtype=np.float64)
    moved = non_maximum_suppression(bbox * 512 + 2.0**20, score, label)
    np.testing.assert_array_equal(moved[1], non_maximum_suppression(bbox, score, label)[1])


def test_equals_ensemble_boxes():
    ensemble_boxes = pytest.importorskip('ensemble_boxes')
    rng = np.random.default_rng(1)
    differ = 0
    for k in range(40):
        dtype = np.float32 if k % 2 else np.float64
        models = [_random_boxes(rng, 60, 3, dtype=dtype) for _ in range(3)]
        models = [
            tuple(x[has_area] for x in m)
            for m in models
            for has_area in [(m[0][:, :2] < m[0][:, 2:]).all(1)]
        ]
        reference = ensemble_boxes.non_maximum_weighted(
            [m[0][:, [1, 0, 3, 2]] for m in models],
            [m[1] for m in models],
            [m[2] for m in models],
            iou_thr=0.5,
        )
        together = [np.concatenate(x) for x in zip(*models)]
        bbox, score, label = non_maximum_weighted(*together, 0.5, join='nearest')
        np.testing.assert_allclose(bbox[:, [1, 0, 3, 2]], reference[0], atol=1e-5)
        np.testing.assert_allclose(score, reference[1], atol=1e-5)
        np.testing.assert_array_equal(label, reference[2])
        highest = non_maximum_weighted(*together, 0.5)
        # The leaders are the same. A box that overlaps two of them may join the other one.
        np.testing.assert_array_equal(highest[1], score)
        differ += not np.allclose(highest[0], bbox, atol=1e-5)
    assert differ > 0


def test_chain_of_boxes():
    # Each box overlaps the next. The first suppresses the second, so the third is kept, and so on.
    x = np.arange(200) * 0.25
    bbox = np.stack((x * 0, x, x * 0 + 1, x + 1), axis=1).astype(np.float32)
    score = np.linspace(1, 0.1, 200).astype(np.float32)
    kept, _, _ = non_maximum_suppression(bbox, score, np.zeros(200, int), 0.5)
    np.testing.assert_array_equal(kept, bbox[::2])


def test_many_images_in_one_call():
    rng = np.random.default_rng(2)
    n_class, images = 5, [_random_boxes(rng, 40, 5) for _ in range(6)]
    bbox, score, label = (np.concatenate(x) for x in zip(*images))
    image = np.repeat(np.arange(6), 40)
    together = non_maximum_weighted(bbox, score, image * n_class + label)
    for i in range(6):
        alone = non_maximum_weighted(*images[i])
        of_image = together[2] // n_class == i
        np.testing.assert_array_equal(together[0][of_image], alone[0])
        np.testing.assert_array_equal(together[1][of_image], alone[1])
        np.testing.assert_array_equal(together[2][of_image] % n_class, alone[2])


def test_boxes_that_are_isolated_empty_or_scored_0_do_not_change():
    bbox = np.array(
        [[0, 0, 0.3, 0.3], [0.5, 0.5, 0.5, 0.7], [0, 0.6, 0.2, 1], [0, 0.6, 0.2, 0.99]], np.float32
    )
    score = np.array([0.3, 0.2, 0, 0], np.float32)
    result = non_maximum_weighted(bbox, score, np.zeros(4, int))
    np.testing.assert_array_equal(result[0], bbox[:3])
    np.testing.assert_array_equal(result[1], score[:3])
    nothing = non_maximum_weighted(bbox[:0], score[:0], np.zeros(0, int))
    assert [x.shape for x in nothing] == [(0, 4), (0,), (0,)]


def test_join_is_checked():
    with pytest.raises(ValueError, match="'both'"):
        non_maximum_weighted(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), join='both')


def test_blocks_do_not_change_the_result(monkeypatch):
    boxes = _random_boxes(np.random.default_rng(3), 300, 2)
    whole = non_maximum_weighted(*boxes)
    monkeypatch.setattr('pfdet.boxes.pairs.PAIRS_PER_BLOCK', 7)
    for a, b in zip(non_maximum_weighted(*boxes), whole):
        np.testing.assert_array_equal(a, b)
