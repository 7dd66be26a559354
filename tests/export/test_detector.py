"""Exported detectors predict what the original does."""

import dataclasses

import chainer
import numpy as np
import onnx
import onnxruntime
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.export.check import largest_difference
from pfdet.export.detector import PARTS, onnx_model
from pfdet.export.layers import WRITERS, max_pooling
from pfdet.export.onnx_detector import OnnxDetector
from pfdet.links.efficientnet import EfficientNet
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.links.freezing import freeze
from pfdet.links.resnet import ResNet
from pfdet.links.senet import SENet

# Fields that are numbers, not switches, or that only training uses.
_NUMBERS = {
    'backbone',
    'fpn_channel',
    'head_unit',
    'canonical_size',
    'prior',
    'frozen_bn',
    'frozen_stages',
}


def distinct_networks():
    """One recipe for each network that the registry builds at mini scale, up to its width."""
    fields = [
        f.name
        for f in dataclasses.fields(recipes.Recipe)
        if (f.metadata['group'] == 'network' and f.name not in _NUMBERS)
        or f.name in ('anchor_ratios', 'loss', 'score', 'expand_scores')
    ]
    found = {}
    for recipe in recipes.RECIPES.values():
        recipe = recipes.at_size(recipe, 'mini')
        found.setdefault(tuple(getattr(recipe, name) for name in fields), recipe)
    return list(found.values())


@pytest.mark.parametrize('recipe', distinct_networks(), ids=lambda recipe: recipe.name)
def test_every_network_of_the_registry(recipe, small_detector, photos, assert_same_regions):
    network = small_detector(recipe)
    detector = OnnxDetector.of_network(network)
    imgs = photos()
    for thresh in 0, 0.3:
        assert_same_regions(network.predict(imgs, thresh), detector.predict(imgs, thresh))


@pytest.mark.parametrize(
    'settings',
    [
        ['fpn_bn=False', 'head_bn=False', 'psp=True'],
        ['roi_size=3', 'roi_sampling=1', 'context=True', 'head_conv=1'],
        ['class_agnostic=False', 'expand_scores=True', 'fpn_scale=5'],
        ['class_agnostic=True', 'expand_scores=True'],
        ['head_conv=2', 'head_bn=True', 'head_fc=3'],
        ['anchor_ratios=(1.0,)', 'rpn_nms=1.0'],
        ['dtype=float64'],
    ],
    ids=' '.join,
)
def test_switches_that_no_recipe_has(settings, small_detector, photos, assert_same_regions):
    network = small_detector(settings=settings)
    imgs = photos(1)
    assert_same_regions(network.predict(imgs), OnnxDetector.of_network(network).predict(imgs))


@pytest.mark.parametrize(
    'backbone',
    [
        lambda: ResNet((1, 2, 1, 1), width=8),
        lambda: ResNet((1, 1, 1, 1), width=16, groups=4, se=True),
        lambda: SENet((1, 2, 1, 1), groups=4, width=32),
        lambda: EfficientNet(0.25, 0.5),
    ],
    ids=['resnet', 'se_resnext', 'senet', 'efficientnet'],
)
@pytest.mark.parametrize('order', ['RGB', 'BGR'])
def test_every_kind_of_backbone(backbone, order, small_detector, photos, assert_same_regions):
    base = backbone()
    base.channel_order = order
    network = small_detector(backbone=base)
    imgs = photos(2)
    assert_same_regions(network.predict(imgs), OnnxDetector.of_network(network).predict(imgs))


@pytest.mark.parametrize('which', ['backbone', 'all'])
def test_frozen_batch_normalization(which, small_detector, photos, assert_same_regions):
    network = small_detector('table1-context')
    imgs = photos()
    before = network.predict(imgs)
    freeze(network, which, 2)
    assert_same_regions(before, OnnxDetector.of_network(network).predict(imgs))


def test_one_model_for_any_batch_and_size(small_detector, photos, assert_same_regions):
    network = small_detector('table1-context')
    detector = OnnxDetector.of_network(network)
    for sizes in [(64, 64)], [(1, 1)], [(130, 70), (150, 94)], [(3, 190)], [(70, 40), (90, 33)] * 2:
        imgs = photos(len(sizes), sizes)
        assert_same_regions(network.predict(imgs), detector.predict(imgs))
        assert detector.padded_size(sizes[0]) == network.padded_size(sizes[0])
        # As test-time augmentation flips: a view with a negative stride
        flipped = [img[:, :, ::-1] for img in imgs]
        assert_same_regions(network.predict(flipped), detector.predict(flipped))


def test_padding_may_hold_anything(small_detector, photos):
    model = onnx_model(small_detector()).SerializeToString()
    session = onnxruntime.InferenceSession(model)
    (img,) = photos(sizes=[(40, 50)])
    exact = session.run(None, {'images': img[None].astype('f'), 'sizes': np.array([[40, 50]])})
    padded = np.full((1, 3, 64, 64), 99, np.float32)
    padded[0, :, :40, :50] = img
    for a, b in zip(exact, session.run(None, {'images': padded, 'sizes': np.array([[40, 50]])})):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_no_proposals(small_detector, photos):
    """All proposals have no extent: their centres are far outside of the image."""
    network = small_detector(settings=['class_agnostic=False', 'head_conv=1', 'context=True'])
    network.rpn.loc.b.array[...] = 1e4
    imgs = photos()
    for one, other in zip(network.predict(imgs), OnnxDetector.of_network(network).predict(imgs)):
        assert [x.shape for x in one] == [x.shape for x in other] == [(0, 7, 4), (0, 7)]


