"""SENet-154, the backbone of the last row of PFDet's Table 1."""

from collections.abc import Sequence
from dataclasses import replace

import chainer
import chainer.functions as F
import chainer.links as L
from chainer import initializers
from chainercv.links import Conv2DBNActiv, PickableSequentialChain, SEBlock

from pfdet.links.backbone import (
    FEATURES,
    TORCHVISION,
    Backbone,
    conv_initializer,
    global_average,
    stem_pooling,
)
from pfdet.links.resnet import N_LAYER


class SENet(Backbone):
    """SENet-154 (Hu et al., appendix "SENet-154").

    This is ResNeXt-152 (64x4d) with squeeze and excitation and three changes:

    - Three 3x3 convolutions replace the first 7x7 convolution.
    - The first 1x1 convolution of a bottleneck has half the channels of the 3x3 convolution.
    - The convolution in the shortcut of a stage with stride 2 is 3x3.

    Inputs and outputs are described in :class:`~pfdet.links.backbone.Backbone`.

    Args:
        n_layer (sequence of int): Number of bottlenecks in each of the four stages.
        groups (int): Groups of the 3x3 convolutions.
        width (int): Output channels of the first stage, doubled by each stage.
        n_class (int): Number of classes of a classifier on top. By default, there is no classifier.
        initialW (initializer): Initializer of the convolutions.
    """

    def __init__(
        self,
        n_layer: Sequence[int] = N_LAYER[152],
        groups: int = 64,
        width: int = 256,
        n_class: int | None = None,
        initialW: chainer.Initializer | None = None,
    ):
        super().__init__()
        if initialW is None:
            initialW = conv_initializer()
        conventions = replace(TORCHVISION, pool_pad=0)
        self.out_channels = out = tuple(width * 2**i for i in range(4))
        with self.init_scope():
            self.conv1 = Conv2DBNActiv(3, 64, 3, 2, 1, initialW=initialW)
            self.conv2 = Conv2DBNActiv(64, 64, 3, 1, 1, initialW=initialW)
            self.conv3 = Conv2DBNActiv(64, 128, 3, 1, 1, initialW=initialW)
            self.pool1 = stem_pooling(0)
            self.res2 = _stage(n_layer[0], 128, out[0], 1, groups, initialW)
            self.res3 = _stage(n_layer[1], out[0], out[1], 2, groups, initialW)
            self.res4 = _stage(n_layer[2], out[1], out[2], 2, groups, initialW)
            self.res5 = _stage(n_layer[3], out[2], out[3], 2, groups, initialW)
            if n_class is not None:
                self.pool5 = global_average
                self.fc6 = L.Linear(out[3], n_class, initialW=initializers.Normal(scale=0.01))
        self.pick = FEATURES
        self.use(conventions)


def _stage(
    n_layer: int,
    in_channels: int,
    out_channels: int,
    stride: int,
    groups: int,
    initialW: chainer.Initializer,
) -> PickableSequentialChain:
    """Make a sequence of bottlenecks, named as in ChainerCV's ``ResBlock``."""
    stage = PickableSequentialChain()
    with stage.init_scope():
        stage.a = SENetBottleneck(in_channels, out_channels, stride, groups, initialW, True)
        for i in range(1, n_layer):
            setattr(
                stage,
                f'b{i}',
                SENetBottleneck(out_channels, out_channels, 1, groups, initialW, False),
            )
    return stage


class SENetBottleneck(chainer.Chain):
    """Bottleneck of SENet-154.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output and of the 3x3 convolution.
        stride (int): Stride of the 3x3 convolution and the shortcut.
        groups (int): Groups of the 3x3 convolution.
        initialW (initializer): Initializer of the convolutions.
        residual_conv (bool): Whether the shortcut has a convolution: 1x1, or 3x3 with stride 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        groups: int,
        initialW: chainer.Initializer,
        residual_conv: bool,
    ):
        super().__init__()
        with self.init_scope():
            self.conv1 = Conv2DBNActiv(in_channels, out_channels // 2, 1, initialW=initialW)
            self.conv2 = Conv2DBNActiv(
                out_channels // 2, out_channels, 3, stride, 1, groups=groups, initialW=initialW
            )
            self.conv3 = Conv2DBNActiv(out_channels, out_channels, 1, initialW=initialW, activ=None)
            self.se = SEBlock(out_channels)
            if residual_conv:
                ksize = 1 if stride == 1 else 3
                self.residual_conv = Conv2DBNActiv(
                    in_channels,
                    out_channels,
                    ksize,
                    stride,
                    ksize // 2,
                    initialW=initialW,
                    activ=None,
                )

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        """Map :math:`(N, C, H, W)` to :math:`(N, C', H / stride, W / stride)`."""
        h = self.se(self.conv3(self.conv2(self.conv1(x))))
        return F.relu(h + (self.residual_conv(x) if hasattr(self, 'residual_conv') else x))


def senet154(n_class: int | None = None, initialW: chainer.Initializer | None = None) -> SENet:
    """SENet-154."""
    return SENet(n_class=n_class, initialW=initialW)
