"""ResNet and ResNeXt backbones, with or without squeeze and excitation."""

from collections.abc import Sequence

import chainer
import chainer.links as L
from chainer import initializers
from chainercv.links.model.resnet import ResBlock

from pfdet.links.backbone import (
    FEATURES,
    TORCHVISION,
    Backbone,
    Conventions,
    conv_initializer,
    global_average,
    stem_7x7,
    stem_pooling,
)

N_LAYER = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ResNet(Backbone):
    """ResNet (He et al.), ResNeXt (Xie et al.) and SE-ResNeXt (Hu et al.) with bottlenecks.

    The layers and their names are those of ChainerCV's ResNet with ``arch='fb'``: the 3x3
    convolution of a stage's first bottleneck has the stride. The feature maps C2 to C5 have 256,
    512, 1024 and 2048 channels. Inputs and outputs are described in
    :class:`~pfdet.links.backbone.Backbone`.

    Args:
        n_layer (sequence of int): Number of bottlenecks in each of the four stages.
        width (int): Channels of the 3x3 convolutions in the first stage, doubled by each stage.
        groups (int): Groups of the 3x3 convolutions.
        se (bool): Whether each bottleneck ends with squeeze and excitation.
        conventions (Conventions): Conventions of the weights to be loaded. ``pool_pad`` is set.
        n_class (int): Number of classes of a classifier on top. By default, there is no classifier.
        initialW (initializer): Initializer of the convolutions.
    """

    def __init__(
        self,
        n_layer: Sequence[int],
        width: int = 64,
        groups: int = 1,
        se: bool = False,
        conventions: Conventions = TORCHVISION,
        n_class: int | None = None,
        initialW: chainer.Initializer | None = None,
    ):
        super().__init__()
        if initialW is None:
            initialW = conv_initializer()
        kwargs = {'groups': groups, 'initialW': initialW, 'add_seblock': se}
        self.out_channels = (256, 512, 1024, 2048)
        with self.init_scope():
            self.conv1 = stem_7x7(initialW)
            self.pool1 = stem_pooling(conventions.pool_pad or 0)
            self.res2 = ResBlock(n_layer[0], 64, width, 256, 1, **kwargs)
            self.res3 = ResBlock(n_layer[1], 256, 2 * width, 512, 2, **kwargs)
            self.res4 = ResBlock(n_layer[2], 512, 4 * width, 1024, 2, **kwargs)
            self.res5 = ResBlock(n_layer[3], 1024, 8 * width, 2048, 2, **kwargs)
            if n_class is not None:
                self.pool5 = global_average
                self.fc6 = L.Linear(2048, n_class, initialW=initializers.Normal(scale=0.01))
        self.pick = FEATURES
        self.use(conventions)


def resnet50(n_class: int | None = None, initialW: chainer.Initializer | None = None) -> ResNet:
    """ResNet-50, the backbone of the ablations of Peng et al. (2020)."""
    return ResNet(N_LAYER[50], n_class=n_class, initialW=initialW)


def resnet101(n_class: int | None = None, initialW: chainer.Initializer | None = None) -> ResNet:
    """ResNet-101."""
    return ResNet(N_LAYER[101], n_class=n_class, initialW=initialW)
