"""Region proposal network on the levels of a feature pyramid."""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import initializers

from pfdet.boxes import coding
from pfdet.boxes.arrays import Array
from pfdet.boxes.proposal_nms import suppress_sorted


class Proposals(NamedTuple):
    """Region proposals of a batch of images.

    Attributes:
        bbox (array): Boxes :math:`(N, K, 4)` in pixels of the padded batch, in descending order of
            objectness.
        valid (bool array): Whether an entry is a proposal, :math:`(N, K)`. An image with fewer
            proposals than others has invalid entries at its end.
        anchor (int array): Index of the anchor of each proposal, :math:`(N, K)`.
    """

    bbox: Array
    valid: Array
    anchor: Array


class RPN(chainer.Chain):
    """Region proposal network of Feature Pyramid Networks (Lin et al., section 4.1).

    A 3x3 convolution is followed by two 1x1 convolutions, for offsets and objectness. All levels
    share the weights. Each level has anchors of one size and several aspect ratios.

    Args:
        scales (sequence of float): Feature map positions per pixel, by level.
        anchor_ratios (sequence of float): Aspect ratios of anchors, height over width. PFDet's
            Table 1 starts with 1/2, 1, 2 and ends with 1/3, 1/2, 1, 2, 3.
        anchor_size (float): Side in pixels of the square anchor on a level of scale 1/4. On other
            levels the size is proportional to the stride.
        n_channel (int): Channels of the input and of the 3x3 convolution.
        nms_thresh (float): IoU from which a proposal is suppressed.
        train_limits, test_limits (pairs of int): Maximum number of proposals per level before
            non-maximum suppression, and per image after it, in training and at test time.
    """

    def __init__(
        self,
        scales: Sequence[float],
        anchor_ratios: Sequence[float] = (0.5, 1, 2),
        anchor_size: float = 32,
        n_channel: int = 256,
        nms_thresh: float = 0.7,
        train_limits: tuple[int, int] = (2000, 2000),
        test_limits: tuple[int, int] = (1000, 1000),
    ):
        super().__init__()
        self.scales = tuple(scales)
        self.anchor_ratios = tuple(anchor_ratios)
        self.anchor_size = anchor_size
        self.nms_thresh = nms_thresh
        self.train_limits = train_limits
        self.test_limits = test_limits
        init = {'initialW': initializers.Normal(0.01)}
        with self.init_scope():
            self.conv = L.Convolution2D(n_channel, n_channel, 3, pad=1, **init)
            self.loc = L.Convolution2D(n_channel, len(anchor_ratios) * 4, 1, **init)
            self.conf = L.Convolution2D(n_channel, len(anchor_ratios), 1, **init)

    def forward(self, hs: Sequence) -> tuple[chainer.Variable, chainer.Variable, list[int]]:
        """Compute the offsets and objectness logits of all anchors.

        Args:
            hs (sequence of variables): Feature maps :math:`(N, C, H_l, W_l)`.

        Returns:
            tuple of two variables and a list of int: Offsets :math:`(N, A, 4)` and objectness
            logits :math:`(N, A)` of the anchors of all levels, in the order of :meth:`anchors`; and
            the number of anchors per level.
        """
        locs, confs = [], []
        for h in hs:
            h = F.relu(self.conv(h))
            N = h.shape[0]
            locs.append(F.reshape(F.transpose(self.loc(h), (0, 2, 3, 1)), (N, -1, 4)))
            confs.append(F.reshape(F.transpose(self.conf(h), (0, 2, 3, 1)), (N, -1)))
        return F.concat(locs, axis=1), F.concat(confs, axis=1), [c.shape[1] for c in confs]

    def anchors(self, sizes: Sequence[tuple[int, int]]) -> Array:
        """Compute the anchors of all levels.

        Args:
            sizes (sequence of pairs of int): Height and width of each level's feature map.

        Returns:
            float32 array: Anchors :math:`(A, 4)` in pixels, ordered by level, row, column and
            aspect ratio.
        """
        xp = self.xp
        ratio = np.array(self.anchor_ratios, np.float32)
        anchors = []
        for scale, (H, W) in zip(self.scales, sizes, strict=True):
            side = self.anchor_size / (4 * scale)
            half = xp.asarray(np.stack([side * np.sqrt(ratio), side / np.sqrt(ratio)], axis=1) / 2)
            y, x = xp.meshgrid(xp.arange(H) + 0.5, xp.arange(W) + 0.5, indexing='ij')
            centre = xp.stack([y, x], axis=2)[:, :, None] / scale
            anchors.append(xp.concatenate([centre - half, centre + half], axis=3).reshape(-1, 4))
        return xp.concatenate(anchors).astype(np.float32)

    def decode(
        self,
        locs: Array,
        confs: Array,
        anchors: Array,
        n_anchors: Sequence[int],
        size: tuple[int, int],
    ) -> Proposals:
        """Decode the network's output to proposals, without gradient.

        The anchors with the highest logits of each level are decoded and clipped. Non-maximum
        suppression runs within each level, for all levels and images at once. The remaining
        proposals of an image are sorted by logit.

        Args:
            locs (array): Offsets :math:`(N, A, 4)` from :meth:`forward`.
            confs (array): Objectness logits :math:`(N, A)` from :meth:`forward`.
            anchors (array): Anchors :math:`(A, 4)`.
            n_anchors (sequence of int): Number of anchors per level.
            size (pair of int): Height and width of the padded batch.

        Returns:
            Proposals: At most as many per image as the limit, in descending order of their logits.
        """
        xp = self.xp
        before, after = self.train_limits if chainer.config.train else self.test_limits
        N = len(confs)
        k_max = min(before, max(n_anchors))
        # Levels with fewer anchors are padded with entries of logit -inf.
        score = xp.full((N, len(n_anchors), k_max), -np.inf, confs.dtype)
        anchor = xp.zeros((N, len(n_anchors), k_max), np.int64)
        start = 0
        for level, n in enumerate(n_anchors):
            conf = confs[:, start : start + n]
            order = _best(xp, conf, min(before, n))
            score[:, level, : order.shape[1]] = xp.take_along_axis(conf, order, axis=1)
            anchor[:, level, : order.shape[1]] = order + start
            start += n

        offset = locs[xp.arange(N)[:, None, None], anchor]
        base = anchors[anchor].astype(locs.dtype, copy=False)
        bbox = coding.clip(coding.decode(offset, base), size)
        valid = xp.isfinite(score) & (bbox[..., 2:] > bbox[..., :2]).all(axis=-1)
        flat = (N * len(n_anchors), k_max)
        keep = suppress_sorted(bbox.reshape(*flat, 4), valid.reshape(flat), self.nms_thresh)

        score = xp.where(keep.reshape(score.shape), score, -np.inf).reshape(N, -1)
        order = _best(xp, score, min(after, score.shape[1]))
        if xp is np:
            # On the GPU, reading the number would make the host wait.
            order = order[:, : max(1, int((score > -np.inf).sum(axis=1).max()))]
        rows = xp.arange(N)[:, None]
        return Proposals(
            bbox.reshape(N, -1, 4)[rows, order],
            xp.isfinite(score[rows, order]),
            anchor.reshape(N, -1)[rows, order],
        )


def _best(xp: ModuleType, score: Array, k: int) -> Array:
    """Indices of the ``k`` largest of each row in descending order; ties keep their order.

    A NaN comes after all numbers.
    """
    if xp is np and k < score.shape[1]:
        # A partition and a sort of the k largest are faster than a stable sort of all.
        least = -np.partition(-score, k - 1, axis=1)[:, k - 1 : k]
        order = np.empty((len(score), k), np.int64)
        for i, row in enumerate(score):
            # Written so that a row with NaN, of which the least may be one, has enough of them.
            above = np.flatnonzero(~(row < least[i]))
            order[i] = above[np.argsort(-row[above], kind='stable')[:k]]
        return order
    # CuPy's sort is always stable.
    order = xp.argsort(-score, axis=1, **({'kind': 'stable'} if xp is np else {}))
    return order[:, :k]
