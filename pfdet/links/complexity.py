"""Number of parameters and operations of a detector."""

import chainer
import numpy as np
from chainer.function_hook import FunctionHook
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.linear import LinearFunction

from pfdet.links.faster_rcnn import FasterRCNN


class CountOperations(FunctionHook):
    """Function hook that counts the operations of convolutions and fully connected layers.

    A multiply-add counts as two operations. Element-wise functions, pooling and RoIAlign do not
    count, as is customary.

    Attributes:
        flops (int): Number of operations.
    """

    name = 'CountOperations'

    def __init__(self):
        self.flops = 0

    def forward_postprocess(self, function: chainer.FunctionNode, in_data: tuple) -> None:
        """Count the operations of a function after its forward pass. Called by Chainer."""
        if isinstance(function, Convolution2DFunction):
            x, W = in_data[:2]
            out_h, out_w = function._get_out_size(x.shape, W.shape)
            self.flops += 2 * x.shape[0] * out_h * out_w * W.size
        elif isinstance(function, LinearFunction):
            x, W = in_data[:2]
            self.flops += 2 * x.shape[0] * W.size


def n_parameter(link: chainer.Link) -> int:
    """Count the parameters of a link, without running statistics."""
    return sum(param.size for param in link.params())


def detector_flops(network: FasterRCNN, size: tuple[int, int], n_roi: int) -> int:
    """Count the operations of the forward pass for one image.

    Backbone, pyramid and RPN are counted on a smaller image and scaled by the area. This is exact
    except for padding and the few operations that do not depend on the area.

    Args:
        network (FasterRCNN): A detector on the CPU.
        size (pair of int): Height and width of the image.
        n_roi (int): Number of regions of interest.

    Returns:
        int: Number of operations, see :class:`CountOperations`.
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
