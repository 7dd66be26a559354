"""Post-processing compared with a loop over regions and classes."""

import numpy as np
import pytest

from pfdet.boxes.nmw import non_maximum_weighted
from pfdet.inference.postprocessing import select


def random_output(rng, K, C, B):
    centre = rng.random((5, 2))[rng.integers(0, 5, K)] + rng.normal(0, 0.04, (K, 2))
    size = rng.uniform(0.1, 0.4, (K, 2))
    bbox = np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, 1)
    bbox = bbox[:, None] + rng.normal(0, 0.01, (K, B, 1))
    return bbox.astype(np.float32), rng.beta(0.2, 3, (K, C)).astype(np.float32)


@pytest.mark.parametrize('B', [1, 7])
@pytest.mark.parametrize('limit', [5, 1000])
def test_equals_loop_over_classes(B, limit):
    rng = np.random.default_rng(0)
    merged = 0
    for _ in range(10):
        bbox, score = random_output(rng, 60, 7, B)
        thresh = float(score[3, 4])  # A score equal to the threshold is kept.
        found = []
        for c in range(7):
            rows = [k for k in range(60) if score[k, c] >= thresh]
            boxes, scores, _ = non_maximum_weighted(
                bbox[rows, min(c, B - 1)], score[rows, c], np.zeros(len(rows), int), 0.45
            )
            found += [(-s, c, *b) for b, s in zip(boxes.tolist(), scores.tolist())]
            merged += len(rows) - len(scores)
        expected = np.array(sorted(found)[:limit])
        result = select(bbox, score, thresh, 0.45, limit)
        np.testing.assert_array_equal(result[1], -expected[:, 0].astype(np.float32))
        np.testing.assert_array_equal(result[2], expected[:, 1])
        np.testing.assert_allclose(result[0], expected[:, 2:], rtol=1e-6)
        assert [a.dtype for a in result] == [np.float32, np.float32, np.int32]
    assert merged > 100


def test_no_detections():
    for K, thresh in (0, 0.0), (4, 2.0):
        bbox, score, label = select(
            np.zeros((K, 1, 4), np.float32), np.zeros((K, 3), np.float32), thresh, 0.5, 10
        )
        assert bbox.shape == (0, 4) and score.shape == label.shape == (0,)
        assert label.dtype == np.int32
