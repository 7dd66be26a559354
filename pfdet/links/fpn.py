"""Feature pyramid network with batch normalization and context in the top-down path."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import initializers
from chainer.backends.cuda import get_array_module
from chainercv.links import Conv2DBNActiv

from pfdet.links.psp import PyramidSpatialPooling


class FPN(chainer.Chain):
    """Feature pyramid network (Lin et al., section 3).

    A 1x1 convolution brings each of the base's feature maps to the same number of channels, the
    coarser ones are added to the finer ones, and a 3x3 convolution follows. One level more, for
    the RPN's largest anchors, is the last one subsampled.

    Args:
        base (link): A backbone. It maps images to a tuple of feature maps of strides 4, 8, 16 and
            32 and has ``out_channels``, ``mean``, ``std`` and ``channel_order``.
        n_channel (int): Channels of every output.
        n_scale (int): Feature maps of the top-down path: the base's four, or five, of which the
            last is made from C5 by a 3x3 convolution of stride 2 with batch normalization and
            ReLU. PFDet, section 2.1: "We increase the number of scales of features extracted by
            the feature extractor to five from four"; how, it does not say.
        bn (bool): Batch normalization after the lateral and the output convolutions, which then
            have no bias. PFDet, section 2.1: "we add BN layers to the top-down path of FPN".
        psp (bool): Pyramid spatial pooling on C5, before its lateral connection.

    Attributes:
        scales (tuple of float): Places per pixel of the ``n_scale + 1`` outputs.
        stride (int): Heights and widths must be multiples of this.
    """

    def __init__(
        self,
        base: chainer.Link,
        n_channel: int = 256,
        n_scale: int = 4,
        bn: bool = True,
        psp: bool = False,
    ):
        super().__init__()
        if n_scale not in (4, 5):
            raise ValueError(f'n_scale must be 4 or 5, not {n_scale}')
        init = {'initialW': initializers.GlorotNormal()}
        self.n_channel = n_channel
        self.n_scale = n_scale
        self.scales = tuple(1 / 2 ** (level + 2) for level in range(n_scale + 1))
        self.stride = 2 ** (n_scale + 1)

        def conv(*args, **kwargs) -> chainer.Link:
            if bn:
                return Conv2DBNActiv(*args, activ=None, **kwargs, **init)
            return L.Convolution2D(*args, **kwargs, **init)

        in_channels = list(base.out_channels)
        with self.init_scope():
            self.base = base
            if n_scale == 5:
                in_channels.append(in_channels[-1] // 4)
                self.extra = Conv2DBNActiv(in_channels[-2], in_channels[-1], 3, 2, 1, **init)
            if psp:
                self.psp = PyramidSpatialPooling(in_channels[3])
                in_channels[3] = self.psp.out_channel
            self.inner = chainer.ChainList(*[conv(c, n_channel, 1) for c in in_channels])
            self.outer = chainer.ChainList(
                *[conv(n_channel, n_channel, 3, pad=1) for _ in in_channels]
            )

    def preprocess(self, img):
        """An image as the base expects it.

        Args:
            img (array): RGB in [0, 255], :math:`(3, H, W)`, NumPy or CuPy.

        Returns:
            array: Channels in the base's order, its mean subtracted and divided by its scale.
        """
        mean, std = (
            get_array_module(img).asarray(a, dtype=np.float32)
            for a in (self.base.mean, getattr(self.base, 'std', 1))
        )
        img = (img - mean) / std
        return img[::-1] if getattr(self.base, 'channel_order', 'RGB') == 'BGR' else img

    def forward(self, x) -> list[chainer.Variable]:
        """Feature maps of images.

        Args:
            x (variable or array): Images :math:`(N, 3, H, W)`, height and width multiples of
                :attr:`stride`.

        Returns:
            list of variables: ``n_scale + 1`` feature maps of strides 4, 8, ...
        """
        hs = list(self.base(x))
        if self.n_scale == 5:
            hs.append(self.extra(hs[-1]))
        if hasattr(self, 'psp'):
            hs[3] = self.psp(hs[3])
        hs = [inner(h) for inner, h in zip(self.inner, hs, strict=True)]
        for i in reversed(range(len(hs) - 1)):
            hs[i] += F.unpooling_2d(hs[i + 1], 2, cover_all=False)
        hs = [outer(h) for outer, h in zip(self.outer, hs, strict=True)]
        return [*hs, F.max_pooling_2d(hs[-1], 1, stride=2, cover_all=False)]
