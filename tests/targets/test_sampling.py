import tracemalloc

import numpy as np
import pytest

from pfdet.boxes import coding
from pfdet.boxes.iou import pairwise_ioa, pairwise_iou
from pfdet.links.rpn import Proposals
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.openimages.tables import GROUP_OF
from pfdet.targets.batch_truth import collate
from pfdet.targets.sampling import priorities, sample_anchors, sample_rois


def random_boxes(rng, n, size=100):
    corner = rng.uniform(-10, size - 10, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(3, 50, (n, 2))], axis=1).astype(np.float32)


def make_truth(bboxes, flags=None, n_class=3):
    n = len(bboxes)
    flags = flags or [np.zeros(len(b), np.uint8) for b in bboxes]
    label = [np.eye(n_class, dtype=bool)[np.arange(len(b)) % n_class] for b in bboxes]
    verified = [np.zeros(n_class, bool)] * n
    return collate(bboxes, label, flags, verified, verified, flat_hierarchy(n_class))


def plain_iou(a, b):
    h = min(a[2], b[2]) - max(a[0], b[0])
    w = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(h, 0) * max(w, 0)
    area = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return inter / (sum(area) - inter)


def test_overlaps_equal_the_definition():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 6), random_boxes(rng, 5)
    iou, inside = pairwise_iou(a, b), pairwise_ioa(a, b)
    for i in range(6):
        for j in range(5):
            assert iou[i, j] == pytest.approx(plain_iou(a[i], b[j]), abs=1e-5)
    assert pairwise_ioa(np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 20, 5]]))[0, 0] == 0.25
    assert (inside <= 1 + 1e-6).all()
    empty = np.array([[5.0, 5, 5, 5]])
    assert pairwise_iou(empty, empty)[0, 0] == 0 and pairwise_ioa(empty, empty)[0, 0] == 0


def test_priorities_depend_on_seed_and_position_only():
    a = priorities(1, [5, 9], 20)
    np.testing.assert_array_equal(a[1], priorities(1, [9], 20)[0])
    assert (a[0] != a[1]).any() and (a[0] != priorities(2, [5], 20)[0]).any()


def allowed(anchor, size, border):
    """Whether the RPN may learn from an anchor, literally."""
    if border < 0:
        return all(0 <= (anchor[k] + anchor[k + 2]) / 2 < size[k] for k in range(2))
    return (anchor[:2] >= -border).all() and (anchor[2:] <= size + border).all()


@pytest.mark.parametrize('border', [-1, 0, 7])
@pytest.mark.parametrize('n_pair', [1, 1 << 22])
def test_sample_anchors(border, n_pair):
    rng = np.random.default_rng(0)
    anchors = random_boxes(rng, 600)
    bboxes = [random_boxes(rng, 4, 60), random_boxes(rng, 2, 60), np.zeros((0, 4), np.float32)]
    flags = [np.array([0, 0, GROUP_OF, 0], np.uint8), np.zeros(2, np.uint8), np.zeros(0, np.uint8)]
    truth = make_truth(bboxes, flags)
    sizes = np.array([[90, 100], [100, 80], [100, 100]], np.float32)
    sampled = sample_anchors(
        anchors,
        truth,
        sizes,
        priorities(0, [0, 1, 2], 600),
        40,
        0.25,
        border=border,
        n_pair=n_pair,
    )
    for n in range(3):
        of_image = sampled.image == n
        assert of_image.sum() == 40 and sampled.positive[of_image].sum() <= 10
        np.testing.assert_allclose(sampled.weight[of_image], 1 / 40)
    assert not sampled.positive[sampled.image == 2].any()
    best = {
        n: [
            max(
                (plain_iou(a, b) for a in anchors if allowed(a, sizes[n], border)),
                default=0,
            )
            for b in bboxes[n]
        ]
        for n in range(3)
    }
    for n, a, positive, offset in zip(
        sampled.image, sampled.anchor, sampled.positive, sampled.offset, strict=True
    ):
        anchor = anchors[a]
        assert allowed(anchor, sizes[n], border)
        objects = [k for k in range(len(bboxes[n])) if not flags[n][k]]
        ious = [plain_iou(anchor, bboxes[n][k]) for k in objects]
        is_positive = bool(ious) and (
            max(ious) >= 0.7
            or any(
                v > 0 and v == pytest.approx(best[n][k], rel=1e-5)
                for v, k in zip(ious, objects, strict=True)
            )
        )
        assert positive == is_positive
        if positive:
            decoded = coding.decode(offset, anchor)
            np.testing.assert_allclose(decoded, bboxes[n][objects[int(np.argmax(ious))]], atol=1e-3)
        else:
            assert max(ious, default=0) < 0.3
            for k in set(range(len(bboxes[n]))) - set(objects):
                assert pairwise_ioa(anchor[None], bboxes[n][k][None])[0, 0] < 0.5


