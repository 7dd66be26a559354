"""ONNX nodes of the head: pooling of regions, classification, scores and boxes."""

from collections.abc import Callable, Sequence
from typing import Any

import chainer.functions as F
import numpy as np

from pfdet.export.graph import Graph, Value
from pfdet.export.layers import (
    check_type,
    stored_normalization,
    unknown_layer,
    write,
    write_linear,
)
from pfdet.export.proposals import Regions, clip, decode
from pfdet.functions.concurrent_softmax import concurrent_softmax_score
from pfdet.functions.sigmoid import sigmoid_score
from pfdet.functions.softmax import softmax_score
from pfdet.links.bbox_head import BboxHead


def write_head(
    graph: Graph, link: BboxHead, hs: Sequence[Value], regions: Regions
) -> tuple[Value, Value]:
    """Write :meth:`pfdet.links.bbox_head.BboxHead.forward`.

    Args:
        graph (Graph): The graph.
        link (BboxHead): The head.
        hs (sequence of values): Feature maps.
        regions (Regions): Regions of interest.

    Returns:
        tuple of values: Offsets :math:`(R, B, 4)` and logits :math:`(R, C)`, or
        :math:`(R, C + 1)` with a background.

    Raises:
        InputError: The link is a subclass.
    """
    check_type(link, BboxHead)
    h = _pool(graph, link, hs, regions)
    if link.context:
        size = hs[0].shape(2).astype(np.float32) / link.scales[0]
        low, high = regions.bbox.cut(1, 0, 2), regions.bbox.cut(1, 2)
        grown = (high - low) * ((2**0.5 - 1) / 2)
        around = graph.concatenate([low - grown, high + grown], axis=1)
        around = _pool(graph, link, hs, Regions(clip(graph, around, size), regions.image))
        h = graph.concatenate([h, around], axis=1)
    for i in range(1, link.n_conv + 1):
        h = write(graph, link[f'conv{i}'], h)
        h = h if link.bn else write(graph, F.relu, h)
    n_in = link.fc1.W.shape[1]
    # With no regions, the number of rows cannot be inferred.
    h = graph.add('Reshape', h, graph.concatenate([h.shape(0, 1), np.array([n_in])], axis=0))
    for i in range(1, link.n_fc + 1):
        bn = stored_normalization(graph, link[f'bn{i}']) if link.bn else None
        h = write(graph, F.relu, write_linear(graph, link[f'fc{i}'], h, bn))
    loc, conf = write(graph, link.loc, h), write(graph, link.conf, h)
    return loc.reshape(-1, link.n_box, 4), conf


def _pool(graph: Graph, link: BboxHead, hs: Sequence[Value], regions: Regions) -> Value:
    """Features ``(R, C, S, S)`` of regions, each from the level that fits its size."""
    level = _level_of(graph, link, regions.bbox)
    # The operator takes (x_min, y_min, x_max, y_max).
    rois = regions.bbox.take(np.array([1, 0, 3, 2]), axis=1)
    pooled, order = [], []
    for i, (h, scale) in enumerate(zip(hs, link.scales)):
        index = graph.add('NonZero', level.equals(i), dtype=np.int64).squeeze(0)
        order.append(index)
        pooled.append(
            graph.add(
                'RoiAlign',
                h,
                rois.take(index, axis=0),
                regions.image.take(index, axis=0),
                output_height=link.roi_size,
                output_width=link.roi_size,
                sampling_ratio=link.sampling_ratio,
                spatial_scale=scale,
                # No shift by half a pixel, as in Chainer
                coordinate_transformation_mode='output_half_pixel',
            )
        )
    order = graph.concatenate(order, axis=0)
    n = order.shape(0, 1)
    inverse = graph.add(
        'ScatterND', graph.full(n, 0, np.int64), order.unsqueeze(1), graph.arange(n.squeeze(0))
    )
    return graph.concatenate(pooled, axis=0).take(inverse, axis=0)


def _level_of(graph: Graph, link: BboxHead, bbox: Value) -> Value:
    """Write :meth:`pfdet.links.bbox_head.BboxHead.level_of`, int64."""
    extent = bbox.cut(1, 2) - bbox.cut(1, 0, 2)
    area = graph.add('ReduceProd', extent, axes=[1], keepdims=0)
    size = graph.add('Sqrt', area) / link.canonical_size + 1e-6
    # A level is the number of bounds that the size reaches. That is the rounded-down logarithm.
    bounds = 2.0 ** (np.arange(1, len(link.scales)) - 2)
    reached = (size.unsqueeze(1) >= bounds).astype(np.int64)
    return graph.add('ReduceSum', reached, np.array([1]), keepdims=0)


def write_score(graph: Graph, link: BboxHead, conf: Value) -> Value:
    """Write :meth:`pfdet.links.bbox_head.BboxHead.score`.

    Raises:
        InputError: :data:`SCORE_WRITERS` does not know the function.
    """
    score = link._score
    function, keywords = getattr(score, 'func', score), getattr(score, 'keywords', {})
    if function not in SCORE_WRITERS:
        raise unknown_layer(function)
    return SCORE_WRITERS[function](graph, conf, **keywords)


