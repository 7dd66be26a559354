"""How large a detector is: parameters, and operations for an image."""

import chainer
import numpy as np
from chainer.function_hook import FunctionHook
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.linear import LinearFunction

from pfdet.links.faster_rcnn import FasterRCNN


class CountOperations(FunctionHook):
    """Count the multiplications and additions of convolutions and fully connected layers.

    A multiplication with its addition counts as two operations. Element-wise functions, pooling
    and RoIAlign are left out, as is customary.

    Attributes:
        flops (int): The count.
    """

    name = 'CountOperations'

    def __init__(self):
        self.flops = 0

    def forward_postprocess(self, function, in_data) -> None:
        """Called by Chainer after each function of the forward pass."""
        if isinstance(function, Convolution2DFunction):
            x, W = in_data[:2]
            out_h, out_w = function._get_out_size(x.shape, W.shape)
            self.flops += 2 * x.shape[0] * out_h * out_w * W.size
        elif isinstance(function, LinearFunction):
            x, W = in_data[:2]
            self.flops += 2 * x.shape[0] * W.size


def n_parameter(link: chainer.Link) -> int:
    """The number of a link's parameters; running statistics are none."""
    return sum(param.size for param in link.params())


def detector_flops(network: FasterRCNN, size: tuple[int, int], n_roi: int) -> int:
    """Operations of the forward pass for one image.

    Backbone, pyramid and RPN are counted on a smaller image and scaled by the area, which is
    exact up to padding and the few operations that do not depend on it.

    Args:
        network (FasterRCNN): On the CPU.
        size (pair of int): Height and width of the image.
        n_roi (int): Regions that the head looks at.

    Returns:
        int: As :class:`CountOperations` counts.
    """
    small = np.zeros((1, 3, 2 * network.stride, 2 * network.stride), network.dtype)
    rois = np.tile(np.array([0, 0, network.stride, network.stride], network.dtype), (2, 1))
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        with CountOperations() as maps:
            hs = network.extractor(small)
            network.rpn(hs)
        with CountOperations() as head:
            network.head(hs, rois, np.zeros(len(rois), np.int32))
    area = np.prod(network.padded_size(size)) / np.prod(small.shape[2:])
    return round(maps.flops * area) + head.flops * n_roi // len(rois)
