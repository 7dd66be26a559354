"""ONNX nodes of the region proposal network and of its proposals."""

from collections.abc import Sequence
from typing import NamedTuple

import chainer.functions as F
import numpy as np

from pfdet.boxes.coding import MAX_LOG_SCALE
from pfdet.export.graph import Graph, Value
from pfdet.export.layers import check_type, write
from pfdet.links.rpn import RPN


class Level(NamedTuple):
    """Outputs of the RPN on one level of the pyramid.

    Attributes:
        loc (Value): Offsets :math:`(N, A_l, 4)`.
        conf (Value): Objectness logits :math:`(N, A_l)`.
        anchor (Value): Anchors :math:`(A_l, 4)` in pixels.
    """

    loc: Value
    conf: Value
    anchor: Value


def write_rpn(graph: Graph, link: RPN, hs: Sequence[Value]) -> list[Level]:
    """Write :meth:`pfdet.links.rpn.RPN.forward` and the anchors, by level.

    Args:
        graph (Graph): The graph.
        link (RPN): The region proposal network.
        hs (sequence of values): Feature maps.

    Raises:
        InputError: The link is a subclass.
    """
    check_type(link, RPN)
    levels = []
    for h, scale in zip(hs, link.scales, strict=True):
        anchor = _anchors(graph, link, h, scale)
        h = write(graph, F.relu, write(graph, link.conv, h))
        loc, conf = (
            write(graph, layer, h).transpose(0, 2, 3, 1) for layer in (link.loc, link.conf)
        )
        levels.append(Level(loc.reshape(0, -1, 4), conf.reshape(0, -1), anchor))
    return levels


def _anchors(graph: Graph, link: RPN, h: Value, scale: float) -> Value:
    """Anchors of a level, ordered by row, column and aspect ratio."""
    ratio = np.array(link.anchor_ratios, np.float32)
    side = link.anchor_size / (4 * scale)
    half = np.stack([side * np.sqrt(ratio), side / np.sqrt(ratio)], axis=1) / 2
    half = half.astype(np.float32)
    around = np.concatenate([-half, half], axis=1)
    y, x = (
        (graph.arange(h.shape(k, k + 1).squeeze(0)).astype(np.float32) + 0.5) / scale
        for k in (2, 3)
    )
    # (H, 1, 1, 4) + (1, W, 1, 4), of which one is zero in each coordinate
    rows = y.unsqueeze(1, 2, 3) * np.array([1, 0, 1, 0])
    columns = x.unsqueeze(0, 2, 3) * np.array([0, 1, 0, 1])
    return (rows + columns + around).reshape(-1, 4)


class Regions(NamedTuple):
    """Regions of interest of a batch, ordered by image.

    Attributes:
        bbox (Value): Boxes :math:`(R, 4)` in pixels of the padded batch.
        image (Value): Index of the image of each region, int64 :math:`(R,)`.
    """

    bbox: Value
    image: Value


def write_proposals(graph: Graph, link: RPN, levels: Sequence[Level], size: Value) -> Regions:
    """Write :meth:`pfdet.links.rpn.RPN.decode` with the limits at test time.

    Args:
        graph (Graph): The graph.
        link (RPN): Has the limits and the threshold.
        levels (sequence of Level): Outputs of :func:`write_rpn`.
        size (Value): Height and width of the padded batch, int64 :math:`(2,)`.
    """
    before, after = link.test_limits
    size = size.astype(np.float32)
    bboxes, scores = [], []
    for level in levels:
        n = level.conf.shape(1, 2)
        score, index = largest(graph, level.conf, n.minimum(before))
        offset = graph.add('GatherND', level.loc, index.unsqueeze(2), batch_dims=1)
        bbox = clip(graph, decode(graph, offset, level.anchor.take(index, axis=0)), size)
        bboxes.append(bbox)
        scores.append(_without_suppressed(graph, bbox, score, link.nms_thresh))
    score = graph.concatenate(scores, axis=1)
    score, index = largest(graph, score, score.shape(1, 2).minimum(after))
    bbox = graph.concatenate(bboxes, axis=1)
    bbox = graph.add('GatherND', bbox, index.unsqueeze(2), batch_dims=1)
    valid = graph.add('NonZero', score > -np.inf, dtype=np.int64)
    return Regions(
        graph.add('GatherND', bbox, valid.transpose(1, 0)), valid.take(np.int64(0), axis=0)
    )


def largest(graph: Graph, score: Value, k: Value) -> list[Value]:
    """The ``k`` largest of each row in descending order, and their positions.

    Of equal scores, the one at the lower position comes first.
    """
    score, index = graph.add('TopK', score, k, axis=1, n=2)
    return [score, Value(graph, index.name, np.int64)]


def _without_suppressed(graph: Graph, bbox: Value, score: Value, thresh: float) -> Value:
    """The scores ``(N, K)``, with ``-inf`` for suppressed boxes and those without extent."""
    # The operator suppresses above its threshold, the network from its threshold.
    below = np.nextafter(np.float32(thresh), np.float32(0))
    chosen = graph.add(
        'NonMaxSuppression', bbox, score.unsqueeze(1), score.shape(1, 2), below, dtype=np.int64
    )
    # Its rows are image, class and box.
    place = chosen.take(np.array([0, 2]), axis=1)
    kept = graph.add(
        'ScatterND',
        graph.full(score.shape(0), -np.inf),
        place,
        graph.add('GatherND', score, place),
    )
    extent = bbox.cut(2, 2) - bbox.cut(2, 0, 2)
    smallest = graph.add('ReduceMin', extent, axes=[2], keepdims=0)
    return graph.where(smallest > 0, kept, -np.inf)


def decode(
    graph: Graph, offset: Value, base: Value, std: tuple[float, float] = (1.0, 1.0)
) -> Value:
    """Write :func:`pfdet.boxes.coding.decode`; same arguments."""
    low, high = _halves(base)
    base_size = high - low
    shift, log_scale = _halves(offset)
    centre = shift * std[0] * base_size + (low + high) / 2
    half = graph.add('Exp', (log_scale * std[1]).minimum(MAX_LOG_SCALE)) * (base_size / 2)
    return graph.concatenate([centre - half, centre + half], axis=-1)


def clip(graph: Graph, bbox: Value, size: Value) -> Value:
    """Write :func:`pfdet.boxes.coding.clip`; same arguments, ``size`` as float32."""
    return bbox.maximum(0).minimum(graph.concatenate([size, size], axis=-1))


def _halves(x: Value) -> tuple[Value, Value]:
    return x.cut(-1, 0, 2), x.cut(-1, 2)
