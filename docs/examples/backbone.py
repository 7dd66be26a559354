"""A backbone of your own: plain convolutions.

python docs/examples/backbone.py --recipe mini --set backbone=plain --train-index INDEX --out DIR
"""

import pfdet.compat  # noqa: F401  (before Chainer)

from chainercv.links import Conv2DBNActiv

from pfdet.cli.train import main
from pfdet.errors import run_command
from pfdet.links.backbone import FEATURES, Backbone, Conventions, conv_initializer
from pfdet.links.backbones import BACKBONES


class PlainNet(Backbone):
    """Five 3x3 convolutions, each with half the resolution of the one before.

    Args:
        n_class (int): Unused: this backbone has no classifier.
        initialW (initializer): Of the convolutions.
    """

    def __init__(self, n_class=None, initialW=None):
        super().__init__()
        args = {'ksize': 3, 'stride': 2, 'pad': 1, 'initialW': initialW or conv_initializer()}
        self.out_channels = (32, 64, 128, 128)
        with self.init_scope():
            self.conv1 = Conv2DBNActiv(3, 16, **args)
            self.res2 = Conv2DBNActiv(16, 32, **args)
            self.res3 = Conv2DBNActiv(32, 64, **args)
            self.res4 = Conv2DBNActiv(64, 128, **args)
            self.res5 = Conv2DBNActiv(128, 128, **args)
        # C2 to C5, of strides 4, 8, 16 and 32
        self.pick = FEATURES
        # How images are normalized; saved with the weights
        self.use(Conventions(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)))


BACKBONES['plain'] = PlainNet

if __name__ == '__main__':
    run_command(main)
