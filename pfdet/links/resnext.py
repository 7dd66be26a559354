"""ResNeXt backbones."""

import chainer

from pfdet.links.resnet import N_LAYER, ResNet


def resnext101(n_class: int | None = None, initialW: chainer.Initializer | None = None) -> ResNet:
    """ResNeXt-101 (32x4d) with 32 groups of 4 channels in the first stage."""
    return ResNet(N_LAYER[101], 32 * 4, 32, n_class=n_class, initialW=initialW)


def resnext152(n_class: int | None = None, initialW: chainer.Initializer | None = None) -> ResNet:
    """ResNeXt-152 (32x8d), the large backbone of Peng et al. (2020)."""
    return ResNet(N_LAYER[152], 32 * 8, 32, n_class=n_class, initialW=initialW)
