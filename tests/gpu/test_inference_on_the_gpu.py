"""NMS, NMW and the selection of detections on CuPy arrays against NumPy arrays."""

import numpy as np
import pytest
from chainer.backends import cuda

from pfdet.boxes.nms import non_maximum_suppression
from pfdet.boxes.nmw import non_maximum_weighted
from pfdet.functions.expand_scores import expand_scores
from pfdet.inference.postprocessing import select

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.available, reason='no GPU')]


def random_boxes(rng, n):
    corner = rng.uniform(0, 60, (n, 2))
    return (np.concatenate([corner, corner + rng.uniform(5, 60, (n, 2))], axis=1) / 120).astype('f')


def equal(on_gpu, on_cpu):
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        assert isinstance(ours, cuda.ndarray) and ours.dtype == theirs.dtype
        np.testing.assert_allclose(cuda.to_cpu(ours), theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('n_box', [0, 1, 400])
@pytest.mark.parametrize(
    'function, options',
    [
        (non_maximum_suppression, {}),
        (non_maximum_weighted, {}),
        (non_maximum_weighted, {'join': 'nearest'}),
    ],
)
def test_suppression(function, options, n_box):
    rng = np.random.default_rng(n_box)
    bbox, label = random_boxes(rng, n_box), rng.integers(0, 5, n_box).astype(np.int32)
    # Some scores are equal.
    score = (rng.integers(1, 300, n_box) / 300).astype(np.float32)
    expected = function(bbox, score, label, 0.5, **options)
    assert n_box < 2 or len(expected[0]) < n_box
    equal(function(*map(cuda.to_gpu, (bbox, score, label)), 0.5, **options), expected)


@pytest.mark.parametrize('n_box_each', [1, 7])
def test_selection(n_box_each):
    rng = np.random.default_rng(0)
    bbox = random_boxes(rng, 150 * n_box_each).reshape(150, n_box_each, 4)
    score = rng.random((150, 7), np.float32) ** 4
    expected = select(bbox, score, 0.05, 0.5, 100)
    assert len(expected[0]) == 100
    equal(select(cuda.to_gpu(bbox), cuda.to_gpu(score), 0.05, 0.5, 100), expected)


def test_expanded_scores():
    rng = np.random.default_rng(0)
    score, descendants = rng.random((30, 9), np.float32), np.zeros((9, 9), bool)
    descendants[2, [4, 5]] = descendants[0, [1, 2, 4, 5]] = True
    equal([expand_scores(cuda.to_gpu(score), descendants)], [expand_scores(score, descendants)])
