"""ONNX nodes of the layers that networks are made of.

:data:`WRITERS` maps the type of a link, or a function, to a function that appends its nodes to a
graph. A subclass may compute something else than its base class, so each type needs its own entry.

Batch normalization uses the stored statistics, as :class:`chainer.links.BatchNormalization` does at
test time. It is folded into the weights of the layer before it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainercv.links import Conv2DBNActiv

from pfdet.errors import InputError
from pfdet.export.graph import Graph, Value
from pfdet.links.backbone import global_average
from pfdet.links.efficientnet import swish
from pfdet.links.freezing import FrozenBatchNormalization

#: By type of link or function: ``writer(graph, layer, x)``, which returns the output.
WRITERS: dict[Any, Callable[[Graph, Any, Value], Value]] = {}
BATCH_NORMALIZATIONS = L.BatchNormalization, FrozenBatchNormalization


def writes(*layers: Any) -> Callable:
    """Register the decorated function as the writer of some types of links, or functions."""

    def register(writer: Callable) -> Callable:
        WRITERS.update(dict.fromkeys(layers, writer))
        return writer

    return register


def write(graph: Graph, layer: Any, x: Value) -> Value:
    """Append the nodes of a layer.

    Args:
        graph (Graph): The graph.
        layer (link or function): The layer; a :class:`functools.partial` of a function, too.
        x (Value): Its input.

    Returns:
        Value: Its output.

    Raises:
        InputError: :data:`WRITERS` does not know the layer.
    """
    kind = type(layer) if isinstance(layer, chainer.Link) else getattr(layer, 'func', layer)
    if kind not in WRITERS:
        raise unknown_layer(kind)
    return WRITERS[kind](graph, layer, x)


def unknown_layer(kind: Any) -> InputError:
    """The error for a layer without an entry in :data:`WRITERS`."""
    name = getattr(kind, '__qualname__', repr(kind))
    return InputError(
        f'{name}: cannot be exported to ONNX: no such layer in pfdet.export.layers.WRITERS '
        '(see docs/deployment.md)'
    )


def check_type(link: Any, kind: type) -> None:
    """Refuse a link of another type, subclasses included.

    Raises:
        InputError: It is one.
    """
    if type(link) is not kind:
        raise unknown_layer(type(link))


class ChannelMap(NamedTuple):
    """Scale and shift of each channel, float64 :math:`(C,)`."""

    scale: np.ndarray
    shift: np.ndarray


def stored_normalization(graph: Graph, bn: chainer.Link) -> ChannelMap:
    """The map that a batch normalization with stored statistics is.

    Args:
        graph (Graph): The graph, in which the link counts as written.
        bn (link): Any of :data:`BATCH_NORMALIZATIONS`.

    Returns:
        ChannelMap: Scale and shift.

    Raises:
        InputError: The link is none of them.
    """
    if type(bn) not in BATCH_NORMALIZATIONS:
        raise unknown_layer(type(bn))
    graph.mark_written(bn)
    scale = 1 / np.sqrt(bn.avg_var.astype(np.float64) + bn.eps)
    if getattr(bn, 'gamma', None) is not None:
        scale = scale * bn.gamma.array
    shift = -bn.avg_mean * scale
    if getattr(bn, 'beta', None) is not None:
        shift = shift + bn.beta.array
    return ChannelMap(scale, shift)


@writes(*BATCH_NORMALIZATIONS)
def write_batch_normalization(graph: Graph, link: chainer.Link, x: Value) -> Value:
    """Write a batch normalization that follows no layer that it could be folded into."""
    scale, shift = stored_normalization(graph, link)
    zero, one = np.zeros_like(scale), np.ones_like(scale)
    weights = {'scale': scale, 'shift': shift, 'mean': zero, 'variance': one}
    return graph.add(
        'BatchNormalization',
        x,
        *(graph.weight(link, k, v) for k, v in weights.items()),
        epsilon=0.0,
    )


def write_convolution(graph: Graph, link: Any, x: Value, after: ChannelMap | None = None) -> Value:
    """Write a convolution.

    Args:
        graph, link, x: See :data:`WRITERS`.
        after (ChannelMap): Is folded into the weights.
    """
    check_type(link, L.Convolution2D)
    weights = _folded(graph, link, after)
    (dy, dx), (py, px) = _pair(link.dilate), _pair(link.pad)
    return graph.add(
        'Conv',
        x,
        *weights,
        strides=_pair(link.stride),
        pads=[py, px, py, px],
        dilations=[dy, dx],
        group=link.groups,
        kernel_shape=list(link.W.shape[2:]),
    )


def write_linear(graph: Graph, link: Any, x: Value, after: ChannelMap | None = None) -> Value:
    """Write a fully connected layer of rows :math:`(N, C)`; arguments as in the convolution's."""
    check_type(link, L.Linear)
    return graph.add('Gemm', x, *_folded(graph, link, after), transB=1)


