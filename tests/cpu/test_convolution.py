"""The CPU convolution against Chainer's CPU methods, which install() replaces."""

import inspect

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check
from chainer.functions.connection import convolution_2d, deconvolution_2d

from pfdet.cpu import convolution, threads

# in channels, out channels, kernel, stride, pad, dilate, groups, input height and width
CASES = [
    (3, 8, (7, 7), (2, 2), (3, 3), (1, 1), 1, 19, 22),
    (8, 5, (1, 1), (1, 1), (0, 0), (1, 1), 1, 6, 7),
    (8, 6, (1, 1), (2, 2), (0, 0), (1, 1), 1, 7, 8),
    (8, 16, (3, 3), (1, 1), (1, 1), (1, 1), 1, 9, 11),
    (8, 16, (3, 3), (2, 2), (1, 1), (1, 1), 4, 9, 12),
    (64, 128, (3, 3), (1, 1), (1, 1), (1, 1), 32, 5, 6),
    (6, 9, (3, 2), (1, 2), (2, 0), (2, 1), 3, 10, 9),
    (4, 4, (3, 3), (1, 1), (0, 0), (1, 1), 1, 5, 5),
    (2, 3, (2, 2), (3, 3), (1, 1), (1, 1), 1, 8, 9),
]


CLASSES = (
    convolution_2d.Convolution2DFunction,
    convolution_2d.Convolution2DGradW,
    deconvolution_2d.Deconvolution2DFunction,
)


def output_and_gradients(case, x, W, gy):
    _, _, _, stride, pad, dilate, groups, _, _ = case
    x, W = chainer.Variable(x), chainer.Variable(W)
    y = F.convolution_2d(x, W, stride=stride, pad=pad, dilate=dilate, groups=groups)
    y.grad = gy(y.shape)
    y.backward()
    return y.array, x.grad, W.grad


@pytest.mark.parametrize('n_thread', [1, 3])
@pytest.mark.parametrize('piece_bytes', [convolution.PATCH_BYTES, 1000])
@pytest.mark.parametrize('case', CASES)
def test_equals_chainer(case, piece_bytes, n_thread, monkeypatch):
    convolution.install()
    monkeypatch.setattr(convolution, 'PATCH_BYTES', piece_bytes)
    monkeypatch.setattr(convolution, 'n_thread', lambda: n_thread)
    monkeypatch.setattr(threads, 'n_thread', lambda: n_thread)
    C, O, ksize, _, _, _, groups, H, W = case
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, C, H, W)).astype(np.float32)
    w = rng.normal(size=(O, C // groups, *ksize)).astype(np.float32)

    def gy(shape):
        return np.random.default_rng(1).normal(size=shape).astype(np.float32)

    ours = output_and_gradients(case, x, w, gy)
    for cls in CLASSES:
        assert hasattr(cls.forward_cpu, '__wrapped__')
        monkeypatch.setattr(cls, 'forward_cpu', inspect.unwrap(cls.forward_cpu))
    theirs = output_and_gradients(case, x, w, gy)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert abs(a - b).max() < 1e-5 * abs(b).max()


def test_installed_function_and_its_gradient():
    convolution.install()
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(2, 8, 5, 6)), rng.normal(size=(4, 2, 3, 3))
    b = rng.normal(size=4)
    gy = rng.normal(size=(2, 4, 3, 3))
    gradient_check.check_backward(
        lambda x, W, b: F.convolution_2d(x, W, b, stride=2, pad=1, groups=4),
        (x, W, b),
        gy,
        dtype=np.float64,
        atol=1e-4,
        rtol=1e-4,
    )
    y = F.convolution_2d(chainer.Variable(x), W, b, stride=2, pad=1, groups=4)
    # Chainer's own version does not return channels-last memory.
    assert y.array.transpose(0, 2, 3, 1).flags.c_contiguous
