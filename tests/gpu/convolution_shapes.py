"""Write the distinct convolutions of ``table1-baseline`` to ``convolutions.json``.

An image of 64 x 64 pixels passes the network on the CPU. Shapes at 832 x 1344 pixels, where images
of 800 x 1333 are padded to, are 13 and 21 times as large, because every stride divides 64::

    python tests/gpu/convolution_shapes.py
"""

import json
from pathlib import Path

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
from chainer.functions.connection.convolution_2d import Convolution2DFunction

from pfdet import recipes
from pfdet.training import build

PATH = Path(__file__).with_name('convolutions.json')
SIZE = 64
SCALES = 13, 21


class Recorder(chainer.FunctionHook):
    """Record the shapes and settings of convolutions."""

    name = 'convolution shapes'

    def __init__(self):
        self.found = []

    def forward_postprocess(self, function, in_data):
        if isinstance(function, Convolution2DFunction):
            x, W = in_data[:2]
            self.found.append(
                {
                    'input': [x.shape[1], *x.shape[2:]],
                    'filters': list(W.shape),
                    'stride': function.sy,
                    'pad': function.ph,
                    'dilate': function.dy,
                    'bias': len(in_data) == 3,
                }
            )


def convolutions(recipe='table1-baseline'):
    """Return the distinct convolutions of a recipe's network at 64 x 64 pixels."""
    network = build.detector(recipes.find(recipe), 2)
    x = np.zeros((1, 3, SIZE, SIZE), np.float32)
    with Recorder() as recorder, chainer.no_backprop_mode(), chainer.using_config('train', False):
        network.rpn(network.extractor(x))
    distinct = {json.dumps(shape): shape for shape in recorder.found}
    return list(distinct.values())


def read():
    """Return the stored convolutions."""
    return json.loads(PATH.read_text())


def main():
    """Write the file."""
    found = convolutions()
    PATH.write_text('[\n' + ',\n'.join(f' {json.dumps(c)}' for c in found) + '\n]\n')
    print(f'{PATH.name}: {len(found)} convolutions')


if __name__ == '__main__':
    main()
