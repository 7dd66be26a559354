"""Encoding, decoding and clipping of boxes."""

import numpy as np

from pfdet.boxes import coding


def random_boxes(rng, *shape):
    corner = rng.uniform(0, 100, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 50, (*shape, 2))], axis=-1)


def test_decode_inverts_encode():
    rng = np.random.default_rng(0)
    bbox, base = random_boxes(rng, 3, 5), random_boxes(rng, 3, 5)
    offset = coding.encode(bbox, base, (0.1, 0.2))
    np.testing.assert_allclose(coding.decode(offset, base, (0.1, 0.2)), bbox)


def test_encode_by_hand():
    # The base is 10 x 20, centred at (5, 10); the box is 20 x 10, centred at (7, 9).
    offset = coding.encode(np.array([-3.0, 4, 17, 14]), np.array([0.0, 0, 10, 20]))
    np.testing.assert_allclose(offset, [0.2, -0.05, np.log(2), -np.log(2)])


def test_decode_limits_size():
    bbox = coding.decode(np.array([0.0, 0, 100, 100]), np.array([0.0, 0, 16, 16]))
    np.testing.assert_allclose(bbox[2:] - bbox[:2], 1000)


def test_clip():
    bbox = np.array([[-5.0, -5, 50, 50], [30, 2, 60, 8]], np.float32)
    np.testing.assert_array_equal(coding.clip(bbox, (20, 40)), [[0, 0, 20, 40], [20, 2, 20, 8]])
