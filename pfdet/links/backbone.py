"""Base class of all backbones, and the preprocessing conventions of their weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import initializers
from chainercv.links import Conv2DBNActiv, PickableSequentialChain

from pfdet.boxes.arrays import Array

# The layers that output the feature maps C2 to C5, of strides 4, 8, 16 and 32.
FEATURES = ('res2', 'res3', 'res4', 'res5')
# The layers of the classifier, which a detector does not use.
CLASSIFIER = ('conv6', 'pool5', 'fc6')


@dataclass(frozen=True)
class Conventions:
    """Settings that differ between checkpoints of one architecture and are not in the weights.

    They are saved and loaded with the weights, so that a network always preprocesses images as in
    the training of its weights.

    Attributes:
        mean (tuple of float): Values subtracted from the channels R, G, B of an image in [0, 255].
        std (tuple of float): Values by which the channels R, G, B are then divided.
        channel_order (str): Channel order of the network's input, ``'RGB'`` or ``'BGR'``.
        bn_eps (float): Epsilon of all batch normalizations.
        pool_pad (int): Padding of the 3x3 max pooling in the stem. With 0, the last window extends
            beyond the border (Caffe, Chainer); with 1 it does not (torchvision). :obj:`None` for
            architectures without this pooling.
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
        """Convert to arrays for a file of weights."""
        # float64, because 1e-5 rounded to float32 is below the smallest epsilon of cuDNN, 1e-5.
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


# Conventions of ChainerCV's networks. The mean is that of ResNet's authors.
CHAINERCV = Conventions((123.15163084, 115.90288257, 103.0626238), bn_eps=2e-5, pool_pad=0)
# Conventions of torchvision's ResNet and the networks derived from it.
TORCHVISION = Conventions((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), pool_pad=1)


class Backbone(PickableSequentialChain):
    """Base class of classification networks that serve as feature extractors.

    Called with preprocessed images :math:`(N, 3, H, W)`, a backbone returns a tuple of the feature
    maps C2 to C5 of shapes :math:`(N, C_l, H / 2^l, W / 2^l)` for :math:`l = 2, ..., 5`.

    After defining its layers, a subclass calls :meth:`use` with its conventions.

    Attributes:
        pick (tuple of str): Names of the layers whose outputs are returned.
        out_channels (tuple of int): Channels :math:`C_2, ..., C_5` of the feature maps.
        conventions (Conventions): Preprocessing conventions of the weights.
        n_frozen_stage (int): Number of frozen parts, set by
            :func:`pfdet.links.freezing.freeze_stages`.
    """

    n_frozen_stage = 0

    @property
    def frozen_layers(self) -> tuple[str, ...]:
        """Names of the frozen layers: the stem first, then the residual stages in order."""
        if self.n_frozen_stage == 0:
            return ()
        stem = tuple(self.layer_names[: self.layer_names.index(FEATURES[0])])
        return stem + FEATURES[: self.n_frozen_stage - 1]

    def forward(
        self, x: chainer.Variable | Array
    ) -> chainer.Variable | tuple[chainer.Variable, ...]:
        """Compute the feature maps of preprocessed images.

        Frozen layers are computed without a graph, so nothing is kept for a backward pass.

        Args:
            x (variable or array): Images :math:`(N, 3, H, W)`.

        Returns:
            tuple of variables: The outputs of the layers in :attr:`pick`; one variable if it is
            one name.
        """
        frozen = self.frozen_layers
        names = (self.pick,) if isinstance(self.pick, str) else self.pick or self.layer_names[-1:]
        last = max(map(self.layer_names.index, names))
        outputs = {}
        for name in self.layer_names[: last + 1]:
            if name in frozen:
                with chainer.no_backprop_mode():
                    # As an array, the output is a constant to the next layer.
                    x = chainer.as_variable(chainer.as_array(self[name](x)))
            else:
                x = self[name](x)
            if name in names:
                outputs[name] = x
        picked = tuple(outputs[name] for name in names)
        return picked if isinstance(self.pick, tuple) else picked[0]

    def use(self, conventions: Conventions) -> None:
        """Adopt the conventions of other weights.

        Args:
            conventions (Conventions): The new conventions.
        """
        self.conventions = conventions
        for link in self.links():
            # MultiNodeBatchNormalization is not a subclass of BatchNormalization.
            if isinstance(link, L.BatchNormalization) or hasattr(link, 'avg_var'):
                link.eps = conventions.bn_eps
        if conventions.pool_pad is not None:
            self.pool1 = stem_pooling(conventions.pool_pad)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the channels R, G, B in [0, 255], float32 :math:`(3, 1, 1)`."""
        return np.array(self.conventions.mean, np.float32)[:, None, None]

    @mean.setter
    def mean(self, value: np.ndarray | Sequence[float]) -> None:
        self.use(replace(self.conventions, mean=tuple(np.ravel(value).tolist())))

    @property
    def std(self) -> np.ndarray:
        """Divisors of the channels R, G, B, float32 :math:`(3, 1, 1)`."""
        return np.array(self.conventions.std, np.float32)[:, None, None]

    @std.setter
    def std(self, value: np.ndarray | Sequence[float]) -> None:
        self.use(replace(self.conventions, std=tuple(np.ravel(value).tolist())))

    @property
    def channel_order(self) -> str:
        """Channel order of the network's input, ``'RGB'`` or ``'BGR'``."""
        return self.conventions.channel_order

    @channel_order.setter
    def channel_order(self, value: str) -> None:
        self.use(replace(self.conventions, channel_order=value))

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Save or load the weights and their conventions.

        If a file has no conventions, as those of ChainerCV, the network keeps its own.
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
    """Whether a key of a backbone file is a convention and not a parameter."""
    return key in ('mean', 'std', 'bgr', 'bn_eps', 'pool_pad')


def is_classifier(key: str) -> bool:
    """Whether a key of a backbone file is a parameter of the classifier."""
    return key.split('/')[0] in CLASSIFIER


def stem_pooling(pad: int) -> partial:
    """Make a 3x3 max pooling of stride 2 that halves even heights and widths exactly."""
    return partial(F.max_pooling_2d, ksize=3, stride=2, pad=pad, cover_all=pad == 0)


def global_average(x: chainer.Variable) -> chainer.Variable:
    """Global average pooling from :math:`(N, C, H, W)` to :math:`(N, C)`."""
    return F.average(x, axis=(2, 3))


def conv_initializer() -> initializers.HeNormal:
    """Make the initializer of convolutions in ChainerCV's residual networks."""
    return initializers.HeNormal(scale=1.0, fan_option='fan_out')


def stem_7x7(initialW: chainer.Initializer) -> Conv2DBNActiv:
    """Make the first convolution of ResNet, 7x7 with stride 2."""
    return Conv2DBNActiv(3, 64, 7, 2, 3, initialW=initialW)
