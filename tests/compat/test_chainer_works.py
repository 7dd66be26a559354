"""Chainer with the fixes of pfdet.compat against plain NumPy."""

import math

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import optimizers, serializers


def random_array(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def convolve(x, W, b, stride, pad, dilate, groups):
    """Compute a convolution and a function for its gradients, by the definition."""
    N, _, H, width = x.shape
    O, C, kh, kw = W.shape
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)]).astype(np.float64)
    oh = (H + 2 * pad - dilate * (kh - 1) - 1) // stride + 1
    ow = (width + 2 * pad - dilate * (kw - 1) - 1) // stride + 1
    y = np.zeros((N, O, oh, ow)) + b[:, None, None]
    terms = [
        (o, i, j, c, k, m)
        for o in range(O)
        for i in range(oh)
        for j in range(ow)
        for c in range(C)
        for k in range(kh)
        for m in range(kw)
    ]
    for o, i, j, c, k, m in terms:
        source = o // (O // groups) * C + c, i * stride + k * dilate, j * stride + m * dilate
        y[:, o, i, j] += W[o, c, k, m] * padded[(slice(None), *source)]

    def backward(gy):
        gx, gW = np.zeros_like(padded), np.zeros(W.shape)
        for o, i, j, c, k, m in terms:
            source = o // (O // groups) * C + c, i * stride + k * dilate, j * stride + m * dilate
            gx[(slice(None), *source)] += W[o, c, k, m] * gy[:, o, i, j]
            gW[o, c, k, m] += (padded[(slice(None), *source)] * gy[:, o, i, j]).sum()
        inside = slice(pad, -pad) if pad else slice(None)
        return gx[:, :, inside, inside], gW, gy.sum(axis=(0, 2, 3))

    return y, backward


@pytest.mark.parametrize(
    'ksize, stride, pad, dilate, groups',
    [(3, 1, 1, 1, 1), (3, 2, 1, 1, 2), (1, 1, 0, 1, 4), (3, 1, 2, 2, 1)],
)
def test_convolution(ksize, stride, pad, dilate, groups):
    link = L.Convolution2D(
        4, 8, ksize, stride, pad, dilate=dilate, groups=groups, initial_bias=random_array(8)
    )
    x = chainer.Variable(random_array(2, 4, 6, 5))
    y = link(x)
    expected, backward = convolve(x.array, link.W.array, link.b.array, stride, pad, dilate, groups)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.array, expected, atol=1e-4)
    gy = y.grad = random_array(*y.shape, seed=1)
    link.cleargrads()
    y.backward()
    for grad, by_definition in zip((x.grad, link.W.grad, link.b.grad), backward(gy)):
        assert grad.dtype == np.float32
        np.testing.assert_allclose(grad, by_definition, atol=1e-4)


def test_batch_normalization():
    link = L.BatchNormalization(3, decay=0.9, eps=1e-3)
    link.gamma.array[:] = [1, 2, 3]
    link.beta.array[:] = [4, 5, 6]
    x = chainer.Variable(random_array(4, 3, 5, 5) * 2 + 1)
    y = link(x)

    axes = 0, 2, 3
    mean, variance = x.array.mean(axes, keepdims=True), x.array.var(axes, keepdims=True)
    gamma, beta = link.gamma.array[:, None, None], link.beta.array[:, None, None]
    x_hat = (x.array - mean) / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(y.array, gamma * x_hat + beta, atol=1e-5)
    n = x.array.size // 3
    np.testing.assert_allclose(link.avg_mean, 0.1 * mean.ravel(), atol=1e-5)
    np.testing.assert_allclose(link.avg_var, 0.9 + 0.1 * variance.ravel() * n / (n - 1), atol=1e-5)

    gy = y.grad = random_array(*y.shape, seed=1)
    link.cleargrads()
    y.backward()
    gx = gy - gy.mean(axes, keepdims=True) - x_hat * (gy * x_hat).mean(axes, keepdims=True)
    np.testing.assert_allclose(x.grad, gamma / np.sqrt(variance + 1e-3) * gx, atol=1e-5)
    np.testing.assert_allclose(link.gamma.grad, (gy * x_hat).sum(axes), rtol=1e-4)
    np.testing.assert_allclose(link.beta.grad, gy.sum(axes), rtol=1e-4)

    with chainer.using_config('train', False):
        y = link(x)
    scale = link.gamma.array / np.sqrt(link.avg_var + 1e-3)
    expected = (x.array - link.avg_mean[:, None, None]) * scale[:, None, None] + beta
    np.testing.assert_allclose(y.array, expected, atol=1e-4)


def bilinear_weights(y, x, H, W):
    """Compute the weight of each pixel in the interpolation at a point."""
    weights = np.zeros((H, W))
    if not (-1 <= y <= H and -1 <= x <= W):
        return weights
    y, x = min(max(y, 0), H - 1), min(max(x, 0), W - 1)
    for i in range(H):
        for j in range(W):
            weights[i, j] = max(0, 1 - abs(i - y)) * max(0, 1 - abs(j - x))
    return weights


