"""Suppression and post-processing give equal results on CuPy and NumPy arrays."""

import numpy as np
import pytest
from chainer.backends import cuda

from pfdet.boxes.nms import non_maximum_suppression
from pfdet.boxes.nmw import non_maximum_weighted
from pfdet.inference.postprocessing import select

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.available, reason='no GPU')]


def random_boxes(n, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.random((8, 2))[rng.integers(0, 8, n)] + rng.normal(0, 0.05, (n, 2))
    size = rng.uniform(0.1, 0.4, (n, 2))
    bbox = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(dtype)
    # Some scores are equal.
    return bbox, rng.integers(0, n, n).astype(dtype) / n, rng.integers(0, 5, n)


def assert_same(on_gpu, expected):
    assert all(isinstance(a, cuda.ndarray) for a in on_gpu)
    bbox, score, label = map(cuda.to_cpu, on_gpu)
    assert [a.dtype for a in (bbox, score, label)] == [a.dtype for a in expected]
    np.testing.assert_array_equal(score, expected[1])
    np.testing.assert_array_equal(label, expected[2])
    # The order of summation on a GPU is not deterministic.
    np.testing.assert_allclose(bbox, expected[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('iou_thresh', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('n', [0, 1, 2, 500])
def test_suppression_on_the_gpu(n, iou_thresh, dtype):
    boxes = random_boxes(n, dtype)
    on_gpu = [cuda.to_gpu(a) for a in boxes]
    assert_same(
        non_maximum_suppression(*on_gpu, iou_thresh), non_maximum_suppression(*boxes, iou_thresh)
    )
    for join in 'highest', 'nearest':
        assert_same(
            non_maximum_weighted(*on_gpu, iou_thresh, join=join),
            non_maximum_weighted(*boxes, iou_thresh, join=join),
        )


def test_labels_far_apart_on_the_gpu():
    bbox, score, label = random_boxes(300)
    label = np.array([-(2**62), 0, 1, 5, 2**62])[label]
    assert_same(
        non_maximum_weighted(*map(cuda.to_gpu, (bbox, score, label))),
        non_maximum_weighted(bbox, score, label),
    )


def test_blocks_on_the_gpu(monkeypatch):
    boxes = random_boxes(300)
    monkeypatch.setattr('pfdet.boxes.pairs.PAIRS_PER_GPU_BLOCK', 1000)
    assert_same(non_maximum_weighted(*map(cuda.to_gpu, boxes)), non_maximum_weighted(*boxes))


@pytest.mark.parametrize('B', [1, 6])
def test_select_on_the_gpu(B):
    bbox, _, _ = random_boxes(200 * B)
    bbox = bbox.reshape(200, B, 4)
    score = np.random.default_rng(1).beta(0.3, 3, (200, 6)).astype(np.float32)
    assert_same(
        select(cuda.to_gpu(bbox), cuda.to_gpu(score), 0.05, 0.5, 100),
        select(bbox, score, 0.05, 0.5, 100),
    )
