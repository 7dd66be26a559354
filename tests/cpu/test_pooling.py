"""The CPU max pooling against Chainer's version, which install() replaces."""

import inspect

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.functions.pooling import max_pooling_nd

from pfdet.cpu import pooling

CLASSES = max_pooling_nd.MaxPoolingND, max_pooling_nd.MaxPoolingNDGrad


def output_and_gradient(x, args):
    x = chainer.Variable(x)
    y = F.max_pooling_2d(x, **args)
    y.grad = np.random.default_rng(1).normal(size=y.shape).astype(x.dtype)
    y.backward()
    return y.array, x.grad


@pytest.mark.parametrize(
    'args',
    [
        {'ksize': 3, 'stride': 2},
        {'ksize': 3, 'stride': 2, 'pad': 1, 'cover_all': False},
        {'ksize': 2, 'stride': 2},
        {'ksize': 1, 'stride': 2, 'cover_all': False},
        {'ksize': (2, 3), 'stride': (1, 3), 'pad': (1, 0)},
        {'ksize': 5, 'stride': 7, 'pad': 2},
    ],
)
@pytest.mark.parametrize('size', [(8, 11), (7, 7), (3, 4)])
def test_equals_chainer(args, size, monkeypatch):
    pooling.install()
    # Integers, so that there are ties, and an infinity.
    x = np.random.default_rng(0).integers(-3, 3, (2, 5, *size)).astype(np.float32)
    x[0, 0, 0, 0] = -np.inf
    ours = output_and_gradient(x, args)
    for cls in CLASSES:
        assert hasattr(cls.forward_cpu, '__wrapped__')
        monkeypatch.setattr(cls, 'forward_cpu', inspect.unwrap(cls.forward_cpu))
    for a, b in zip(ours, output_and_gradient(x, args)):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_keeps_nan():
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 0, 1] = np.nan
    y, _ = pooling.max_pooling(x, (2, 2), (2, 2), (0, 0), (2, 2))
    np.testing.assert_array_equal(np.isnan(y[0, 0]), [[True, False], [False, False]])
