"""Convolution and batch normalization by cuDNN 9, against Chainer on the CPU.

Without a GPU, ``test_on_fake_cudnn.py`` runs these tests on fake CuPy and a stand-in of cuDNN.
"""

import pfdet.compat  # noqa: F401

import chainer
import chainer.functions as F
import chainer.links as L
import convolution_shapes
import numpy as np
import pytest
from chainer.backends import cuda

from pfdet import recipes
from pfdet.gpu import convolution, cudnn, install, layout, plans, precision
from pfdet.training import build

pytestmark = pytest.mark.gpu

if cudnn.front_end() is None:
    pytest.skip('cuDNN 9 or its front end is missing', allow_module_level=True)

# x, filters, stride, pad, dilation, groups
CASES = {
    'one position': ((1, 3, 1, 1), (5, 3, 1, 1), 1, 0, 1),
    'odd sizes': ((2, 7, 11, 13), (5, 7, 3, 3), 2, 1, 1),
    'even filters': ((2, 4, 10, 9), (6, 4, 4, 2), 2, 1, 1),
    'one channel': ((2, 1, 6, 5), (3, 1, 3, 3), 1, 1, 1),
    'rows left over': ((1, 4, 12, 12), (4, 4, 3, 3), 3, 0, 1),
    'two groups': ((2, 8, 7, 9), (6, 4, 3, 3), 1, 1, 1),
    '32 groups': ((1, 64, 6, 5), (64, 2, 3, 3), 2, 1, 1),
    'depthwise': ((2, 6, 9, 8), (6, 1, 5, 5), 2, 2, 1),
    'dilation': ((2, 4, 13, 12), (6, 4, 3, 3), 1, 3, 3),
    'dilation, stride and groups': ((1, 8, 15, 14), (12, 2, 3, 3), 2, 2, 2),
}
BASELINE = {
    'x'.join(map(str, shape['filters'])) + f'_on_{"x".join(map(str, shape["input"][1:]))}': shape
    for shape in convolution_shapes.read()
}
TOLERANCE = {'float32': 1e-4, 'float16': 4e-3}


@pytest.fixture(autouse=True)
def installed():
    install.install()
    plans.clear()
    yield
    precision.allow_tf32(False)


@pytest.fixture(params=['float32', 'tf32', 'float16'])
def dtype(request):
    precision.allow_tf32(request.param == 'tf32')
    return 'float16' if request.param == 'float16' else 'float32'


def run(arrays, bias, stride, pad, dilate, groups):
    """Return output and gradients of a convolution."""
    x, W, gy = arrays
    variables = [chainer.Variable(a) for a in (x, W, *bias)]
    y = F.convolution_2d(*variables, stride=stride, pad=pad, dilate=dilate, groups=groups)
    y.grad = gy
    y.backward()
    return [y.array, *(v.grad for v in variables)]


def compare(x_shape, W_shape, stride, pad, dilate, dtype, bias=True):
    rng = np.random.RandomState(0)
    groups = x_shape[1] // W_shape[1]
    out = [
        (n + 2 * pad - dilate * (k - 1) - 1) // stride + 1
        for n, k in zip(x_shape[2:], W_shape[2:], strict=True)
    ]
    shapes = x_shape, W_shape, (x_shape[0], W_shape[0], *out)
    arrays = [rng.standard_normal(s).astype(dtype).astype('f') for s in shapes]
    biases = [rng.standard_normal(W_shape[0]).astype(dtype).astype('f')] * bias
    expected = run(arrays, biases, stride, pad, dilate, groups)
    found = run(
        [cuda.to_gpu(a.astype(dtype)) for a in arrays],
        [cuda.to_gpu(b.astype(dtype)) for b in biases],
        stride,
        pad,
        dilate,
        groups,
    )
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == dtype
        scale = max(1, np.abs(a).max())
        np.testing.assert_allclose(
            cuda.to_cpu(b).astype('f') / scale, a / scale, atol=TOLERANCE[dtype]
        )
    return found


@pytest.mark.parametrize('case', CASES)
def test_convolution_and_its_gradients_are_those_of_the_cpu(case, dtype):
    x, W, stride, pad, dilate = CASES[case]
    y, gx, gW, _ = compare(x, W, stride, pad, dilate, dtype)
    assert plans.summary() == (3, 0, 0)
    # ChainerMN packs the memory of gradients as it is.
    assert gW.flags.c_contiguous
    tensor_cores = precision.uses_tensor_cores(np.dtype(dtype))
    for a in y, gx:
        contiguous = a.transpose(0, 2, 3, 1) if tensor_cores else a
        assert contiguous.flags.c_contiguous


