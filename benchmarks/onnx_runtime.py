"""Prediction in ONNX Runtime against Chainer with pfdet's CPU functions, one core.

    python benchmarks/onnx_runtime.py [--networks mini table1-baseline table1-senet154] [--check]

Random weights; the statistics of the batch normalizations are those of the image. The two take
turns. Prints, for the trunk (images to outputs of the RPN) and for the whole detector:

- the times of one image, and how many times as fast as Chainer ONNX Runtime is;
- the largest difference: of the trunk's outputs, relative to the largest value of each, and of the
  detector's relative boxes and scores, each with its nearest counterpart. With it the share of the
  regions whose counterpart is within 1e-4. Rounding decides the order of almost equal scores.

The goals are for one thread, the default (`OMP_NUM_THREADS`).
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse
import sys
from functools import partial

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import onnxruntime
from timing import Table, add_check, status, take_turns

from pfdet import recipes
from pfdet.cpu.threads import n_thread
from pfdet.export.detector import onnx_model
from pfdet.export.onnx_detector import OnnxDetector
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.training import build

# By recipe: classes, and height and width of the image. Small, because SENet-154 takes long.
CASES = {
    'mini': (28, (160, 224)),
    'table1-baseline': (500, (256, 320)),
    'table1-senet154': (500, (256, 320)),
}
MIN_RATIO, MAX_DIFFERENCE, MIN_SHARE = 1.2, 1e-4, 0.99


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--networks', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--rounds', type=int, default=5, help='default: %(default)s')
    add_check(parser)
    args = parser.parse_args()
    print(f'onnxruntime {onnxruntime.__version__}, {n_thread()} thread(s)')
    table = Table()
    for name in args.networks:
        measure(table, name, args.rounds)
    return status(table.missed, args.check)


def measure(table: Table, name: str, rounds: int) -> None:
    """Print the results of a network."""
    n_class, size = CASES[name]
    img = smooth_image(np.random.default_rng(0), size)
    network = build.detector(recipes.find(name), n_class)
    use_statistics_of(network, img)
    print(f'{name}, {size[0]} x {size[1]}')

    ways = {
        'Chainer': partial(chainer_trunk, network, img),
        'ONNX Runtime': partial(Trunk(network), img),
    }
    results, seconds = take_turns(ways, rounds)
    table.faster('  trunk', seconds['ONNX Runtime'], seconds['Chainer'], 'Chainer', MIN_RATIO)
    difference = max(
        abs(a - b).max() / max(1, abs(a).max()) for a, b in zip(*results.values(), strict=True)
    )
    table.require(
        f'  largest relative difference {difference:.1e}, at most {MAX_DIFFERENCE:g}',
        difference <= MAX_DIFFERENCE,
    )
    ways = {
        'Chainer': partial(network.predict, [img]),
        'ONNX Runtime': partial(OnnxDetector.of_network(network).predict, [img]),
    }
    results, seconds = take_turns(ways, rounds)
    table.faster('  detector', seconds['ONNX Runtime'], seconds['Chainer'], 'Chainer', MIN_RATIO)
    distance = nearest(*(results[way][0] for way in ways))
    share = (distance <= MAX_DIFFERENCE).mean()
    near = distance[distance <= MAX_DIFFERENCE].max(initial=0)
    table.require(
        f'  largest difference {near:.1e} in {share:.1%} of regions, at least {MIN_SHARE:.0%}',
        share >= MIN_SHARE,
    )


class Trunk:
    """The exported trunk in ONNX Runtime."""

    def __init__(self, network: FasterRCNN):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_thread()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            onnx_model(network, 'trunk').SerializeToString(), options, ['CPUExecutionProvider']
        )
        # The last output are the anchors, which are not computed from the image.
        self.names = [output.name for output in self.session.get_outputs()][:-1]

    def __call__(self, img: np.ndarray) -> list[np.ndarray]:
        inputs = {'images': img[None].astype(np.float32), 'sizes': np.array([img.shape[1:]])}
        return self.session.run(self.names, inputs)


def chainer_trunk(network: FasterRCNN, img: np.ndarray) -> list[np.ndarray]:
    """Feature maps, offsets and objectness of an image."""
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        hs = network.extractor(network.prepare([img]))
        return [h.array for h in (*hs, *network.rpn(hs)[:2])]


def nearest(one: tuple, other: tuple) -> np.ndarray:
    """Distance of each region of one output, boxes and scores, to its nearest of the other."""
    a, b = (
        np.concatenate([bbox.reshape(len(bbox), -1), score], axis=1) for bbox, score in (one, other)
    )
    return np.array([abs(b - row).max(axis=1).min() for row in a])


def smooth_image(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A picture with areas of different colours and little noise, uint8 (3, H, W)."""
    coarse = rng.uniform(0, 256, (3, -(-size[0] // 16), -(-size[1] // 16)))
    img = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, : size[0], : size[1]]
    return np.clip(img + rng.normal(0, 10, img.shape), 0, 255).astype(np.uint8)


def use_statistics_of(network: FasterRCNN, img: np.ndarray) -> None:
    """Set the statistics of batch normalization, so that activations stay near 1.

    They are those of the image and of another one: a grid of one bin has one value per image.
    """
    other = smooth_image(np.random.default_rng(2), img.shape[1:])
    for link in network.links():
        if hasattr(link, 'avg_var'):
            link.start_finetuning()
    with chainer.using_config('train', True), chainer.no_backprop_mode():
        hs = network.extractor(network.prepare([img, other]))
        # As many regions as the head needs for its statistics
        rois = np.tile(np.array([[0, 0, *img.shape[1:]]], np.float32), (64, 1))
        rois[:, :2] += np.random.default_rng(1).uniform(0, 100, (64, 2))
        network.head(hs, rois, np.zeros(64, np.int32))


if __name__ == '__main__':
    sys.exit(main())
