"""ONNX nodes of the blocks of the backbones and of the feature pyramid."""

import chainer
import chainer.links as L
import numpy as np
from chainercv.links import PickableSequentialChain, SEBlock
from chainercv.links.model.resnet import Bottleneck, ResBlock

from pfdet.export.graph import Graph, Value
from pfdet.export.layers import WRITERS, check_type, max_pooling, unknown_layer, write, writes
from pfdet.links.backbone import Backbone
from pfdet.links.efficientnet import MBConv, SqueezeExcitation, swish
from pfdet.links.fpn import FPN
from pfdet.links.psp import PyramidSpatialPooling
from pfdet.links.senet import SENetBottleneck


@writes(PickableSequentialChain, ResBlock)
def write_sequence(graph: Graph, link: PickableSequentialChain, x: Value) -> Value:
    """Write layers in a row."""
    for name in link.layer_names:
        x = write(graph, link[name], x)
    return x


@writes(Bottleneck, SENetBottleneck)
def write_bottleneck(graph: Graph, link: chainer.Chain, x: Value) -> Value:
    """Write a residual block: three convolutions, perhaps squeeze and excitation, a shortcut."""
    h = x
    for name in 'conv1', 'conv2', 'conv3', 'se':
        if hasattr(link, name):
            h = write(graph, link[name], h)
    shortcut = write(graph, link.residual_conv, x) if hasattr(link, 'residual_conv') else x
    return graph.add('Relu', h + shortcut)


@writes(SEBlock)
def write_se_block(graph: Graph, link: SEBlock, x: Value) -> Value:
    """Write ChainerCV's squeeze and excitation."""
    return x * _gate(graph, link, x, chainer.functions.relu)


@writes(SqueezeExcitation)
def write_squeeze_excitation(graph: Graph, link: SqueezeExcitation, x: Value) -> Value:
    """Write EfficientNet's squeeze and excitation."""
    return x * _gate(graph, link, x, swish)


def _gate(graph: Graph, link: chainer.Chain, x: Value, activation) -> Value:
    # As 1x1 convolutions of a map of one position, so that no shape has to be computed.
    h = graph.add('GlobalAveragePool', x)
    h = write(graph, activation, _fully_connected(graph, link.down, h))
    return graph.add('Sigmoid', _fully_connected(graph, link.up, h))


def _fully_connected(graph: Graph, link: L.Linear, x: Value) -> Value:
    check_type(link, L.Linear)
    graph.mark_written(link)
    W = graph.weight(link, 'W', link.W.array[:, :, None, None])
    return graph.add('Conv', x, W, graph.weight(link, 'b', link.b.array), kernel_shape=[1, 1])


@writes(MBConv)
def write_mbconv(graph: Graph, link: MBConv, x: Value) -> Value:
    """Write EfficientNet's inverted bottleneck."""
    h = x
    for name in 'expand', 'depthwise', 'se', 'project':
        if hasattr(link, name):
            h = write(graph, link[name], h)
    return h + x if link.shortcut else h


@writes(PyramidSpatialPooling)
def write_psp(graph: Graph, link: PyramidSpatialPooling, x: Value) -> Value:
    """Write pyramid spatial pooling of a map of any size.

    Pooling is a product with matrices that are computed from the size of the map.
    """
    size = x.shape(2, 4)
    outputs = [x]
    for n_bin, conv in zip(link.bins, link.convs, strict=True):
        rows, columns = (_pooling_matrix(graph, x.shape(k, k + 1), n_bin) for k in (2, 3))
        pooled = graph.add('MatMul', rows, graph.add('MatMul', x, columns.transpose(1, 0)))
        h = write(graph, conv, pooled)
        # Half-pixel interpolation with the border repeated is the link's interpolation matrix.
        spread = graph.add(
            'Resize',
            h,
            None,
            None,
            graph.concatenate([h.shape(0, 2), size], axis=0),
            mode='linear',
            coordinate_transformation_mode='half_pixel',
        )
        outputs.append(spread)
    return graph.concatenate(outputs, axis=1)


