"""The second stage: classification and box regression of regions of interest."""

from collections.abc import Callable, Sequence
from typing import Any

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import initializers
from chainercv.links import Conv2DBNActiv

from pfdet.boxes import coding
from pfdet.boxes.arrays import Array
from pfdet.errors import InputError
from pfdet.functions.roi_align import pyramid_roi_align
from pfdet.functions.sigmoid import sigmoid_score


class BboxHead(chainer.Chain):
    """Head of Feature Pyramid Networks with multi-label classification.

    RoIAlign pools each region of interest from the pyramid level that fits its size. Then there are
    ``n_conv`` 3x3 convolutions and ``n_fc`` fully connected layers, each with ReLU, and one layer
    for class logits and one for box offsets. The default, two fully connected layers, is the head
    of Feature Pyramid Networks. Four convolutions and one fully connected layer are the head of Wu
    and He (Group Normalization, section 4.2), also known as "4conv1fc".

    Peng et al. (2020), section 5.6, reach the row "+Other Tricks" of Table 5 by "using other tricks
    including data augmentation, loss function search, and heavier head". They do not say what the
    heavier head is. Four convolutions and one fully connected layer are our reading.

    With sigmoid scores there is no background class (PFDet, section 2.1). With softmax scores there
    is one, and its logit is the last. Neither paper says whether boxes are class-specific. Here an
    object has several classes and one box, so boxes are class-agnostic by default.

    Args:
        n_class (int): Number of foreground classes :math:`C`.
        scales (sequence of float): Feature map positions per pixel, by level.
        in_channel (int): Channels of the feature maps.
        background (bool): Whether there is a logit for the background.
        score (callable): Maps an array of logits to scores :math:`(R, C)` in [0, 1].
        n_unit (int): Units of the fully connected layers.
        bn (bool): Whether batch normalization follows all convolutions and fully connected layers,
            which then have no bias (PFDet, Table 1, "add BN to head").
        context (bool): Whether to concatenate the features of the box of twice the area around the
            same centre, clipped to the image. PFDet, section 2.1: "concatenating features from
            twice the area around each RoI to the head before the fully-connected layers". With
            convolutions it is before the first one, which then has twice the input channels. To
            apply four convolutions to both and concatenate then would take 1.6 times as many
            operations.
        class_agnostic (bool): Whether all classes share one box. Otherwise boxes are
            class-specific.
        canonical_size (float): Side in pixels of a box that is pooled from the third level; 224 in
            Feature Pyramid Networks, section 4.2.
        roi_size (int): Bins of RoIAlign by height and by width.
        sampling_ratio (int): Samples per bin by height and by width.
        prior (float): Sigmoid score of every class before training (Lin et al., Focal Loss,
            section 4.1). Not used with a background class.
        n_conv (int): Number of convolutions; may be 0.
        n_fc (int): Number of fully connected layers, at least 1.
        conv_channel (int): Output channels of the convolutions.

    Raises:
        InputError: A size or a number of layers is out of range.
    """

    # Divisors of the box offsets, as in ChainerCV and Detectron.
    std = (0.1, 0.2)

    def __init__(
        self,
        n_class: int,
        scales: Sequence[float],
        in_channel: int = 256,
        background: bool = False,
        score: Callable = sigmoid_score,
        n_unit: int = 1024,
        bn: bool = True,
        context: bool = False,
        class_agnostic: bool = True,
        canonical_size: float = 224,
        roi_size: int = 7,
        sampling_ratio: int = 2,
        prior: float = 0.01,
        n_conv: int = 0,
        n_fc: int = 2,
        conv_channel: int = 256,
    ):
        super().__init__()
        for name, value, least in (
            ('n_unit', n_unit, 1),
            ('roi_size', roi_size, 1),
            ('sampling_ratio', sampling_ratio, 1),
            ('n_conv', n_conv, 0),
            ('n_fc', n_fc, 1),
            ('conv_channel', conv_channel, 1),
        ):
            if value < least:
                raise InputError(f'head: {name}={value}: expected at least {least}')
        self.n_class = n_class
        self.scales = tuple(scales)
        self.canonical_size = canonical_size
        self.roi_size = roi_size
        self.sampling_ratio = sampling_ratio
        self.context = context
        self.n_box = 1 if class_agnostic else n_class
        self.n_conv = n_conv
        self.n_fc = n_fc
        init: dict[str, Any] = {'initialW': initializers.HeNormal(), 'nobias': bn}
        n_in = in_channel * (1 + context)
        with self.init_scope():
            for i in range(1, n_conv + 1):
                conv = Conv2DBNActiv if bn else L.Convolution2D
                setattr(self, f'conv{i}', conv(n_in, conv_channel, 3, pad=1, **init))
                n_in = conv_channel
            n_in *= roi_size**2
            for i in range(1, n_fc + 1):
                setattr(self, f'fc{i}', L.Linear(n_in, n_unit, **init))
                if bn:
                    setattr(self, f'bn{i}', L.BatchNormalization(n_unit))
                n_in = n_unit
            self.loc = L.Linear(n_unit, self.n_box * 4, initialW=initializers.Normal(0.001))
            self.conf = L.Linear(
                n_unit,
                n_class + background,
                initialW=initializers.Normal(0.01),
                initial_bias=0.0 if background else np.log(prior / (1 - prior)),
            )
        self.bn = bn
        self._score = score

    def forward(
        self, hs: Sequence, rois: Array, roi_indices: Array
    ) -> tuple[chainer.Variable, chainer.Variable]:
        """Compute box offsets and class logits of regions of interest.

        Args:
            hs (sequence of variables): Feature maps :math:`(N, C_{in}, H_l, W_l)`, one per level of
                ``scales``. Further ones are not used.
            rois (array): Regions :math:`(R, 4)` in pixels of the batch.
            roi_indices (int32 array): Image index of each region, :math:`(R,)`.

        Returns:
            tuple of variables: Offsets :math:`(R, B, 4)` in units of ``std``, where :math:`B` is 1
            or, for class-specific boxes, :math:`C`; and logits :math:`(R, C)`, or
            :math:`(R, C + 1)` with a background. Both in the order of ``rois``.
        """
        h = self.pool(hs, rois, roi_indices)
        if self.context:
            size = [n / self.scales[0] for n in hs[0].shape[2:]]
            around = self.pool(hs, coding.clip(twice_the_area(rois), size), roi_indices)
            h = F.concat([h, around], axis=1)
        for i in range(1, self.n_conv + 1):
            h = self[f'conv{i}'](h)
            # With batch normalization, ReLU is part of the link.
            h = h if self.bn else F.relu(h)
        h = F.reshape(h, (len(rois), -1))
        for i in range(1, self.n_fc + 1):
            h = self[f'fc{i}'](h)
            h = F.relu(self[f'bn{i}'](h) if self.bn else h)
        return F.reshape(self.loc(h), (-1, self.n_box, 4)), self.conf(h)

    def score(self, conf: chainer.Variable) -> Array:
        """Compute the scores of the foreground classes.

        Args:
            conf (variable): Logits returned by :meth:`forward`.

        Returns:
            array: Scores :math:`(R, C)` in [0, 1].
        """
        return self._score(conf.array)

    def pool(self, hs: Sequence, rois: Array, roi_indices: Array) -> chainer.Variable:
        """Pool each region from the level that fits its size.

        Args:
            hs, rois, roi_indices: As in :meth:`forward`.

        Returns:
            chainer.Variable: Features :math:`(R, C_{in}, S, S)`, where :math:`S` is ``roi_size``.
        """
        return pyramid_roi_align(
            hs[: len(self.scales)],
            rois,
            roi_indices,
            self.level_of(rois),
            self.roi_size,
            self.scales,
            self.sampling_ratio,
        )

    def level_of(self, rois: Array) -> Array:
        """Assign each region to a pyramid level (Feature Pyramid Networks, equation 1).

        Args:
            rois (array): Regions :math:`(R, 4)` in pixels.

        Returns:
            int32 array: Index in ``scales``, :math:`(R,)`.
        """
        size = self.xp.sqrt((rois[:, 2:] - rois[:, :2]).prod(axis=1))
        level = self.xp.floor(self.xp.log2(size / self.canonical_size + 1e-6)) + 2
        return self.xp.clip(level, 0, len(self.scales) - 1).astype(np.int32)


def twice_the_area(bbox: Array) -> Array:
    """Enlarge boxes to twice the area around the same centres.

    Args:
        bbox (array): Boxes :math:`(R, 4)`.

    Returns:
        array: Boxes :math:`(R, 4)`.
    """
    grown = (bbox[:, 2:] - bbox[:, :2]) * ((2**0.5 - 1) / 2)
    xp = chainer.backends.cuda.get_array_module(bbox)
    return xp.concatenate([bbox[:, :2] - grown, bbox[:, 2:] + grown], axis=1).astype(bbox.dtype)
