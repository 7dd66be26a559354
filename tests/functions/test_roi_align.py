import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check

from pfdet.functions.roi_align import pyramid_roi_align, roi_average_align_2d


def boxes_over(rng, n, H, W):
    """Draw boxes inside, across and outside an H x W image; some are empty."""
    corner = rng.uniform(-0.3, 1.1, (n, 2, 2))
    rois = np.concatenate([corner.min(axis=1), corner.max(axis=1)], axis=1)
    rois[0] = [0, 0, 1, 1]
    rois[1] = [0.5, 0.5, 0.5, 0.5]
    rois[2] = [-1, -1, -0.8, -0.9]
    return (rois * [H, W, H, W]).astype(np.float32)


@pytest.mark.parametrize('outsize, ratio', [(7, 2), ((3, 5), (1, 3))])
@pytest.mark.parametrize('size, scale', [((6, 9), 0.25), ((1, 1), 1 / 32)])
def test_equals_chainer(outsize, ratio, size, scale):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, *size)).astype(np.float32)
    rois = boxes_over(rng, 12, size[0] / scale, size[1] / scale)
    indices = rng.integers(0, 2, 12).astype(np.int32)
    results = []
    for function in roi_average_align_2d, F.roi_average_align_2d:
        v = chainer.Variable(x)
        y = function(v, rois, indices, outsize, scale, ratio)
        y.grad = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
        y.backward()
        results.append((y.array, v.grad))
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_gradient_equals_the_numerical_gradient():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 2, 5, 6))
    rois = boxes_over(rng, 5, 20, 24)
    indices = np.array([0, 1, 0, 1, 1], np.int32)
    gradient_check.check_backward(
        lambda x: roi_average_align_2d(x, rois, indices, 2, 0.25),
        x,
        rng.normal(size=(5, 2, 2, 2)),
        dtype=np.float64,
        atol=1e-4,
        rtol=1e-4,
    )


def test_no_boxes():
    x = np.zeros((1, 3, 4, 4), np.float32)
    y = roi_average_align_2d(x, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), 7, 0.25)
    assert y.shape == (0, 3, 7, 7)


def test_pyramid_equals_single_maps():
    """The pyramid gives the same result as single maps; one map has no boxes."""
    rng = np.random.default_rng(0)
    scales = (1 / 4, 1 / 8, 1 / 16)
    xs = [chainer.Variable(rng.normal(size=(2, 3, n, n)).astype(np.float32)) for n in (16, 8, 4)]
    rois = boxes_over(rng, 10, 64, 64)
    indices = rng.integers(0, 2, 10).astype(np.int32)
    level = rng.choice([0, 2], 10)
    y = pyramid_roi_align(xs, rois, indices, level, 3, scales)
    y.grad = gy = rng.normal(size=y.shape).astype(np.float32)
    y.backward()
    for i, x in enumerate(xs):
        index = np.flatnonzero(level == i)
        single = chainer.Variable(x.array)
        expected = roi_average_align_2d(single, rois[index], indices[index], 3, scales[i])
        np.testing.assert_allclose(y.array[index], expected.array, atol=1e-6)
        expected.grad = gy[index]
        expected.backward()
        np.testing.assert_allclose(x.grad, single.grad, atol=1e-5)
