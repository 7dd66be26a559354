"""The CPU batch normalization against Chainer's version, which install() replaces."""

import inspect

import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check
from chainer.functions.normalization.batch_normalization import GeneralBatchNormalizationImpl

from pfdet.cpu import batch_normalization

IMPL = GeneralBatchNormalizationImpl


def output_and_gradients(shape, channels_last):
    rng = np.random.default_rng(0)
    x, gy = (rng.normal(2, 3, shape).astype(np.float32) for _ in range(2))
    if channels_last:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    bn = L.BatchNormalization(shape[1])
    bn.gamma.array[:] = rng.normal(size=shape[1])
    bn.beta.array[:] = rng.normal(size=shape[1])
    x = chainer.Variable(x)
    y = bn(x)
    y.grad = gy
    y.backward()
    return y.array, x.grad, bn.gamma.grad, bn.beta.grad, bn.avg_mean, bn.avg_var


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('shape', [(3, 5, 13, 11), (2, 4, 2, 3), (1, 3, 8, 8)])
def test_equals_chainer(shape, channels_last, monkeypatch):
    compare(shape, channels_last, monkeypatch)


@pytest.mark.parametrize('shape', [(130, 6), (5, 3)])
def test_equals_chainer_for_vectors(shape, monkeypatch):
    compare(shape, False, monkeypatch)


def compare(shape, channels_last, monkeypatch):
    batch_normalization.install()
    ours = output_and_gradients(shape, channels_last)
    for name in 'forward', 'backward':
        method = getattr(IMPL, name)
        assert hasattr(method, '__wrapped__')
        monkeypatch.setattr(IMPL, name, inspect.unwrap(method))
    theirs = output_and_gradients(shape, channels_last)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=2e-5 * abs(b).max())


def test_gradient_equals_the_numerical_gradient():
    batch_normalization.install()
    rng = np.random.default_rng(0)
    args = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=3), rng.normal(size=3)
    gradient_check.check_backward(
        lambda x, gamma, beta: chainer.functions.batch_normalization(x, gamma, beta),
        args,
        rng.normal(size=(2, 3, 3, 4)),
        dtype=np.float64,
        atol=1e-4,
        rtol=1e-4,
    )


def test_statistics_have_float64_precision():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 1, (4, 5000, 2)).astype(np.float32)
    mean, var = batch_normalization.moments(x)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1), dtype=np.float64), rtol=1e-7)
    np.testing.assert_allclose(var, x.var(axis=(0, 1), dtype=np.float64), rtol=1e-5)
