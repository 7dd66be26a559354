"""SE-ResNeXt backbones that give the feature maps C2 to C5."""

from collections.abc import Sequence

import chainer.functions as F
import numpy as np
from chainer import initializers
from chainercv.links import Conv2DBNActiv, PickableSequentialChain
from chainercv.links.model.resnet import ResBlock
from chainercv.links.model.senet import SEResNeXt101 as ChainerCVSEResNeXt101

FEATURES = ('res2', 'res3', 'res4', 'res5')


def se_resnext101() -> ChainerCVSEResNeXt101:
    """ChainerCV's SE-ResNeXt-101 (32x4d), cut after its last feature map, with random weights.

    The backbone of PFDet's Table 1 up to its last row. Picks C2 to C5.
    """
    base = ChainerCVSEResNeXt101()
    base.pick = FEATURES
    base.remove_unused()
    base.out_channels = (256, 512, 1024, 2048)
    return base


class MiniSEResNeXt(PickableSequentialChain):
    """A SE-ResNeXt small enough to train from nothing on two CPU cores in minutes.

    The same stem, stages, grouped bottlenecks and squeeze-and-excitation as its large relatives;
    fewer blocks, narrower.

    Args:
        n_layer (sequence of int): Bottlenecks of the four stages.
        width (int): Channels of the first stage's bottleneck; doubled by each stage. A stage
            gives twice as many as its bottleneck has.
        groups (int): Groups of the 3x3 convolutions.
    """

    # ImageNet's mean in RGB, as the other backbones.
    mean = np.array([123.15163084, 115.90288257, 103.0626238], np.float32)[:, None, None]

    def __init__(self, n_layer: Sequence[int] = (1, 1, 1, 1), width: int = 32, groups: int = 4):
        super().__init__()
        kwargs = {
            'groups': groups, 'stride_first': False, 'add_seblock': True,
            'initialW': initializers.HeNormal(scale=1., fan_option='fan_out')}
        mid = [width * 2 ** i for i in range(4)]
        self.out_channels = tuple(2 * m for m in mid)
        with self.init_scope():
            self.conv1 = Conv2DBNActiv(3, width, 5, 2, 2, initialW=kwargs['initialW'])
            self.pool1 = lambda x: F.max_pooling_2d(x, 2, 2)
            self.res2 = ResBlock(n_layer[0], width, mid[0], 2 * mid[0], 1, **kwargs)
            self.res3 = ResBlock(n_layer[1], 2 * mid[0], mid[1], 2 * mid[1], 2, **kwargs)
            self.res4 = ResBlock(n_layer[2], 2 * mid[1], mid[2], 2 * mid[2], 2, **kwargs)
            self.res5 = ResBlock(n_layer[3], 2 * mid[2], mid[3], 2 * mid[3], 2, **kwargs)
        self.pick = FEATURES
