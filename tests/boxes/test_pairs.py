"""Sort keys, stable argsort and enumeration of pairs, compared with plain Python."""

import numpy as np
import pytest

from pfdet.boxes import pairs


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, np.int32])
def test_score_keys_have_the_order_of_scores(dtype):
    score = np.array([0, -0.0, 1, -1, 2, -2, 100, -100, 1, 5], dtype)
    if np.dtype(dtype).kind == 'f':
        tiny = np.finfo(dtype).smallest_subnormal
        score = np.append(score, np.array([tiny, -tiny, np.finfo(dtype).max, 0.1, -0.1], dtype))
    key = pairs.score_keys(score)
    assert key.dtype == np.int64 and (abs(key) <= 2**31).all()
    np.testing.assert_array_equal(key[:, None] < key, score[:, None] < score)
    np.testing.assert_array_equal(key[:, None] == key, score[:, None] == score)


@pytest.mark.parametrize('high', [3, 10**6, 2**62])
@pytest.mark.parametrize('n', [0, 1, 500])
def test_stable_argsort(n, high):
    key = np.random.default_rng(0).integers(0, high, n)
    assert pairs.stable_argsort(key).tolist() == sorted(range(n), key=lambda i: key[i])


@pytest.mark.parametrize('size', [1, 3, 1000])
def test_blocks_and_pairs_cover_every_row_once(monkeypatch, size):
    monkeypatch.setattr(pairs, 'PAIRS_PER_BLOCK', size)
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = rng.integers(0, 6, rng.integers(1, 12)) * rng.integers(0, 2)
        found = []
        for block in pairs.blocks(count):
            row, position = pairs.rows_of_pairs(count[block])
            found += zip((row + block.start).tolist(), position.tolist())
            assert len(row) < size + max(count)
        assert found == [(i, k) for i, n in enumerate(count) for k in range(n)]
    assert list(pairs.blocks(np.zeros(0, int))) == []