@pytest.mark.parametrize('name', BASELINE)
def test_all_convolutions_of_the_baseline(name):
    c = BASELINE[name]
    # Few channels of every group, for speed; the number of groups stays.
    groups = c['input'][0] // c['filters'][1]
    width = max(1, min(c['filters'][1], 64 // groups))
    n_out = max(groups, min(c['filters'][0], 64))
    x = (2, groups * width, *(max(1, n // 2) for n in c['input'][1:]))
    filters = (n_out, width, *c['filters'][2:])
    compare(x, filters, c['stride'], c['pad'], c['dilate'], 'float32', c['bias'])
    assert plans.summary().declined == 0


def test_arrays_in_any_memory_order_and_alignment():
    rng = np.random.RandomState(0)
    x, W = rng.standard_normal((2, 4, 6, 8)).astype('f'), rng.standard_normal((4, 4, 3, 3))
    expected = F.convolution_2d(x, W.astype('f'), pad=1).array
    cupy = cuda.cupy
    x_gpu, W_gpu = cupy.asarray(x), cupy.asarray(W.astype('f'))
    shifted = cupy.zeros(x.size + 1, 'f')
    shifted[1:] = x_gpu.ravel()
    for variant in (
        x_gpu,
        cupy.ascontiguousarray(x_gpu.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        cupy.ascontiguousarray(x_gpu.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0),
        shifted[1:].reshape(x.shape),
    ):
        y = F.convolution_2d(variant, W_gpu, pad=1).array
        np.testing.assert_allclose(cuda.to_cpu(y), expected, atol=1e-4)
    # One plan serves all.
    assert plans.summary().described == 1


def test_deconvolution_of_every_size_that_fits():
    rng = np.random.RandomState(0)
    x, W = rng.standard_normal((2, 4, 5, 6)).astype('f'), rng.standard_normal((4, 3, 3, 3))
    for outsize in (9, 11), (10, 12):
        arguments = {'stride': 2, 'pad': 1, 'outsize': outsize}
        expected = F.deconvolution_2d(x, W.astype('f'), **arguments).array
        y = F.deconvolution_2d(cuda.to_gpu(x), cuda.to_gpu(W.astype('f')), **arguments).array
        np.testing.assert_allclose(cuda.to_cpu(y), expected, atol=1e-4)


@pytest.mark.parametrize('case', ['float64', 'empty', 'two types', 'cover_all'])
def test_what_cudnn_does_not_get_is_computed_by_chainer(case):
    cupy = cuda.cupy
    x, W = cupy.ones((2, 4, 6, 6), 'f'), cupy.ones((4, 4, 3, 3), 'f')
    if case == 'float64':
        x, W = x.astype('d'), W.astype('d')
    elif case == 'empty':
        x = x[:0]
    elif case == 'two types':
        W = W.astype('d')
    y = F.convolution_2d(x, W, stride=2, cover_all=case == 'cover_all').array
    expected = F.convolution_2d(
        cuda.to_cpu(x), cuda.to_cpu(W), stride=2, cover_all=case == 'cover_all'
    ).array
    np.testing.assert_allclose(cuda.to_cpu(y), expected, rtol=1e-5)
    assert plans.summary().described == 0


@pytest.mark.parametrize('shape', [(2, 8, 5, 7), (1, 16, 3, 3), (6, 8, 1, 1)])
def test_batch_normalization_is_that_of_the_cpu(shape, dtype):
    rng = np.random.RandomState(0)
    x, gy = (rng.standard_normal(shape).astype(dtype).astype('f') * 2 for _ in range(2))
    results = []
    for to in (lambda a: a), (lambda a: cuda.to_gpu(a)):
        link = L.BatchNormalization(shape[1])
        link.gamma.array[...] = np.linspace(0.5, 2, shape[1])
        link.beta.array[...] = np.linspace(-1, 1, shape[1])
        array = to(x)
        if array is not x:
            link.to_gpu()
            array = array.astype(dtype)
        v = chainer.Variable(array)
        y = link(v)
        y.grad = to(gy).astype(y.dtype)
        y.backward()
        arrays = [y.array, v.grad, link.gamma.grad, link.beta.grad, link.avg_mean, link.avg_var]
        results.append([cuda.to_cpu(a).astype('f') for a in arrays])
        assert arrays[0].dtype == (dtype if array is not x else 'float32')
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE[dtype] * max(1, np.abs(a).max()))
    tensor_cores = precision.uses_tensor_cores(np.dtype(dtype))
    assert plans.summary() == ((2, 0, 0) if tensor_cores else (0, 0, 0))


def test_normalization_that_cudnn_declines_is_computed_by_chainer():
    precision.allow_tf32(True)
    x = np.random.RandomState(0).standard_normal((2, 3, 5, 7)).astype('f')
    link = L.BatchNormalization(3)
    expected = link(x).array
    link = L.BatchNormalization(3)
    link.to_gpu()
    y = link(cuda.to_gpu(x))
    np.testing.assert_allclose(cuda.to_cpu(y.array), expected, atol=1e-5)
    assert plans.summary() == (1, 0, 1)
    link(cuda.to_gpu(x))
    assert plans.summary() == (1, 0, 1)


def test_a_block_of_a_network_stays_channels_last():
    precision.allow_tf32(True)
    rng = np.random.RandomState(0)
    x = rng.standard_normal((2, 8, 6, 5)).astype('f')
    conv, bn = L.Convolution2D(8, 8, 3, pad=1), L.BatchNormalization(8)
    for link in conv, bn:
        link.to_gpu()
    h = conv(cuda.to_gpu(x))
    scale = F.broadcast_to(cuda.cupy.ones((5, 6, 2, 8), 'f').transpose(2, 3, 1, 0), h.shape)
    for name, y in {
        'convolution': h,
        'batch normalization': bn(h),
        'relu': F.relu(h),
        'addition': h + F.relu(h),
        'multiplication': h * scale,
    }.items():
        assert layout.is_channels_last(y.array), name
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        assert layout.is_channels_last(bn(h).array)
        fixed = cuda.to_cpu(bn(h).array)
    bn.to_cpu()
    with chainer.using_config('train', False):
        np.testing.assert_allclose(fixed, bn(cuda.to_cpu(h.array)).array, atol=1e-4)


def test_plans_are_timed_at_the_third_use_and_kept():
    x, W = cuda.cupy.ones((1, 4, 6, 6), 'f'), cuda.cupy.ones((4, 4, 3, 3), 'f')
    for use, timed in (1, 0), (2, 0), (3, 1), (4, 1):
        F.convolution_2d(x, W)
        assert plans.summary() == (1, timed, 0), use
    with chainer.using_config('autotune', True):
        F.convolution_2d(x, W, pad=1)
    assert plans.summary() == (2, 2, 0)
    with chainer.using_config('cudnn_deterministic', True):
        for _ in range(4):
            F.convolution_2d(x, W)
    assert plans.summary() == (3, 2, 0)


def test_the_least_recently_used_plan_is_dropped(monkeypatch):
    monkeypatch.setattr(plans, 'MAX_PLANS', 2)
    W = cuda.cupy.ones((4, 4, 3, 3), 'f')

    def use(size):
        F.convolution_2d(cuda.cupy.ones((1, 4, size, size), 'f'), W)
        return plans.summary().described

    assert [use(n) for n in (5, 6, 5, 7, 5, 6)] == [1, 2, 2, 3, 3, 4]


def test_geometry_is_part_of_the_key():
    x, W = cuda.cupy.ones((1, 4, 9, 9), 'f'), cuda.cupy.ones((4, 4, 3, 3), 'f')
    settings = convolution.Geometry(((1, 1), (1, 1), (1, 1)))
    dilated = convolution.Geometry(((1, 1), (2, 2), (2, 2)))
    a = convolution.convolution(x, W, settings, (9, 9))
    b = convolution.convolution(x, W, dilated, (9, 9))
    assert plans.summary().described == 2
    assert cuda.to_cpu(a != b).any()


def losses_and_gradients(network, scale):
    """Losses of random images at fixed regions, and the gradients of all parameters."""
    rng = np.random.RandomState(0)
    imgs = [rng.randint(0, 256, (3, 96, 128)).astype('u1') for _ in range(2)]
    x = network.prepare(imgs, (96, 128))
    hs = network.extractor(x)
    locs, confs, _ = network.rpn(hs)
    corner = rng.uniform(0, 60, (16, 2))
    rois = np.concatenate([corner, corner + rng.uniform(8, 60, (16, 2))], 1).astype('f')
    xp = network.xp
    indices = xp.asarray(np.repeat(np.arange(2, dtype='i'), 8))
    offset, conf = network.head(hs, xp.asarray(rois), indices)
    for v in locs, confs, offset, conf:
        assert v.dtype == np.float32
    parts = F.mean(F.sigmoid(conf)), F.mean(F.sin(offset) ** 2), F.mean(F.sigmoid(confs))
    loss = sum(parts) + F.mean(F.cos(locs * 10))
    network.cleargrads()
    loss.backward(loss_scale=scale)
    grads = {n: cuda.to_cpu(p.grad) / scale for n, p in network.namedparams()}
    return float(cuda.to_cpu(loss.array)), grads


@pytest.mark.parametrize('name', ['float32', 'tf32', 'mixed16'])
def test_losses_and_gradients_of_a_detector(name):
    precision.allow_tf32(name == 'tf32')
    dtype = 'mixed16' if name == 'mixed16' else 'float32'
    recipe = recipes.override(recipes.find('mini'), [f'dtype={dtype}', 'psp=True', 'head_bn=True'])
    network = build.detector(recipe, 5)
    scale = 2.0**10
    loss, expected = losses_and_gradients(network, scale)
    network.to_gpu()
    plans.clear()
    gpu_loss, found = losses_and_gradients(network, scale)
    assert plans.summary().described > 100
    norms = {n: np.linalg.norm(g) for n, g in expected.items()}
    errors = {n: np.linalg.norm(found[n] - g) for n, g in expected.items()}
    if name == 'mixed16':
        # The network amplifies differences in rounding: tests/training/test_mixed_precision.py.
        assert gpu_loss == pytest.approx(loss, rel=3e-3)
        assert np.median([errors[n] / norms[n] for n in norms]) < 0.3
        return
    assert gpu_loss == pytest.approx(loss, rel=1e-5)
    largest = max(norms.values())
    for n, error in errors.items():
        assert error < 2e-3 * norms[n] + 1e-6 * largest, n