def test_the_best_anchor_of_each_object_is_positive_whatever_its_iou():
    anchors = np.array([[0, 0, 20, 20], [0, 30, 20, 50], [60, 60, 80, 80]], np.float32)
    # IoU 0.25 with the first anchor, and 0.5 and 0.25 with the second
    objects = np.array([[0, 0, 10, 10], [0, 30, 10, 50], [10, 40, 20, 50]], np.float32)
    sampled = sample_anchors(
        anchors, make_truth([objects]), np.array([[90, 90]], np.float32), priorities(0, [0], 3), 9
    )
    assert dict(zip(sampled.anchor.tolist(), sampled.positive.tolist(), strict=True)) == {
        0: True,
        1: True,
        2: False,
    }


def test_memory_does_not_grow_with_the_number_of_objects():
    rng = np.random.default_rng(0)
    anchors = random_boxes(rng, 20_000, 800)
    peaks = []
    for n in 10, 1000:
        truth = make_truth([random_boxes(rng, n, 800)])
        key = priorities(0, [0], len(anchors))
        tracemalloc.start()
        sample_anchors(anchors, truth, np.array([[800, 800]], np.float32), key, n_pair=200_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Ten objects take 200,000 pairs too. All pairs of a thousand would be 80 MB an array.
    assert peaks[1] < 1.5 * peaks[0]


def make_proposals(bbox, valid):
    anchor = np.broadcast_to(np.arange(bbox.shape[1]) * 3, bbox.shape[:2])
    return Proposals(bbox, valid, anchor)


def test_sample_rois():
    rng = np.random.default_rng(0)
    bboxes = [random_boxes(rng, 3), random_boxes(rng, 1), np.zeros((0, 4), np.float32)]
    truth = make_truth(bboxes)
    bbox = np.stack([random_boxes(rng, 50) for _ in range(3)])
    bbox[0, :20] = bboxes[0][0] + rng.uniform(-1, 1, (20, 4))
    valid = np.ones((3, 50), bool)
    valid[1, 10:] = False
    key = priorities(0, [0, 1, 2], 150 + truth.valid.shape[1])
    sample = sample_rois(make_proposals(bbox, valid), truth, key, 32, 0.25)
    assert sample.bbox.shape == (3, 32, 4)
    assert sample.foreground[0].sum() == 8
    # The ground truth box is a candidate: ten proposals and one object make 11 of 32 regions.
    assert sample.used.sum(axis=1).tolist() == [32, 11, 32]
    candidates = {tuple(b) for b in np.concatenate([bbox[1, :10], bboxes[1]]).tolist()}
    assert {tuple(b) for b in sample.bbox[1].tolist()} == candidates
    assert not sample.foreground[2].any()
    for n in range(3):
        chosen = [tuple(b) for b in sample.bbox[n][sample.used[n]].tolist()]
        assert len(set(chosen)) == len(chosen)
        for b, k, fg in zip(sample.bbox[n], sample.matched[n], sample.foreground[n], strict=True):
            ious = [plain_iou(b, g) for g in bboxes[n]]
            if fg:
                assert max(ious) >= 0.5 and k == int(np.argmax(ious))
            elif n != 0:
                assert max(ious, default=0) < 0.5


def test_one_more_proposal_changes_one_region():
    rng = np.random.default_rng(0)
    truth = make_truth([random_boxes(rng, 1)])
    bbox = random_boxes(rng, 40)[None]
    key = priorities(0, [7], 121)
    valid = np.ones((1, 40), bool)
    a = sample_rois(make_proposals(bbox, valid), truth, key, 20)
    valid = valid.copy()
    valid[0, 5] = False
    b = sample_rois(make_proposals(bbox, valid), truth, key, 20)
    boxes = [{tuple(x) for x in s.bbox[0].tolist()} for s in (a, b)]
    assert len(boxes[0] - boxes[1]) <= 1


def test_no_proposal_and_no_object():
    truth = make_truth([np.zeros((0, 4), np.float32)])
    sample = sample_rois(
        make_proposals(np.zeros((1, 1, 4), np.float32), np.zeros((1, 1), bool)),
        truth,
        priorities(0, [0], 4 + truth.valid.shape[1]),
        8,
    )
    assert not sample.used.any() and not sample.foreground.any()
