"""Feature pyramid network with batch normalization in the top-down path."""

from collections.abc import Sequence

import chainer
import chainer.functions as F
import chainer.links as L
from chainer import initializers
from chainercv.links import Conv2DBNActiv


class FPN(chainer.Chain):
    """Feature pyramid network (Lin et al., section 3).

    A 1x1 convolution brings each of the base's feature maps to the same number of channels, the
    coarser ones are added to the finer ones, and a 3x3 convolution follows. Levels past the base's
    own are made by subsampling the last.

    Args:
        base (link): A backbone. It maps images to a tuple of feature maps of strides 4, 8, ... and
            has ``mean``.
        in_channels (sequence of int): Channels of the base's feature maps.
        n_channel (int): Channels of every output.
        n_level (int): Number of outputs.
        bn (bool): Batch normalization after the lateral and the output convolutions, which then
            have no bias. PFDet, section 2.1: "we add BN layers to the top-down path of FPN".
    """

    def __init__(self, base: chainer.Link, in_channels: Sequence[int], n_channel: int = 256,
                 n_level: int = 5, bn: bool = True):
        super().__init__()
        init = {'initialW': initializers.GlorotNormal()}
        self.scales = tuple(1 / 2 ** (level + 2) for level in range(n_level))
        self.n_channel = n_channel

        def conv(*args, **kwargs) -> chainer.Link:
            if bn:
                return Conv2DBNActiv(*args, activ=None, **kwargs, **init)
            return L.Convolution2D(*args, **kwargs, **init)

        with self.init_scope():
            self.base = base
            self.inner = chainer.ChainList(*[conv(c, n_channel, 1) for c in in_channels])
            self.outer = chainer.ChainList(
                *[conv(n_channel, n_channel, 3, pad=1) for _ in in_channels])

    @property
    def mean(self):
        """Mean of the images' channels that the base expects to be subtracted."""
        return self.base.mean

    def forward(self, x) -> list[chainer.Variable]:
        """Feature maps of images.

        Args:
            x (variable or array): Images :math:`(N, 3, H, W)`, height and width multiples of the
                base's last stride.

        Returns:
            list of variables: ``n_level`` feature maps of strides 4, 8, ...
        """
        hs = [inner(h) for inner, h in zip(self.inner, self.base(x), strict=True)]
        for i in reversed(range(len(hs) - 1)):
            hs[i] += F.unpooling_2d(hs[i + 1], 2, cover_all=False)
        hs = [outer(h) for outer, h in zip(self.outer, hs, strict=True)]
        while len(hs) < len(self.scales):
            hs.append(F.max_pooling_2d(hs[-1], 1, stride=2, cover_all=False))
        return hs
