"""Number of parameters and operations of a detector, and the size of its intermediate arrays."""

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


class CountArrays(FunctionHook):
    """Function hook that adds up the sizes of the arrays that functions take.

    Each array counts once, with all views of it. Parameters do not count. The arrays are kept until
    the hook is deleted, so use small ones.

    Args:
        link (chainer.Link): Its parameters do not count.
    """

    name = 'CountArrays'

    def __init__(self, link: chainer.Link):
        self._known = {id(param.array): param.array for param in link.params()}
        self._found: dict[int, np.ndarray] = {}

    @property
    def n_byte(self) -> int:
        """Number of bytes."""
        return sum(array.nbytes for array in self._found.values())

    def forward_preprocess(self, function: chainer.FunctionNode, in_data: tuple) -> None:
        """Count the inputs of a function. Called by Chainer."""
        for array in in_data:
            while isinstance(array, np.ndarray) and isinstance(array.base, np.ndarray):
                array = array.base
            if isinstance(array, np.ndarray) and id(array) not in self._known:
                self._found[id(array)] = array


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


def activation_bytes(network: FasterRCNN, size: tuple[int, int], n_roi: int) -> int:
    """Add up the intermediate arrays of a training step's forward pass for one image.

    As in :func:`detector_flops`, the maps are counted on a smaller image and scaled by the area.
    Chainer keeps only those of the arrays that the backward pass needs, but convolutions need
    workspace, so this is an estimate of the memory of activations.

    Args:
        network (FasterRCNN): A detector on the CPU.
        size (pair of int): Height and width of the image.
        n_roi (int): Number of sampled regions of interest.

    Returns:
        int: Bytes.
    """
    side = 4 * network.stride
    img = np.zeros((1, 3, side, side), network.dtype)
    n_counted = 8
    rois = np.tile(np.array([0, 0, side, side], network.dtype), (n_counted, 1))
    count = CountArrays(network)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        with count:
            hs = network.extractor(img)
            network.rpn(hs)
        in_maps = count.n_byte
        with count:
            network.head(hs, rois, np.zeros(n_counted, np.int32))
    area = np.prod(network.padded_size(size)) / side**2
    return round(in_maps * area + (count.n_byte - in_maps) * n_roi / n_counted)
