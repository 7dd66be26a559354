"""Comparison of an exported network with the original."""

from typing import Any

import chainer
import numpy as np

from pfdet.errors import InputError
from pfdet.export.detector import onnx_model
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.optional_packages import optional_package

_N_REGION = 64


def largest_difference(network: FasterRCNN, seed: int = 0, limit: float = 1e-3) -> float:
    """Run both parts of a network in Chainer and in ONNX Runtime on random input.

    The trunk gets an image of noise, and the head the feature maps of that image and random
    regions. The proposals between them are not compared, because rounding decides the order of
    almost equal scores.

    Args:
        network (FasterRCNN): The network.
        seed (int): Seed of the input.
        limit (float): Largest difference that can be due to rounding.

    Returns:
        float: Largest difference of an output, relative to the largest absolute value of that
        output in Chainer where this is above 1.

    Raises:
        InputError: A difference is above the limit: the exporter does not know something that the
            network does.
    """
    rng = np.random.default_rng(seed)
    # Enough pixels for one position of the last level; not square, no multiple of the stride
    height, width = 2 * network.stride - 3, 3 * network.stride - 5
    img = rng.integers(0, 256, (3, height, width)).astype(np.uint8)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        hs = network.extractor(network.prepare([img]))
        loc, conf, _ = network.rpn(hs)
        maps = {f'p{i + 2}': h.array for i, h in enumerate(hs)}
        roi = _random_regions(rng, (height, width))
        image = np.zeros(len(roi), np.int32)
        offset, logit = network.head(hs, roi, image)
        score = network.head.score(logit)
    trunk = _outputs(
        network,
        'trunk',
        {'images': img[None].astype(np.float32), 'sizes': np.array([[height, width]])},
    )
    used = [f'p{i + 2}' for i in range(len(network.head.scales))]
    head = _outputs(
        network,
        'head',
        {
            **{name: maps[name].astype(np.float32) for name in used},
            'roi': roi,
            'image': image.astype(np.int64),
        },
    )
    anchor = network.rpn.anchors([h.shape[2:] for h in hs])
    expected = {
        'trunk': {**maps, 'loc': loc.array, 'conf': conf.array, 'anchor': anchor},
        'head': {'offset': offset.array, 'scores': score},
    }
    largest = 0.0
    for part, actual in ('trunk', trunk), ('head', head):
        for name, value in expected[part].items():
            scale = max(1.0, float(np.abs(value).max(initial=0)))
            difference = float(np.abs(actual[name] - value).max(initial=0)) / scale
            # Not a number is not below the limit either.
            if not difference <= limit:
                raise InputError(
                    f'{part} of the network, output {name}: cannot be exported to ONNX: differs by '
                    f'{difference:.2g}; expected at most {limit:g}'
                )
            largest = max(largest, difference)
    return largest


def _random_regions(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Boxes of all sizes in an image, float32 ``(_N_REGION, 4)``."""
    low, high = np.sort(rng.uniform(0, 1, (2, _N_REGION, 2)), axis=0)
    return np.concatenate([low * size, high * size], axis=1).astype(np.float32)


def _outputs(network: FasterRCNN, part: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    runtime = optional_package('onnxruntime')
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        onnx_model(network, part).SerializeToString(), options, ['CPUExecutionProvider']
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
