import chainer
import numpy as np
import pytest
from chainercv.links.model.fpn import rpn as chainercv_rpn
from chainercv.utils import non_maximum_suppression

from pfdet.boxes.proposal_nms import suppress_sorted
from pfdet.links import rpn as rpn_module
from pfdet.links.rpn import RPN

SCALES = (1 / 4, 1 / 8, 1 / 16)
SIZES = [(12, 16), (6, 8), (3, 4)]


def random_boxes(rng, *shape):
    corner = rng.uniform(0, 60, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 40, (*shape, 2))], axis=-1).astype(
        np.float32
    )


@pytest.mark.parametrize('pass_entries', [1 << 22, 100])
def test_suppression_equals_chainercv(pass_entries, monkeypatch):
    monkeypatch.setattr('pfdet.boxes.proposal_nms._PASS_ENTRIES', pass_entries)
    rng = np.random.default_rng(0)
    bbox = random_boxes(rng, 6, 40)
    valid = rng.random((6, 40)) < 0.8
    keep = suppress_sorted(bbox, valid, 0.4)
    assert 0 < keep.sum() < valid.sum()
    for b, v, k in zip(bbox, valid, keep, strict=True):
        index = np.flatnonzero(v)
        expected = index[non_maximum_suppression(b[index], 0.4)]
        np.testing.assert_array_equal(np.flatnonzero(k), np.sort(expected))


def test_anchors():
    rpn = RPN(SCALES, (0.5, 1, 2), 32, n_channel=4)
    anchors = rpn.anchors(SIZES)
    assert anchors.shape == (3 * (12 * 16 + 6 * 8 + 3 * 4), 4)
    # The square anchor at row 2, column 5 of the first level.
    np.testing.assert_allclose(anchors[(2 * 16 + 5) * 3 + 1], [10 - 16, 22 - 16, 26, 38])
    size = anchors[:, 2:] - anchors[:, :2]
    np.testing.assert_allclose(size[:3, 0] / size[:3, 1], [0.5, 1, 2], rtol=1e-5)
    # One size per level, proportional to the stride.
    np.testing.assert_allclose(size[: 12 * 16 * 3].prod(axis=1), 32**2, rtol=1e-5)
    np.testing.assert_allclose(size[-1].prod(), 128**2, rtol=1e-5)


def test_outputs_have_the_order_of_anchors():
    rpn = RPN(SCALES, (0.5, 1, 2), n_channel=4)
    hs = [np.random.default_rng(0).normal(size=(2, 4, *s)).astype(np.float32) for s in SIZES]
    locs, confs, n_anchors = rpn(hs)
    assert locs.shape == (2, sum(n_anchors), 4)
    assert n_anchors == [3 * h * w for h, w in SIZES]
    h = chainer.functions.relu(rpn.conv(hs[1]))
    start = n_anchors[0] + (3 * 8 + 2) * 3
    np.testing.assert_allclose(
        confs.array[1, start : start + 3], rpn.conf(h).array[1, :, 3, 2], rtol=1e-5
    )
    np.testing.assert_allclose(locs.array[1, start + 1], rpn.loc(h).array[1, 4:8, 3, 2], rtol=1e-5)


def test_proposals_equal_chainercv():
    """Compare with ChainerCV's loop over images and levels, with equal limits and anchors."""
    rng = np.random.default_rng(0)
    rpn = RPN(SCALES, (0.5, 1, 2), 32, n_channel=4, train_limits=(50, 60))
    theirs = chainercv_rpn.RPN(SCALES)
    theirs._train_nms_limit_pre, theirs._train_nms_limit_post = 50, 60
    anchors = rpn.anchors(SIZES)
    n = [3 * h * w for h, w in SIZES]
    locs = rng.normal(scale=0.3, size=(2, sum(n), 4)).astype(np.float32)
    confs = rng.normal(size=(2, sum(n))).astype(np.float32)
    proposals = rpn.decode(locs, confs, anchors, n, (48, 64))

    ends = np.cumsum(n)[:-1]
    rois, indices = theirs.decode(
        [chainer.Variable(a) for a in np.split(locs, ends, axis=1)],
        [chainer.Variable(a) for a in np.split(confs, ends, axis=1)],
        np.split(anchors, ends),
        (2, 3, 48, 64),
    )
    for i in range(2):
        ours = proposals.bbox[i][proposals.valid[i]]
        assert len(ours) > 20
        np.testing.assert_allclose(ours, rois[indices == i], atol=1e-4)
        # The anchor indices give the logits in descending order.
        score = confs[i, proposals.anchor[i][proposals.valid[i]]]
        assert (np.diff(score) <= 0).all()


def test_best_keeps_order_of_ties():
    score = np.array([[1, 3, 3, 0, 3, 2]], np.float32)
    np.testing.assert_array_equal(rpn_module._best(np, score, 2), [[1, 2]])
    np.testing.assert_array_equal(rpn_module._best(np, score, 4), [[1, 2, 4, 5]])
