"""The ONNX model of a detector, or of one of its two parts."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pfdet.errors import InputError
from pfdet.export.blocks import preprocess, write_fpn
from pfdet.export.graph import Graph, Value
from pfdet.export.layers import check_type
from pfdet.export.proposals import Regions, write_proposals, write_rpn
from pfdet.export.regions import write_boxes, write_expansion, write_head, write_score
from pfdet.links.faster_rcnn import FasterRCNN

#: Key of the model's metadata under which pfdet stores what it needs to use the model.
METADATA = 'pfdet'
#: Raised when a model of an older version cannot be used any more.
FORMAT = 1
_REGIONS = 'regions'


def onnx_model(network: FasterRCNN, part: str = 'detector', about: Mapping | None = None) -> Any:
    """Export a detector to ONNX.

    Batch, height and width are free. Computation is in float32. ``docs/deployment.md`` describes
    inputs and outputs.

    Args:
        network (FasterRCNN): The detector, on the CPU.
        part (str): A key of :data:`PARTS`.
        about (mapping): Further metadata that can be written as JSON.

    Returns:
        onnx.ModelProto: The model.

    Raises:
        InputError: The network has a part that cannot be exported, is too large, or the package
            ``onnx`` is missing.
        ValueError: There is no such part.
    """
    check_type(network, FasterRCNN)
    if network.xp is not np:
        raise InputError('cannot be exported to ONNX from a GPU: expected a network on the CPU')
    if part not in PARTS:
        raise ValueError(f'part={part!r}: expected one of {", ".join(PARTS)}')
    graph = Graph(network)
    PARTS[part](graph, network)
    metadata = {
        'format': FORMAT,
        'part': part,
        'stride': network.stride,
        'n_class': network.n_class,
        'n_box': network.head.n_box,
        **(about or {}),
    }
    return graph.model({METADATA: json.dumps(metadata)})


def _write_detector(graph: Graph, network: FasterRCNN) -> None:
    images, sizes = _image_inputs(graph)
    x = preprocess(graph, network.extractor, images, sizes)
    hs = write_fpn(graph, network.extractor, x)
    regions = write_proposals(graph, network.rpn, write_rpn(graph, network.rpn, hs), x.shape(2))
    offset, conf = write_head(graph, network.head, hs, regions)
    score = write_score(graph, network.head, conf)
    bbox = write_boxes(graph, network.head, offset, regions, sizes)
    if network.descendants is not None:
        bbox, score = write_expansion(
            graph, bbox, score, network.descendants, network.head.n_box > 1
        )
    graph.check_complete(network)
    graph.output('boxes', bbox, [_REGIONS, network.head.n_box, 4])
    graph.output('scores', score, [_REGIONS, network.n_class])
    graph.output('image', regions.image, [_REGIONS])


def _write_trunk(graph: Graph, network: FasterRCNN) -> None:
    x = preprocess(graph, network.extractor, *_image_inputs(graph))
    hs = write_fpn(graph, network.extractor, x)
    levels = write_rpn(graph, network.rpn, hs)
    graph.check_complete(network.extractor)
    graph.check_complete(network.rpn)
    for name, h in zip(_level_names(len(hs)), hs, strict=True):
        graph.output(name, h, _map_shape(network, name))
    for name, values, shape, axis in (
        ('loc', [level.loc for level in levels], ['batch', 'anchors', 4], 1),
        ('conf', [level.conf for level in levels], ['batch', 'anchors'], 1),
        ('anchor', [level.anchor for level in levels], ['anchors', 4], 0),
    ):
        graph.output(name, graph.concatenate(values, axis=axis), shape)


def _write_head(graph: Graph, network: FasterRCNN) -> None:
    head = network.head
    hs = [
        graph.input(name, np.float32, _map_shape(network, name))
        for name in _level_names(len(head.scales))
    ]
    regions = Regions(
        graph.input('roi', np.float32, [_REGIONS, 4]),
        graph.input('image', np.int64, [_REGIONS]),
    )
    offset, conf = write_head(graph, head, hs, regions)
    score = write_score(graph, head, conf)
    graph.check_complete(head)
    graph.output('offset', offset, [_REGIONS, head.n_box, 4])
    graph.output('scores', score, [_REGIONS, head.n_class])


#: What can be exported: the whole detector; images to feature maps and outputs of the region
#: proposal network; feature maps and regions of interest to box offsets and scores.
PARTS: dict[str, Callable[[Graph, FasterRCNN], None]] = {
    'detector': _write_detector,
    'trunk': _write_trunk,
    'head': _write_head,
}


def _image_inputs(graph: Graph) -> tuple[Value, Value]:
    return (
        graph.input('images', np.float32, ['batch', 3, 'height', 'width']),
        graph.input('sizes', np.int64, ['batch', 2]),
    )


def _level_names(n: int) -> list[str]:
    """Names of feature maps by the logarithm of their stride, as in Feature Pyramid Networks."""
    return [f'p{i + 2}' for i in range(n)]


def _map_shape(network: FasterRCNN, name: str) -> list[int | str]:
    return ['batch', network.extractor.n_channel, f'height_{name}', f'width_{name}']