def _pooling_matrix(graph: Graph, size: Value, n_bin: int) -> Value:
    """The matrix ``(n_bin, size)`` of :func:`pfdet.links.psp.pooling_matrix`."""
    i = np.arange(n_bin)[:, None]
    begin = size * i / n_bin
    end = (size * (i + 1) + (n_bin - 1)) / n_bin
    position = graph.arange(size.squeeze(0)).unsqueeze(0)
    inside = ((position >= begin) & (position < end)).astype(np.float32)
    return inside / (end - begin).astype(np.float32)


def write_backbone(graph: Graph, link: Backbone, x: Value) -> list[Value]:
    """Write a backbone.

    Args:
        graph (Graph): The graph.
        link (Backbone): The backbone; layers behind the last feature map are left out.
        x (Value): Preprocessed images :math:`(N, 3, H, W)`.

    Returns:
        list of values: The feature maps C2 to C5.

    Raises:
        InputError: It has a ``forward`` of its own and no entry in
            :data:`~pfdet.export.layers.WRITERS`, or a layer that is not known.
    """
    if type(link) in WRITERS:
        return list(WRITERS[type(link)](graph, link, x))
    if not isinstance(link, Backbone) or type(link).forward is not Backbone.forward:
        raise unknown_layer(type(link))
    last = max(map(link.layer_names.index, link.pick))
    outputs = {}
    for name in link.layer_names[: last + 1]:
        x = outputs[name] = write(graph, link[name], x)
    return [outputs[name] for name in link.pick]


def write_fpn(graph: Graph, link: FPN, x: Value) -> list[Value]:
    """Write a feature pyramid.

    Args:
        graph (Graph): The graph.
        link (FPN): The pyramid with its backbone.
        x (Value): Preprocessed images :math:`(N, 3, H, W)`.

    Returns:
        list of values: The ``n_scale + 1`` feature maps.

    Raises:
        InputError: A layer is not known.
    """
    check_type(link, FPN)
    hs = write_backbone(graph, link.base, x)
    if link.n_scale == 5:
        hs.append(write(graph, link.extra, hs[-1]))
    if hasattr(link, 'psp'):
        hs[3] = write(graph, link.psp, hs[3])
    hs = [write(graph, inner, h) for inner, h in zip(link.inner, hs, strict=True)]
    for i in reversed(range(len(hs) - 1)):
        hs[i] = hs[i] + _upsample(graph, hs[i + 1])
    hs = [write(graph, outer, h) for outer, h in zip(link.outer, hs, strict=True)]
    return [*hs, max_pooling(graph, hs[-1], 1, stride=2, cover_all=False)]


def _upsample(graph: Graph, x: Value) -> Value:
    return graph.add(
        'Resize',
        x,
        None,
        np.array([1, 1, 2, 2], np.float32),
        mode='nearest',
        coordinate_transformation_mode='asymmetric',
        nearest_mode='floor',
    )


def preprocess(graph: Graph, extractor: FPN, images: Value, sizes: Value) -> Value:
    """Write :meth:`pfdet.links.faster_rcnn.FasterRCNN.prepare` of images that form a batch already.

    Args:
        graph (Graph): The graph.
        extractor (FPN): Has the conventions of the backbone.
        images (Value): RGB images in [0, 255], :math:`(N, 3, H, W)`.
        sizes (Value): Height and width of each image, int64 :math:`(N, 2)`. The rest is padding,
            whatever it contains.

    Returns:
        Value: Normalized images, zero outside of the images and padded to multiples of the stride.
    """
    base = extractor.base
    x = images - base.mean
    std = getattr(base, 'std', np.ones((3, 1, 1), np.float32))
    if (std != 1).any():
        x = x / std
    if getattr(base, 'channel_order', 'RGB') == 'BGR':
        x = x.take(np.array([2, 1, 0]), axis=1)
    inside = None
    for k in 0, 1:
        position = graph.arange(images.shape(2 + k, 3 + k).squeeze(0))
        # (1, 1, H, 1) and (N, 1, 1, 1)
        position = position.unsqueeze(0, 1, 3 - k)
        axis = position < sizes.cut(1, k, k + 1).unsqueeze(2, 3)
        inside = axis if inside is None else inside & axis
    x = graph.where(inside, x, 0)
    size = images.shape(2)
    stride = extractor.stride
    missing = (size + (stride - 1)) / stride * stride - size
    return graph.add(
        'Pad', x, graph.concatenate([np.zeros(6, np.int64), missing], axis=0), np.float32(0)
    )
