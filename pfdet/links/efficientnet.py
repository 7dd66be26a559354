"""EfficientNet-B7, a backbone of the ensemble of Peng et al. (2020)."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import chainer
import chainer.functions as F
import chainer.links as L
from chainer import initializers
from chainercv.links import Conv2DBNActiv, PickableSequentialChain

from pfdet.links.backbone import (
    FEATURES,
    TORCHVISION,
    Backbone,
    conv_initializer,
    global_average,
)


class Stage(NamedTuple):
    """Blocks with the same configuration, before scaling (Tan and Le, Table 1).

    Attributes:
        expand (int): Expansion factor.
        ksize (int): Kernel size of the depthwise convolution.
        stride (int): Stride of the first block.
        channels (int): Output channels.
        n_layer (int): Number of blocks.
    """

    expand: int
    ksize: int
    stride: int
    channels: int
    n_layer: int


# Stages by feature map. Stages of the same stride belong to one map.
STAGES: dict[str, tuple[Stage, ...]] = {
    'res2': (Stage(1, 3, 1, 16, 1), Stage(6, 3, 2, 24, 2)),
    'res3': (Stage(6, 5, 2, 40, 2),),
    'res4': (Stage(6, 3, 2, 80, 3), Stage(6, 5, 1, 112, 3)),
    'res5': (Stage(6, 5, 2, 192, 4), Stage(6, 3, 1, 320, 1)),
}

# torchvision's batch normalization of B5 to B7.
_BN = {'eps': 1e-3, 'decay': 0.99}


class EfficientNet(Backbone):
    """EfficientNet (Tan and Le).

    The architecture is that of torchvision: convolutions of stride 2 have the same padding on all
    sides, while TensorFlow's "same" padding pads only at the bottom and the right. C5 is the output
    of the last block. The 1x1 convolution after it belongs to the classifier. There is no
    stochastic depth. Inputs and outputs are described in :class:`~pfdet.links.backbone.Backbone`.

    Args:
        width (float): Multiplier of the channels.
        depth (float): Multiplier of the number of blocks.
        n_class (int): Number of classes of a classifier on top. By default, there is no classifier.
        initialW (initializer): Initializer of the convolutions.
    """

    def __init__(
        self,
        width: float = 2.0,
        depth: float = 3.1,
        n_class: int | None = None,
        initialW: chainer.Initializer | None = None,
    ):
        super().__init__()
        if initialW is None:
            initialW = conv_initializer()
        channels = scale_channels(32, width)
        self.out_channels = tuple(
            scale_channels(STAGES[name][-1].channels, width) for name in FEATURES
        )
        with self.init_scope():
            self.conv1 = _conv(3, channels, 3, 2, initialW=initialW)
            for name in FEATURES:
                chain = PickableSequentialChain()
                with chain.init_scope():
                    for i, (expand, ksize, stride, out) in enumerate(
                        blocks(STAGES[name], width, depth), 1
                    ):
                        setattr(
                            chain, f'b{i}', MBConv(channels, out, expand, ksize, stride, initialW)
                        )
                        channels = out
                setattr(self, name, chain)
            if n_class is not None:
                self.conv6 = _conv(channels, 4 * channels, initialW=initialW)
                self.pool5 = global_average
                self.fc6 = L.Linear(4 * channels, n_class, initialW=initializers.Normal(scale=0.01))
        self.pick = FEATURES
        self.use(replace(TORCHVISION, bn_eps=_BN['eps'], pool_pad=None))


class MBConv(chainer.Chain):
    """Inverted bottleneck with squeeze and excitation.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        expand (int): Expansion factor from the input to the depthwise convolution.
        ksize (int): Kernel size of the depthwise convolution.
        stride (int): Stride of the depthwise convolution.
        initialW (initializer): Initializer of the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expand: int,
        ksize: int,
        stride: int,
        initialW: chainer.Initializer,
    ):
        super().__init__()
        mid = in_channels * expand
        self.shortcut = stride == 1 and in_channels == out_channels
        with self.init_scope():
            if expand != 1:
                self.expand = _conv(in_channels, mid, initialW=initialW)
            self.depthwise = _conv(mid, mid, ksize, stride, mid, initialW=initialW)
            self.se = SqueezeExcitation(mid, max(1, in_channels // 4))
            self.project = _conv(mid, out_channels, initialW=initialW, activ=None)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        """Map :math:`(N, C, H, W)` to :math:`(N, C', H / stride, W / stride)`."""
        h = self.expand(x) if hasattr(self, 'expand') else x
        h = self.project(self.se(self.depthwise(h)))
        return h + x if self.shortcut else h


class SqueezeExcitation(chainer.Chain):
    """Squeeze and excitation with swish between its two layers.

    Unlike in ChainerCV's ``SEBlock``, the number of hidden units is an argument.

    Args:
        n_channel (int): Channels of input and output.
        n_squeezed (int): Hidden units between the layers.
    """

    def __init__(self, n_channel: int, n_squeezed: int):
        super().__init__()
        with self.init_scope():
            self.down = L.Linear(n_channel, n_squeezed)
            self.up = L.Linear(n_squeezed, n_channel)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        """Scale the channels of feature maps :math:`(N, C, H, W)`."""
        gate = F.sigmoid(self.up(swish(self.down(global_average(x)))))
        return x * F.broadcast_to(gate[:, :, None, None], x.shape)


def swish(x: chainer.Variable) -> chainer.Variable:
    """Swish activation, :math:`x \\sigma(x)`."""
    return x * F.sigmoid(x)


def _conv(
    in_channels: int,
    out_channels: int,
    ksize: int = 1,
    stride: int = 1,
    groups: int = 1,
    initialW: chainer.Initializer | None = None,
    activ=swish,
) -> Conv2DBNActiv:
    return Conv2DBNActiv(
        in_channels,
        out_channels,
        ksize,
        stride,
        ksize // 2,
        groups=groups,
        initialW=initialW,
        activ=activ,
        bn_kwargs=_BN,
    )


def scale_channels(channels: int, width: float) -> int:
    """Round ``channels * width`` to a multiple of 8 that is at least 0.9 times its value."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def blocks(
    stages: tuple[Stage, ...], width: float, depth: float
) -> Iterator[tuple[int, int, int, int]]:
    """Yield expansion, kernel size, stride and channels of each block of scaled stages."""
    for stage in stages:
        for i in range(math.ceil(stage.n_layer * depth)):
            yield (
                stage.expand,
                stage.ksize,
                stage.stride if i == 0 else 1,
                scale_channels(stage.channels, width),
            )


def efficientnet_b7(
    n_class: int | None = None, initialW: chainer.Initializer | None = None
) -> EfficientNet:
    """EfficientNet-B7 with twice the channels and 3.1 times the blocks of B0."""
    return EfficientNet(2.0, 3.1, n_class, initialW)