@pytest.mark.parametrize('part', PARTS)
def test_models_are_valid(part, small_detector):
    model = onnx_model(small_detector('table1-context'), part)
    onnx.checker.check_model(model, full_check=True)
    free = {'detector': 2, 'trunk': 2, 'head': 6}
    assert len(model.graph.input) == free[part] + (part == 'head')
    for value in model.graph.input:
        assert value.type.tensor_type.shape.dim[0].dim_param in ('batch', 'regions')


def test_weights_have_the_names_of_the_network(small_detector):
    network = small_detector()
    names = {tensor.name for tensor in onnx_model(network).graph.initializer}
    assert 'extractor/base/conv1/conv/W' in names and 'head/fc1/b' in names
    # The levels share the weights of the RPN.
    assert sum(name.startswith('rpn/conv/') for name in names) == 2


def test_parts_agree_with_the_network(small_detector):
    for settings in [], ['psp=True', 'fpn_scale=5', 'class_agnostic=False', 'context=True']:
        assert largest_difference(small_detector(settings=settings)) < 1e-4


def test_the_check_finds_a_difference(small_detector):
    """Something that changes the network and has neither a type nor parameters of its own."""
    network = small_detector()
    for link, output in (network.extractor.outer[0], 'p2'), (network.head.loc, 'offset'):
        forward = link.forward
        link.forward = lambda x, forward=forward: 1.01 * forward(x)
        with pytest.raises(
            InputError, match=f'output {output}: cannot be exported .*differs by 0.0'
        ):
            largest_difference(network)
        link.forward = forward
    assert largest_difference(network) < 1e-4


class _Other(chainer.Chain):
    def forward(self, x):
        return x


def _subclass(link):
    """The same link, of a type that may compute something else."""
    link.__class__ = type(f'Changed{type(link).__name__}', (type(link),), {})


def _replace_layer(network):
    network.extractor.base.res3.a.conv2 = _Other()


def _add_parameters(network):
    with network.extractor.init_scope():
        network.extractor.gate = chainer.links.Scale(W_shape=(8,))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (_subclass, 'ChangedFasterRCNN: cannot be exported to ONNX: no such layer in'),
        (lambda n: _subclass(n.extractor), 'ChangedFPN: cannot be'),
        (lambda n: _subclass(n.rpn), 'ChangedRPN: cannot be'),
        (lambda n: _subclass(n.head), 'ChangedBboxHead: cannot be'),
        (lambda n: _subclass(n.extractor.base.res2.a), 'ChangedBottleneck: cannot be'),
        (lambda n: _subclass(n.extractor.base.conv1.bn), 'ChangedBatchNormalization: cannot be'),
        (lambda n: _subclass(n.extractor.base.conv1.conv), 'ChangedConvolution2D: cannot be'),
        (lambda n: _subclass(n.extractor.base.res2.a.se.up), 'ChangedLinear: cannot be'),
        (lambda n: _subclass(n.head.fc1), 'ChangedLinear: cannot be'),
        (_replace_layer, '_Other: cannot be exported to ONNX: no such layer'),
        (_add_parameters, 'extractor/gate: cannot be .* does not use this part'),
        (lambda n: setattr(n.head, '_score', lambda x: x), 'lambda.*: cannot be exported'),
        (
            lambda n: setattr(n.extractor.base.conv1, 'activ', chainer.functions.elu),
            'elu: cannot be exported',
        ),
    ],
)
def test_networks_that_cannot_be_exported(change, message, small_detector):
    network = small_detector()
    change(network)
    with pytest.raises(InputError, match=message) as e:
        onnx_model(network)
    assert '\n' not in str(e.value)


def test_a_network_on_a_gpu(small_detector, monkeypatch):
    monkeypatch.setattr(FasterRCNN, 'xp', property(lambda self: chainer.backends.cuda))
    with pytest.raises(InputError, match='from a GPU: expected a network on the CPU'):
        onnx_model(small_detector())


def test_a_network_that_is_too_large(small_detector, monkeypatch):
    monkeypatch.setattr('pfdet.export.graph.MAX_BYTES', 2**20 // 8)
    with pytest.raises(InputError, match='1 MiB of weights; expected at most 0'):
        onnx_model(small_detector())


def test_an_unknown_part(small_detector):
    with pytest.raises(ValueError, match="part='tail': expected one of detector, trunk, head"):
        onnx_model(small_detector(), 'tail')


def test_a_layer_of_an_extension(small_detector, photos, assert_same_regions, monkeypatch):
    """With an entry in WRITERS, layers of an extension are exported."""
    network = small_detector()
    _replace_layer(network)
    network.extractor.base.res3.a.conv2 = _Halved()
    monkeypatch.setitem(WRITERS, _Halved, lambda graph, link, x: _write_halved(graph, x))
    imgs = photos()
    assert_same_regions(network.predict(imgs), OnnxDetector.of_network(network).predict(imgs))


class _Halved(chainer.Link):
    def forward(self, x):
        return chainer.functions.max_pooling_2d(x, 1, 2, cover_all=False) - 0.5


def _write_halved(graph, x):
    return max_pooling(graph, x, 1, 2, cover_all=False) - 0.5