def test_roi_align():
    H, W, out, n_sample, scale = 7, 6, 3, 2, 0.5
    x = chainer.Variable(random_array(2, 2, H, W))
    rois = np.array([[1, 2, 9.5, 8], [0, 0, 14, 12], [3, 3, 4, 4]], np.float32)
    indices = np.array([1, 0, 1], np.int32)
    y = F.roi_average_align_2d(x, rois, indices, out, scale, n_sample)
    gy = y.grad = random_array(*y.shape, seed=1)
    y.backward()

    expected, gx = np.zeros(y.shape), np.zeros(x.shape)
    for r, (roi, n) in enumerate(zip(rois * scale, indices)):
        size = np.maximum(roi[2:] - roi[:2], 1) / out
        for i in range(out):
            for j in range(out):
                weights = np.mean(
                    [
                        bilinear_weights(
                            roi[0] + (i + (k + 0.5) / n_sample) * size[0],
                            roi[1] + (j + (m + 0.5) / n_sample) * size[1],
                            H,
                            W,
                        )
                        for k in range(n_sample)
                        for m in range(n_sample)
                    ],
                    axis=0,
                )
                expected[r, :, i, j] = (x.array[n] * weights).sum(axis=(1, 2))
                gx[n] += gy[r, :, i, j, None, None] * weights
    np.testing.assert_allclose(y.array, expected, atol=1e-5)
    np.testing.assert_allclose(x.grad, gx, atol=1e-5)


def step_by_formula(name, w, grads, lr):
    v, m, s = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(grads, 1):
        if name == 'MomentumSGD':
            v = 0.9 * v - lr * g
            w = w + v
        elif name == 'CorrectedMomentumSGD':
            v = 0.9 * v - g
            w = w + lr * v
        else:
            m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g * g
            rate = lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            w = w - rate * m / (np.sqrt(s) + 1e-8)
    return w


@pytest.mark.parametrize('name', ['MomentumSGD', 'CorrectedMomentumSGD', 'Adam'])
@pytest.mark.parametrize('number', [float, np.float32, np.float64])
def test_optimizers(name, number):
    # A schedule may return a NumPy scalar, which NumPy 2 would promote to float64.
    initial = random_array(2, 3)
    link = L.Linear(3, 2, nobias=True, initialW=initial)
    optimizer = getattr(optimizers, name)(number(0.1)).setup(link)
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(number(1e3)))
    grads = [random_array(2, 3, seed=seed) for seed in (1, 2, 3)]
    for grad in grads:
        link.W.grad = grad.copy()
        optimizer.update()
    assert link.W.dtype == np.float32
    state = [v for v in link.W.update_rule.state.values() if isinstance(v, np.ndarray)]
    assert state and all(v.dtype == np.float32 for v in state)
    np.testing.assert_allclose(
        link.W.array, step_by_formula(name, initial, grads, 0.1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    'loss',
    [
        lambda x: F.softmax_cross_entropy(x, np.array([0, -1, 2], np.int32)),
        lambda x: F.sigmoid_cross_entropy(x, np.array([[0, 1, -1]] * 3, np.int32)),
        lambda x: F.average(F.huber_loss(x, x.array * 0, 1.0, reduce='no')),
        lambda x: F.sum(x * np.float64(2) + np.float64(1)),
    ],
)
def test_losses_stay_float32(loss):
    x = chainer.Variable(random_array(3, 3))
    y = loss(x)
    y.backward()
    assert y.dtype == x.grad.dtype == np.float32


def network():
    return chainer.Sequential(L.Linear(None, 3), L.BatchNormalization(3), L.Linear(3, 1))


def test_npz_round_trip(tmp_path):
    first, second = network(), network()
    x = random_array(4, 5)
    setups = [optimizers.CorrectedMomentumSGD().setup(model) for model in (first, second)]
    for _ in range(2):
        setups[0].update(lambda: F.sum(first(x) ** 2))
    serializers.save_npz(tmp_path / 'model.npz', first)
    serializers.save_npz(tmp_path / 'optimizer.npz', setups[0])
    serializers.load_npz(tmp_path / 'model.npz', second)
    serializers.load_npz(tmp_path / 'optimizer.npz', setups[1])
    assert setups[1].t == 2
    for optimizer, model in zip(setups, (first, second)):
        optimizer.update(lambda model=model: F.sum(model(x) ** 2))
    arrays = [dict(model.namedparams()) for model in (first, second)]
    assert len(arrays[0]) == 6
    for name, parameter in arrays[0].items():
        np.testing.assert_array_equal(parameter.array, arrays[1][name].array)
    np.testing.assert_array_equal(first[1].avg_var, second[1].avg_var)


def test_npz_of_an_uninitialized_parameter(tmp_path):
    serializers.save_npz(tmp_path / 'model.npz', network())
    model = network()
    serializers.load_npz(tmp_path / 'model.npz', model)
    assert model[0].W.array is None


@pytest.mark.filterwarnings('error:setDaemon')
def test_multiprocess_iterator():
    data = np.arange(20, dtype=np.float32).reshape(10, 2)
    dataset = chainer.datasets.TransformDataset(data, lambda x: x * 2)
    with chainer.iterators.MultiprocessIterator(
        dataset, 4, repeat=False, shuffle=False, n_processes=2, n_prefetch=2
    ) as iterator:
        batches = list(iterator)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(batches), data * 2)
