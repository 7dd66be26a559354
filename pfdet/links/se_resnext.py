"""SE-ResNeXt backbones."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import chainer
import chainer.functions as F
import chainer.links as L
from chainer import initializers
from chainercv.links import Conv2DBNActiv
from chainercv.links.model.resnet import ResBlock

from pfdet.links.backbone import (
    CHAINERCV,
    FEATURES,
    Backbone,
    conv_initializer,
    global_average,
)
from pfdet.links.resnet import N_LAYER, ResNet


def se_resnext50(n_class: int | None = None, initialW: chainer.Initializer | None = None) -> ResNet:
    """SE-ResNeXt-50 (32x4d) with ChainerCV's architecture and conventions."""
    return ResNet(N_LAYER[50], 32 * 4, 32, True, CHAINERCV, n_class, initialW)


def se_resnext101(
    n_class: int | None = None, initialW: chainer.Initializer | None = None
) -> ResNet:
    """SE-ResNeXt-101 (32x4d) with ChainerCV's architecture and conventions.

    The backbone of all rows of PFDet's Table 1 except the last.
    """
    return ResNet(N_LAYER[101], 32 * 4, 32, True, CHAINERCV, n_class, initialW)


class MiniSEResNeXt(Backbone):
    """An SE-ResNeXt small enough to train from scratch on two CPU cores in minutes.

    It has the structure of the large SE-ResNeXts: stem, four stages, grouped bottlenecks, and
    squeeze and excitation. It has fewer and narrower bottlenecks. The feature maps C2 to C5 have
    ``2 * width`` to ``16 * width`` channels. Inputs and outputs are described in
    :class:`~pfdet.links.backbone.Backbone`.

    Args:
        n_layer (sequence of int): Number of bottlenecks in each of the four stages.
        width (int): Channels of the 3x3 convolutions in the first stage, doubled by each stage. The
            output of a stage has twice as many.
        groups (int): Groups of the 3x3 convolutions.
        n_class (int): Number of classes of a classifier on top. By default, there is no classifier.
        initialW (initializer): Initializer of the convolutions.
    """

    def __init__(
        self,
        n_layer: Sequence[int] = (1, 1, 1, 1),
        width: int = 32,
        groups: int = 4,
        n_class: int | None = None,
        initialW: chainer.Initializer | None = None,
    ):
        super().__init__()
        if initialW is None:
            initialW = conv_initializer()
        kwargs = {'groups': groups, 'add_seblock': True, 'initialW': initialW}
        mid = [width * 2**i for i in range(4)]
        self.out_channels = tuple(2 * m for m in mid)
        with self.init_scope():
            self.conv1 = Conv2DBNActiv(3, width, 5, 2, 2, initialW=initialW)
            self.pool1 = partial(F.max_pooling_2d, ksize=2, stride=2)
            self.res2 = ResBlock(n_layer[0], width, mid[0], 2 * mid[0], 1, **kwargs)
            self.res3 = ResBlock(n_layer[1], 2 * mid[0], mid[1], 2 * mid[1], 2, **kwargs)
            self.res4 = ResBlock(n_layer[2], 2 * mid[1], mid[2], 2 * mid[2], 2, **kwargs)
            self.res5 = ResBlock(n_layer[3], 2 * mid[2], mid[3], 2 * mid[3], 2, **kwargs)
            if n_class is not None:
                self.pool5 = global_average
                self.fc6 = L.Linear(2 * mid[3], n_class, initialW=initializers.Normal(scale=0.01))
        self.pick = FEATURES
        self.use(replace(CHAINERCV, pool_pad=None))
