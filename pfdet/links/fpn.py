"""Feature pyramid network with optional batch normalization and pyramid spatial pooling."""

from typing import Any

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import initializers
from chainer.backends.cuda import get_array_module
from chainercv.links import Conv2DBNActiv

from pfdet.boxes.arrays import Array
from pfdet.links.psp import PyramidSpatialPooling


class FPN(chainer.Chain):
    """Feature pyramid network (Lin et al., section 3).

    Lateral 1x1 convolutions map all feature maps of the base to ``n_channel`` channels. In the
    top-down path each map is upsampled and added to the next finer one. A 3x3 convolution follows
    on every level. The last level is subsampled to one more level, for the largest anchors of the
    RPN.

    Args:
        base (link): A backbone. It maps images to a tuple of feature maps of strides 4, 8, 16 and
            32 and has the attributes ``out_channels``, ``mean``, ``std`` and ``channel_order``.
        n_channel (int): Channels of every output.
        n_scale (int): Number of feature maps in the top-down path: 4 or 5. The fifth is computed
            from C5 by a 3x3 convolution of stride 2 with batch normalization and ReLU. PFDet,
            section 2.1: "We increase the number of scales of features extracted by the feature
            extractor to five from four". The paper does not say how.
        bn (bool): Whether batch normalization follows the lateral and the output convolutions,
            which then have no bias. PFDet, section 2.1: "we add BN layers to the top-down path of
            FPN".
        psp (bool): Whether to apply pyramid spatial pooling to C5 before its lateral convolution.

    Attributes:
        scales (tuple of float): Feature map positions per pixel of the ``n_scale + 1`` outputs.
        stride (int): Divisor of the height and width of input images.

    Raises:
        ValueError: ``n_scale`` is neither 4 nor 5.
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
        init: dict[str, Any] = {'initialW': initializers.GlorotNormal()}
        self.n_channel = n_channel
        self.n_scale = n_scale
        self.scales = tuple(1 / 2 ** (level + 2) for level in range(n_scale + 1))
        self.stride = 2 ** (n_scale + 1)

        def conv(*args: Any, **kwargs: Any) -> chainer.Link:
            kwargs = {**kwargs, **init}
            if bn:
                return Conv2DBNActiv(*args, activ=None, **kwargs)
            return L.Convolution2D(*args, **kwargs)

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

    def preprocess(self, img: Array) -> Array:
        """Preprocess an image for the base.

        Args:
            img (array): RGB image in [0, 255], :math:`(3, H, W)`, NumPy or CuPy.

        Returns:
            float32 array: Normalized image :math:`(3, H, W)` in the channel order of the base.
        """
        mean, std = (
            get_array_module(img).asarray(a, dtype=np.float32)
            for a in (self.base.mean, getattr(self.base, 'std', 1))
        )
        img = (img - mean) / std
        return img[::-1] if getattr(self.base, 'channel_order', 'RGB') == 'BGR' else img

    def forward(self, x: chainer.Variable | Array) -> list[chainer.Variable]:
        """Compute the feature maps of images.

        Args:
            x (variable or array): Preprocessed images :math:`(N, 3, H, W)`. Height and width are
                multiples of :attr:`stride`.

        Returns:
            list of variables: ``n_scale + 1`` feature maps of strides 4, 8, ...,
            :math:`(N, C, H_l, W_l)`, where :math:`C` is ``n_channel``.
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
