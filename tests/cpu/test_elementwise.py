import chainer
import chainer.functions as F
import numpy as np
import pytest

from pfdet.cpu import elementwise
from pfdet.cpu import threads as threads_module


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(threads_module, 'n_thread', lambda: request.param)
    monkeypatch.setattr(elementwise, 'n_thread', lambda: request.param)
    monkeypatch.setattr(elementwise, 'LEAST_BYTES', 1)
    return request.param


@pytest.mark.parametrize('channels_last', [False, True])
def test_functions_equal_numpy(threads, channels_last):
    elementwise.install()
    rng = np.random.default_rng(0)
    a, b, gy = rng.normal(size=(3, 2, 5, 7, 11)).astype(np.float32)
    if channels_last:
        a, b = (np.ascontiguousarray(v.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for v in (a, b))
    x = chainer.Variable(a)
    y = F.relu(x + b)
    y.grad = gy
    y.backward()
    np.testing.assert_array_equal(y.array, np.maximum(a + b, 0))
    np.testing.assert_array_equal(x.grad, gy * (a + b > 0))


def test_keeps_the_memory_order(threads):
    x = np.zeros((2, 4, 6, 3), np.float32).transpose(0, 3, 1, 2)
    y = elementwise.apply(elementwise._relu, x)
    assert (y is None) == (threads == 1)
    if y is not None:
        assert y.shape == x.shape and y.strides == x.strides


def test_arrays_of_different_layout_use_chainers_version(threads):
    x = np.zeros((4, 6), np.float32)
    for other in x.T.copy().T, np.zeros((4, 1), np.float32), np.zeros((4, 6)):
        assert elementwise.apply(elementwise._add, x, other) is None
    y = F.add(chainer.Variable(x), np.ones((4, 1), np.float32))
    assert (y.array == 1).all()