def _write_sigmoid_score(graph: Graph, x: Value) -> Value:
    # Not the operator Sigmoid: ONNX Runtime's rounds to multiples of 6e-8, and low scores to 0.
    # This is the formula of pfdet.functions.sigmoid.
    e = graph.add('Exp', graph.add('Neg', graph.add('Abs', x)))
    return graph.where(x >= 0, 1, e) / (e + 1)


def _write_softmax_score(graph: Graph, x: Value) -> Value:
    return graph.add('Softmax', x, axis=1).cut(1, 0, -1)


def _write_concurrent_softmax_score(graph: Graph, x: Value, rates: Any) -> Value:
    """Write the score in float64.

    The largest logit may have weight 0 in the denominator of a class. In float64 the remaining
    terms do not underflow while they are within 700 of it, which is far beyond logits of a network.
    """
    C = len(rates)
    weight = np.ones((C + 1, C))
    weight[:C] -= np.asarray(rates, np.float64).T
    weight[np.arange(C), np.arange(C)] = 1
    top = graph.add('ReduceMax', x, axes=[1], keepdims=1)
    e = graph.add('Exp', (x - top).astype(np.float64))
    denominator = graph.add('MatMul', e, weight)
    score = e.cut(1, 0, -1) / denominator.maximum(np.finfo(np.float64).tiny)
    return score.astype(np.float32)


#: By score function: ``writer(graph, x, **keywords)``, which maps logits to scores.
SCORE_WRITERS: dict[Callable, Callable[..., Value]] = {
    sigmoid_score: _write_sigmoid_score,
    softmax_score: _write_softmax_score,
    concurrent_softmax_score: _write_concurrent_softmax_score,
}


def write_boxes(
    graph: Graph, link: BboxHead, offset: Value, regions: Regions, sizes: Value
) -> Value:
    """Write :func:`pfdet.links.faster_rcnn.relative_boxes` of all boxes.

    Args:
        graph (Graph): The graph.
        link (BboxHead): Has the divisors of the offsets.
        offset (Value): Offsets of the head, :math:`(R, B, 4)`.
        regions (Regions): Regions of interest.
        sizes (Value): Height and width of each image, int64 :math:`(N, 2)`.

    Returns:
        Value: Boxes :math:`(R, B, 4)` in [0, 1].
    """
    size = sizes.astype(np.float32).take(regions.image, axis=0).unsqueeze(1)
    bbox = clip(graph, decode(graph, offset, regions.bbox.unsqueeze(1), link.std), size)
    return bbox / graph.concatenate([size, size], axis=2)


def write_expansion(
    graph: Graph, bbox: Value, score: Value, descendants: np.ndarray, class_specific: bool
) -> tuple[Value, Value]:
    """Write the expansion of scores, and of class-specific boxes, to ancestors.

    Args:
        graph (Graph): The graph.
        bbox (Value): Boxes :math:`(R, B, 4)`.
        score (Value): Scores :math:`(R, C)`.
        descendants (bool array): See :func:`pfdet.functions.expand_scores.expand_scores`.
        class_specific (bool): Whether there is a box per class.

    Returns:
        tuple of values: Boxes and scores.
    """
    n_class = len(descendants)
    parents = np.flatnonzero(descendants.any(axis=1))
    if len(parents) == 0:
        return bbox, score
    # A row per parent: itself, its descendants, and itself again to fill up.
    families = np.repeat(parents[:, None], 1 + descendants.sum(axis=1).max(), axis=1)
    for family, parent in zip(families, parents):
        children = np.flatnonzero(descendants[parent])
        family[1 : 1 + len(children)] = children
    # Column of each class in what follows: its own score, or that of its family.
    column = np.arange(n_class)
    column[parents] = n_class + np.arange(len(parents))
    # (R, P, F)
    of_families = score.take(families, axis=1)
    highest = graph.add('ReduceMax', of_families, axes=[2], keepdims=0)
    expanded = graph.concatenate([score, highest], axis=1).take(column, axis=1)
    if not class_specific:
        return bbox, expanded
    # The first of equal scores is the parent's own, then that of the lowest id.
    first = graph.add('ArgMax', of_families, axis=2, keepdims=0, dtype=np.int64)
    starts = np.arange(len(parents)) * families.shape[1]
    source = graph.constant(families.reshape(-1)).take(first + starts, axis=0)
    own = graph.add(
        'Expand',
        np.arange(n_class)[None],
        graph.concatenate([score.shape(0, 1), np.array([n_class])], axis=0),
    )
    source = graph.concatenate([own, source], axis=1).take(column, axis=1)
    return graph.add('GatherND', bbox, source.unsqueeze(2), batch_dims=1), expanded
