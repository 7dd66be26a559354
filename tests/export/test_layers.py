"""Single layers in ONNX Runtime against Chainer."""

from functools import partial

import pfdet.compat  # noqa: F401

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainercv.links import Conv2DBNActiv, PickableSequentialChain, SEBlock
from chainercv.links.model.resnet import ResBlock

from pfdet.export.blocks import write_fpn
from pfdet.export.layers import write
from pfdet.links.backbone import global_average, stem_pooling
from pfdet.links.efficientnet import MBConv, SqueezeExcitation, swish
from pfdet.links.fpn import FPN
from pfdet.links.freezing import FrozenBatchNormalization
from pfdet.links.psp import PyramidSpatialPooling
from pfdet.links.se_resnext import MiniSEResNeXt
from pfdet.links.senet import SENetBottleneck


def _sequence():
    chain = PickableSequentialChain()
    with chain.init_scope():
        chain.first = L.Convolution2D(8, 6, 3)
        chain.second = F.relu
        chain.third = L.BatchNormalization(6)
    return chain


LAYERS = {
    'convolution': lambda: L.Convolution2D(8, 5, 3, stride=2, pad=1),
    'convolution without bias': lambda: L.Convolution2D(8, 5, 1, nobias=True),
    'grouped convolution': lambda: L.Convolution2D(8, 12, 3, pad=1, groups=4),
    'dilated convolution': lambda: L.Convolution2D(8, 5, 3, pad=2, dilate=2),
    'uneven convolution': lambda: L.Convolution2D(8, 5, (1, 3), stride=(2, 1), pad=(0, 1)),
    'convolution, normalization, activation': lambda: Conv2DBNActiv(8, 5, 3, 1, 1),
    'without activation': lambda: Conv2DBNActiv(8, 5, 3, 1, 1, activ=None),
    'with bias and swish': lambda: Conv2DBNActiv(8, 5, 3, nobias=False, activ=swish),
    'with another epsilon': lambda: Conv2DBNActiv(8, 5, 1, bn_kwargs={'eps': 0.5}),
    'batch normalization': lambda: L.BatchNormalization(8),
    'without scale and shift': lambda: L.BatchNormalization(8, use_gamma=False, use_beta=False),
    'frozen batch normalization': lambda: FrozenBatchNormalization(8),
    'relu': lambda: F.relu,
    'sigmoid': lambda: F.sigmoid,
    'swish': lambda: swish,
    'global average': lambda: global_average,
    'stem pooling, padded': lambda: stem_pooling(1),
    'stem pooling, covering all': lambda: stem_pooling(0),
    'pooling': lambda: partial(F.max_pooling_2d, ksize=2),
    'pooling without border': lambda: partial(F.max_pooling_2d, ksize=2, cover_all=False),
    'squeeze and excitation': lambda: SEBlock(8, ratio=2),
    "EfficientNet's": lambda: SqueezeExcitation(8, 3),
    'inverted bottleneck': lambda: MBConv(8, 8, 6, 5, 1, None),
    'inverted bottleneck, not expanding': lambda: MBConv(8, 6, 1, 3, 2, None),
    'residual blocks': lambda: ResBlock(2, 8, 4, 12, 2, groups=2, add_seblock=False),
    'residual blocks with SE': lambda: ResBlock(2, 8, 16, 32, 1, add_seblock=True),
    'bottleneck of SENet': lambda: SENetBottleneck(8, 16, 2, 4, None, True),
    'bottleneck of SENet with identity': lambda: SENetBottleneck(16, 16, 1, 4, None, False),
    'sequence': _sequence,
}


@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('size', [(12, 18), (7, 7), (9, 14)])
def test_layers(name, size, randomized, run_graph, forward):
    layer = LAYERS[name]()
    link = layer if isinstance(layer, chainer.Link) else L.Linear(1, 1)
    randomized(link)
    channels = 16 if 'identity' in name else 8
    x = np.random.default_rng(1).normal(size=(2, channels, *size)).astype(np.float32)
    actual = run_graph(link, lambda graph, x: write(graph, layer, x), {'x': x})['y']
    expected = forward(layer, x)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=2e-5 * abs(expected).max())


@pytest.mark.parametrize('n', [0, 3])
def test_fully_connected(n, randomized, run_graph, forward):
    link = randomized(L.Linear(5, 4))
    x = np.random.default_rng(1).normal(size=(n, 5)).astype(np.float32)
    actual = run_graph(link, lambda graph, x: write(graph, link, x), {'x': x})['y']
    np.testing.assert_allclose(actual, forward(link, x), atol=1e-5)


@pytest.mark.parametrize('size', [(1, 1), (2, 5), (6, 6), (7, 13), (25, 12)])
def test_psp_of_maps_smaller_and_larger_than_its_grids(size, randomized, run_graph, forward):
    link = randomized(PyramidSpatialPooling(8))
    x = np.random.default_rng(1).normal(size=(2, 8, *size)).astype(np.float32)
    actual = run_graph(link, lambda graph, x: write(graph, link, x), {'x': x})['y']
    np.testing.assert_allclose(actual, forward(link, x), atol=1e-5)


@pytest.mark.parametrize('options', [{}, {'bn': False}, {'n_scale': 5, 'psp': True}])
def test_pyramid(options, randomized, run_graph, forward):
    link = randomized(FPN(MiniSEResNeXt(width=8), 8, **options))
    x = np.random.default_rng(1).normal(size=(2, 3, 128, 192)).astype(np.float32)

    def all_maps(graph, x):
        return {f'p{k}': h for k, h in enumerate(write_fpn(graph, link, x))}

    with chainer.using_config('train', False), chainer.no_backprop_mode():
        expected = [h.array for h in link(x)]
    for actual, h in zip(run_graph(link, all_maps, {'x': x}).values(), expected, strict=True):
        np.testing.assert_allclose(actual, h, atol=2e-5 * abs(h).max())
