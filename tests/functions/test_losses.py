import math

import numpy as np
import pytest
from chainer import gradient_check

from pfdet.functions.sigmoid import sigmoid_cross_entropy
from pfdet.functions.smooth_l1 import smooth_l1


def plain_sigmoid_cross_entropy(x, t):
    loss = 0.
    for x_row, t_row in zip(x, t, strict=True):
        for a, b in zip(x_row, t_row, strict=True):
            p = 1 / (1 + math.exp(-a))
            if b >= 0:
                loss -= math.log(p if b else 1 - p)
    return loss


@pytest.mark.parametrize('normalize, count', [('roi', 4), ('element', 8), ('positive', 2)])
def test_sigmoid_cross_entropy_is_its_equation(normalize, count):
    rng = np.random.default_rng(0)
    x = rng.normal(scale=3, size=(4, 3))
    t = np.array([[1, 0, -1], [0, 0, 0], [-1, -1, -1], [1, 1, 0]], np.int8)
    loss = sigmoid_cross_entropy(x, t, normalize)
    assert float(loss.array) == pytest.approx(plain_sigmoid_cross_entropy(x, t) / count, rel=1e-9)
    gradient_check.check_backward(
        lambda x: sigmoid_cross_entropy(x, t, normalize), x, np.array(2.), dtype=np.float64,
        atol=1e-4, rtol=1e-4)


def test_sigmoid_cross_entropy_is_finite_for_large_logits():
    import chainer

    x = chainer.Variable(np.array([[1e4, -1e4, 1e4, -1e4]], np.float32))
    loss = sigmoid_cross_entropy(x, np.array([[1, 0, 0, 1]], np.int8))
    loss.backward()
    assert float(loss.array) == pytest.approx(2e4)
    np.testing.assert_allclose(x.grad, [[0, 0, 1, -1]])


def test_sigmoid_cross_entropy_of_nothing_is_zero():
    x = np.zeros((2, 3), np.float32)
    t = np.full((2, 3), -1, np.int8)
    for normalize in 'roi', 'element', 'positive':
        assert float(sigmoid_cross_entropy(x, t, normalize).array) == 0


def test_sigmoid_cross_entropy_refuses():
    with pytest.raises(ValueError, match='shape'):
        sigmoid_cross_entropy(np.zeros((2, 3), np.float32), np.zeros((3, 2), np.int8))
    with pytest.raises(ValueError, match='normalize'):
        sigmoid_cross_entropy(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int8), 'batch')


def test_smooth_l1_is_its_equation():
    x = np.array([[0.05, -0.5, 2, -3]], np.float32)
    t = np.zeros((1, 4), np.float32)
    for beta in 1., 1 / 9:
        expected = sum(0.5 * v * v / beta if abs(v) < beta else abs(v) - beta / 2 for v in x[0])
        assert float(smooth_l1(x, t, beta).array[0]) == pytest.approx(expected, rel=1e-5)
