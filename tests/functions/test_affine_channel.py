"""The affine map per channel against its formula, and its gradient."""

import weakref

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check
from chainer.backends import cuda

from pfdet.functions.affine_channel import affine_channel


def arrays(shape, dtype=np.float64):
    rng = np.random.default_rng(0)
    C = shape[1]
    return [rng.normal(size=s).astype(dtype) for s in (shape, C, C, shape)]


# The last ones are large enough to be split, by image and by row.
SHAPES = [(5, 3), (2, 3, 4), (3, 4, 5, 2), (0, 3, 2, 2), (3, 8, 51, 60), (1, 8, 101, 90)]


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('n_thread', [1, 3])
def test_formula_and_gradient(shape, channels_last, n_thread, monkeypatch):
    for module in 'pfdet.functions.affine_channel', 'pfdet.cpu.threads':
        monkeypatch.setattr(f'{module}.n_thread', lambda: n_thread)
    x, scale, shift, gy = arrays(shape)
    if channels_last:
        x, gy = (np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) for a in (x, gy))
    expected = np.empty_like(x)
    gradient = np.empty_like(x)
    for c in range(shape[1]):
        expected[:, c] = x[:, c] * scale[c] + shift[c]
        gradient[:, c] = gy[:, c] * scale[c]
    v = chainer.Variable(x)
    y = affine_channel(v, scale, shift)
    y.grad = gy
    y.backward()
    np.testing.assert_allclose(y.array, expected, rtol=1e-12)
    np.testing.assert_allclose(v.grad, gradient, rtol=1e-12)
    if len(x):
        assert y.array.strides == x.strides
    if 0 < x.size < 1000:
        gradient_check.check_backward(
            lambda x: affine_channel(x, scale, shift), x, gy, dtype=np.float64, atol=1e-6
        )


def test_dtype_stays_float32():
    x, scale, shift, _ = arrays((2, 3, 4, 4), np.float32)
    v = chainer.Variable(x)
    y = affine_channel(v, scale, shift)
    F.sum(y).backward()
    assert y.dtype == v.grad.dtype == np.float32


def test_the_input_is_not_kept():
    """The graph of a frozen layer does not hold the activations before it."""
    x, scale, shift, _ = arrays((2, 3, 4, 4), np.float32)
    h = chainer.Variable(x) * 2
    data = weakref.ref(h.array)
    y = affine_channel(h, scale, shift)
    del h
    assert data() is None
    assert y.creator is not None


@pytest.mark.gpu
@pytest.mark.skipif(not cuda.available, reason='no GPU')
@pytest.mark.parametrize('shape', [(5, 3), (3, 4, 5, 2)])
def test_gpu_equals_cpu(shape):
    x, scale, shift, gy = arrays(shape, np.float32)
    results = []
    for to in (lambda a: a), cuda.to_gpu:
        v = chainer.Variable(to(x))
        y = affine_channel(v, to(scale), to(shift))
        y.grad = to(gy)
        y.backward()
        results.append([cuda.to_cpu(y.array), cuda.to_cpu(v.grad)])
    for cpu, gpu in zip(*results, strict=True):
        assert gpu.dtype == np.float32
        np.testing.assert_allclose(gpu, cpu, rtol=1e-5, atol=1e-6)
