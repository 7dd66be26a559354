"""What all backbones share: the feature maps they give, and the conventions of their weights."""

from dataclasses import dataclass, replace
from functools import partial

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import initializers
from chainercv.links import Conv2DBNActiv, PickableSequentialChain

# The layers whose outputs are the feature maps C2 to C5, of strides 4, 8, 16 and 32.
FEATURES = ('res2', 'res3', 'res4', 'res5')
# The layers of a classifier, which a detector has no use for.
CLASSIFIER = ('conv6', 'pool5', 'fc6')


@dataclass(frozen=True)
class Conventions:
    """What differs between checkpoints of one architecture, and no weight tells.

    It is saved beside the weights, and read with them, so that a network always treats an image
    as it did when its weights were trained.

    Attributes:
        mean (tuple of float): Subtracted from the channels R, G, B of an image in [0, 255].
        std (tuple of float): What the channels R, G, B are then divided by.
        channel_order (str): ``'RGB'`` or ``'BGR'``: the order in which the network takes them.
        bn_eps (float): Added to the variance by every batch normalization.
        pool_pad (int): Padding of the 3x3 max pooling in the stem. Without padding, the last
            window reaches over the border (Caffe, Chainer); with 1 it does not (torchvision).
            :obj:`None` for an architecture that has none such.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channel_order: str = 'RGB'
    bn_eps: float = 1e-5
    pool_pad: int | None = None

    def __post_init__(self):
        if self.channel_order not in ('RGB', 'BGR'):
            raise ValueError(f'channel_order={self.channel_order!r}: expected RGB or BGR')

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What is saved beside the weights."""
        # float64: cuDNN refuses an epsilon below 1e-5, which 1e-5 is when rounded to float32.
        arrays = {
            'mean': np.array(self.mean, np.float64),
            'std': np.array(self.std, np.float64),
            'bgr': np.array(self.channel_order == 'BGR'),
            'bn_eps': np.array(self.bn_eps, np.float64),
        }
        if self.pool_pad is not None:
            arrays['pool_pad'] = np.array(self.pool_pad, np.int64)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> 'Conventions':
        """The inverse of :meth:`to_arrays`."""
        return cls(
            tuple(arrays['mean'].tolist()),
            tuple(arrays['std'].tolist()),
            'BGR' if arrays['bgr'] else 'RGB',
            float(arrays['bn_eps']),
            int(arrays['pool_pad']) if 'pool_pad' in arrays else None,
        )


# Of the networks that ChainerCV defines. The mean is that of ResNet's authors.
CHAINERCV = Conventions((123.15163084, 115.90288257, 103.0626238), bn_eps=2e-5, pool_pad=0)
# Of torchvision's ResNet and what follows it.
TORCHVISION = Conventions((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), pool_pad=1)


class Backbone(PickableSequentialChain):
    """A classification network of which a detector picks feature maps.

    Once its layers are defined, a subclass calls :meth:`use` with its conventions.

    Attributes:
        pick (tuple of str): The layers that :meth:`forward` returns: C2 to C5.
        out_channels (tuple of int): Their channels.
        conventions (Conventions): Those of the weights.
    """

    def use(self, conventions: Conventions) -> None:
        """Follow the conventions of other weights."""
        self.conventions = conventions
        for link in self.links():
            # MultiNodeBatchNormalization is no subclass of it.
            if isinstance(link, L.BatchNormalization) or hasattr(link, 'avg_var'):
                link.eps = conventions.bn_eps
        if conventions.pool_pad is not None:
            self.pool1 = stem_pooling(conventions.pool_pad)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the channels R, G, B: float32 of shape :math:`(3, 1, 1)`, in [0, 255]."""
        return np.array(self.conventions.mean, np.float32)[:, None, None]

    @mean.setter
    def mean(self, value) -> None:
        self.use(replace(self.conventions, mean=tuple(np.ravel(value).tolist())))

    @property
    def std(self) -> np.ndarray:
        """What the channels R, G, B are then divided by: float32 of shape :math:`(3, 1, 1)`."""
        return np.array(self.conventions.std, np.float32)[:, None, None]

    @std.setter
    def std(self, value) -> None:
        self.use(replace(self.conventions, std=tuple(np.ravel(value).tolist())))

    @property
    def channel_order(self) -> str:
        """``'RGB'`` or ``'BGR'``: the order in which the network takes the channels."""
        return self.conventions.channel_order

    @channel_order.setter
    def channel_order(self, value: str) -> None:
        self.use(replace(self.conventions, channel_order=value))

    def serialize(self, serializer) -> None:
        """Write or read the weights and their conventions.

        Files without conventions, as ChainerCV's own, leave those of the network as they are.
        """
        super().serialize(serializer)
        fields = self.conventions.to_arrays()
        if isinstance(serializer, chainer.Serializer):
            for key, value in fields.items():
                serializer(key, value)
            return
        try:
            read = {key: np.array(serializer(key, value.copy())) for key, value in fields.items()}
        except KeyError:
            return
        self.use(Conventions.from_arrays(read))


def is_convention(key: str) -> bool:
    """Whether a key of a backbone's file is one of its conventions, and not a parameter."""
    return key in ('mean', 'std', 'bgr', 'bn_eps', 'pool_pad')


def is_classifier(key: str) -> bool:
    """Whether a key of a backbone's file is a parameter of its classifier."""
    return key.split('/')[0] in CLASSIFIER


def stem_pooling(pad: int) -> partial:
    """3x3 max pooling of stride 2 that halves even heights and widths exactly."""
    return partial(F.max_pooling_2d, ksize=3, stride=2, pad=pad, cover_all=pad == 0)


def global_average(x: chainer.Variable) -> chainer.Variable:
    """Mean over places: :math:`(N, C, H, W)` to :math:`(N, C)`."""
    return F.average(x, axis=(2, 3))


def conv_initializer() -> initializers.HeNormal:
    """The random weights of convolutions in ChainerCV's residual networks."""
    return initializers.HeNormal(scale=1.0, fan_option='fan_out')


def stem_7x7(initialW) -> Conv2DBNActiv:
    """The first convolution of ResNet and its kin, of stride 2."""
    return Conv2DBNActiv(3, 64, 7, 2, 3, initialW=initialW)
