"""Layers of the head against plain NumPy, its parameters and its operations."""

import pfdet.compat  # noqa: F401

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check

from pfdet import recipes
from pfdet.boxes import coding
from pfdet.errors import InputError
from pfdet.links.bbox_head import BboxHead, twice_the_area
from pfdet.links.complexity import detector_flops, n_parameter
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.training import build

C_IN, N_UNIT, CHANNEL, SIZE = 3, 7, 5, 4
ROIS = np.array([[0, 0, 40, 40], [8, 8, 30, 20], [5, 1, 60, 63], [2, 9, 17, 41]], np.float64)
INDICES = np.array([0, 1, 1, 0], np.int32)


def random_head(n_conv, n_fc, bn, context):
    with chainer.using_config('dtype', np.float64):
        head = BboxHead(
            2,
            (1 / 4, 1 / 8),
            C_IN,
            n_unit=N_UNIT,
            bn=bn,
            context=context,
            canonical_size=30,
            roi_size=SIZE,
            n_conv=n_conv,
            n_fc=n_fc,
            conv_channel=CHANNEL,
        )
    rng = np.random.default_rng(1)
    for _, param in sorted(head.namedparams()):
        param.array[...] = rng.normal(size=param.shape)
    return head


def feature_maps():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, C_IN, 64 // s, 64 // s)) for s in (4, 8)]


def plain_convolution(x, W, b):
    """A 3x3 convolution with zero padding, pixel by pixel."""
    R, _, H, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.empty((R, len(W), H, width))
    for i in range(H):
        for j in range(width):
            y[:, :, i, j] = np.einsum('rchw,ochw->ro', padded[:, :, i : i + 3, j : j + 3], W) + b
    return y


def plain_normalization(x, params, name):
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    gamma, beta = (params[f'{name}/{k}'].reshape(mean.shape) for k in ('gamma', 'beta'))
    return gamma * (x - mean) / np.sqrt(var + 2e-5) + beta


@pytest.mark.parametrize('context', [False, True])
@pytest.mark.parametrize('bn', [False, True])
@pytest.mark.parametrize('n_conv, n_fc', [(0, 2), (0, 1), (0, 3), (1, 1), (2, 2), (4, 1)])
def test_layers(n_conv, n_fc, bn, context):
    head = random_head(n_conv, n_fc, bn, context)
    params = {name[1:]: p.array for name, p in head.namedparams()}
    hs = feature_maps()
    boxes = [ROIS] + [coding.clip(twice_the_area(ROIS), (64, 64))] * context
    h = np.concatenate([head.pool(hs, box, INDICES).array for box in boxes], axis=1)
    used = {f'{layer}/{k}' for layer in ('loc', 'conf') for k in 'Wb'}
    for i in range(1, n_conv + 1):
        W = f'conv{i}/conv/W' if bn else f'conv{i}/W'
        h = plain_convolution(h, params[W], 0 if bn else params[f'conv{i}/b'][:, None].T)
        used |= {W, f'conv{i}/bn/gamma', f'conv{i}/bn/beta'} if bn else {W, f'conv{i}/b'}
        h = np.maximum(plain_normalization(h, params, f'conv{i}/bn') if bn else h, 0)
    h = h.reshape(len(h), -1)
    for i in range(1, n_fc + 1):
        h = h @ params[f'fc{i}/W'].T + (0 if bn else params[f'fc{i}/b'])
        used |= {f'fc{i}/W', f'bn{i}/gamma', f'bn{i}/beta'} if bn else {f'fc{i}/W', f'fc{i}/b'}
        h = np.maximum(plain_normalization(h, params, f'bn{i}') if bn else h, 0)
    locs, confs = head(hs, ROIS, INDICES)
    for ours, layer in (locs.array[:, 0], 'loc'), (confs.array, 'conf'):
        expected = h @ params[f'{layer}/W'].T + params[f'{layer}/b']
        np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-8)
    assert used == params.keys()


def test_files_of_the_two_layer_head_are_read():
    """The names and shapes of the parameters before there were convolutions."""
    in_channel, n_unit, C = 6, 8, 3
    shapes = {
        'fc1/W': (n_unit, in_channel * 49),
        'fc2/W': (n_unit, n_unit),
        'loc/W': (4, n_unit),
        'loc/b': (4,),
        'conf/W': (C, n_unit),
        'conf/b': (C,),
    }
    for i in 1, 2:
        for name in 'gamma', 'beta', 'avg_mean', 'avg_var':
            shapes[f'bn{i}/{name}'] = (n_unit,)
        shapes[f'bn{i}/N'] = ()
    rng = np.random.default_rng(0)
    saved = {
        name: np.array(0) if name.endswith('/N') else rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    head = BboxHead(C, (1 / 4,), in_channel, n_unit=n_unit)
    chainer.serializers.NpzDeserializer(saved).load(head)
    np.testing.assert_array_equal(head.bn2.beta.array, saved['bn2/beta'])
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(head)
    assert {name: np.shape(a) for name, a in serializer.target.items()} == shapes


def test_gradient_equals_the_numerical_gradient():
    head = random_head(1, 1, False, True)

    def both(*hs):
        locs, confs = head(hs, ROIS, INDICES)
        return F.concat([locs[:, 0], confs], axis=1)

    gradient_check.check_backward(
        both,
        tuple(feature_maps()),
        np.random.default_rng(0).normal(size=(4, 6)),
        tuple(head.params()),
        dtype=np.float64,
        atol=1e-4,
        rtol=1e-4,
    )


def test_operations_and_parameters_by_hand():
    mini = build.detector(recipes.find('mini'), 3)
    n_in = mini.extractor.n_channel
    n_roi = 10

    def numbers(n_conv, n_fc):
        head = BboxHead(
            3,
            mini.head.scales,
            n_in,
            n_unit=16,
            bn=False,
            n_conv=n_conv,
            n_fc=n_fc,
            conv_channel=20,
        )
        network = FasterRCNN(mini.extractor, mini.rpn, head)
        return detector_flops(network, (64, 64), n_roi), n_parameter(head)

    (light, light_size), (heavy, heavy_size) = numbers(0, 2), numbers(4, 1)
    convolutions = 20 * n_in * 9 + 3 * 20 * 20 * 9
    fc_light, fc_heavy = 16 * n_in * 49 + 16 * 16, 16 * 20 * 49
    assert heavy - light == 2 * n_roi * (49 * convolutions + fc_heavy - fc_light)
    assert heavy_size - light_size == convolutions + 4 * 20 + fc_heavy - fc_light - 16


@pytest.mark.parametrize(
    'name, value, least',
    [
        ('roi_size', 0, 1),
        ('roi_size', -7, 1),
        ('sampling_ratio', 0, 1),
        ('n_conv', -1, 0),
        ('n_fc', 0, 1),
        ('n_unit', 0, 1),
        ('conv_channel', 0, 1),
    ],
)
def test_arguments_out_of_range(name, value, least):
    with pytest.raises(InputError, match=f'head: {name}={value}: expected at least {least}'):
        BboxHead(3, (1 / 4,), **{name: value})
