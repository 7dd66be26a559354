"""ResNet and ResNeXt backbones, with or without squeeze and excitation."""

from collections.abc import Sequence

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
    """ResNet (He et al.), ResNeXt (Xie et al.), SE-ResNeXt (Hu et al.) of bottlenecks.

    The layers and their names are those of ChainerCV's ResNet with ``arch='fb'``: a stage strides
    in the 3x3 convolution of its first bottleneck.

    Args:
        n_layer (sequence of int): Bottlenecks of the four stages.
        width (int): Channels of the 3x3 convolutions of the first stage; doubled by each stage.
        groups (int): Groups of the 3x3 convolutions.
        se (bool): Squeeze and excitation at the end of each bottleneck.
        conventions (Conventions): Of the weights that will be loaded.
        n_class (int): Classes of a classifier on top, for counting and comparing; by default
            there is none.
        initialW (initializer): Of the convolutions.
    """

    def __init__(
        self,
        n_layer: Sequence[int],
        width: int = 64,
        groups: int = 1,
        se: bool = False,
        conventions: Conventions = TORCHVISION,
        n_class: int | None = None,
        initialW=None,
    ):
        super().__init__()
        if initialW is None:
            initialW = conv_initializer()
        kwargs = {'groups': groups, 'initialW': initialW, 'add_seblock': se}
        self.out_channels = (256, 512, 1024, 2048)
        with self.init_scope():
            self.conv1 = stem_7x7(initialW)
            self.pool1 = stem_pooling(conventions.pool_pad)
            self.res2 = ResBlock(n_layer[0], 64, width, 256, 1, **kwargs)
            self.res3 = ResBlock(n_layer[1], 256, 2 * width, 512, 2, **kwargs)
            self.res4 = ResBlock(n_layer[2], 512, 4 * width, 1024, 2, **kwargs)
            self.res5 = ResBlock(n_layer[3], 1024, 8 * width, 2048, 2, **kwargs)
            if n_class is not None:
                self.pool5 = global_average
                self.fc6 = L.Linear(2048, n_class, initialW=initializers.Normal(scale=0.01))
        self.pick = FEATURES
        self.use(conventions)


def resnet50(n_class: int | None = None, initialW=None) -> ResNet:
    """ResNet-50, the second paper's backbone for its ablations."""
    return ResNet(N_LAYER[50], n_class=n_class, initialW=initialW)


def resnet101(n_class: int | None = None, initialW=None) -> ResNet:
    """ResNet-101."""
    return ResNet(N_LAYER[101], n_class=n_class, initialW=initialW)