writes(L.Convolution2D)(write_convolution)
writes(L.Linear)(write_linear)


def _folded(graph: Graph, link: Any, after: ChannelMap | None) -> list[Value]:
    """Weight and bias, if there is one, with the map of the output channels multiplied in."""
    if link.W.array is None:
        raise InputError('cannot be exported to ONNX: a layer has no weights yet')
    graph.mark_written(link)
    W, b = link.W.array, None if link.b is None else link.b.array
    if after is not None:
        W = W * after.scale.reshape(-1, *[1] * (W.ndim - 1))
        b = after.shift if b is None else b * after.scale + after.shift
    weights = [graph.weight(link, 'W', W)]
    return weights if b is None else [*weights, graph.weight(link, 'b', b)]


@writes(Conv2DBNActiv)
def write_convolution_bn_activation(graph: Graph, link: Conv2DBNActiv, x: Value) -> Value:
    """Write a convolution with batch normalization and, if there is one, an activation."""
    h = write_convolution(graph, link.conv, x, stored_normalization(graph, link.bn))
    return h if link.activ is None else write(graph, link.activ, h)


@writes(F.relu)
def write_relu(graph: Graph, _: Callable, x: Value) -> Value:
    """Write a rectified linear unit."""
    return graph.add('Relu', x)


@writes(F.sigmoid)
def write_sigmoid(graph: Graph, _: Callable, x: Value) -> Value:
    """Write a sigmoid."""
    return graph.add('Sigmoid', x)


@writes(swish)
def write_swish(graph: Graph, _: Callable, x: Value) -> Value:
    """Write a swish activation."""
    return x * graph.add('Sigmoid', x)


@writes(global_average)
def write_global_average(graph: Graph, _: Callable, x: Value) -> Value:
    """Write global average pooling from :math:`(N, C, H, W)` to :math:`(N, C)`."""
    return graph.add('GlobalAveragePool', x).reshape(0, -1)


@writes(F.max_pooling_2d)
def write_max_pooling(graph: Graph, layer: partial, x: Value) -> Value:
    """Write max pooling whose arguments are those of a partial function."""
    return max_pooling(graph, x, *layer.args, **layer.keywords)


def max_pooling(
    graph: Graph,
    x: Value,
    ksize: int,
    stride: int | None = None,
    pad: int = 0,
    cover_all: bool = True,
) -> Value:
    """Write max pooling; arguments as in :func:`chainer.functions.max_pooling_2d`."""
    py, px = _pair(pad)
    return graph.add(
        'MaxPool',
        x,
        kernel_shape=_pair(ksize),
        strides=_pair(ksize if stride is None else stride),
        pads=[py, px, py, px],
        ceil_mode=int(cover_all),
    )


def _pair(x: Any) -> list[int]:
    return list(x) if isinstance(x, (tuple, list)) else [x, x]
