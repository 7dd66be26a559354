"""The region proposal network over the levels of a feature pyramid."""

from collections.abc import Sequence
from typing import NamedTuple

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import initializers

from pfdet.boxes import coding
from pfdet.boxes.proposal_nms import suppress_sorted


class Proposals(NamedTuple):
    """Boxes that may hold an object, of a batch of images.

    Attributes:
        bbox (array): :math:`(N, K, 4)` in pixels of the padded batch, best first.
        valid (bool array): :math:`(N, K)`; an image with fewer proposals than others has entries
            that are not valid at its end.
        anchor (int array): The anchor each came from, :math:`(N, K)`.
    """

    bbox: np.ndarray
    valid: np.ndarray
    anchor: np.ndarray


class RPN(chainer.Chain):
    """Region proposal network of Feature Pyramid Networks (Lin et al., section 4.1).

    One 3x3 convolution and two 1x1 ones, shared by all levels. Every level has anchors of one size
    and several aspect ratios.

    Args:
        scales (sequence of float): Feature map places per pixel, by level.
        anchor_ratios (sequence of float): Height over width. PFDet's Table 1 begins with 1/2, 1, 2
            and ends with 1/3, 1/2, 1, 2, 3.
        anchor_size (float): Side in pixels of a square anchor on a level of scale 1/4; other
            levels in proportion to their stride.
        n_channel (int): Channels of the input and of the shared convolution.
        nms_thresh (float): IoU from which a proposal is suppressed.
        train_limits, test_limits (pairs of int): Proposals of a level before suppression, and of
            an image after it.
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
        """Offsets and logits of all anchors.

        Args:
            hs (sequence of variables): Feature maps :math:`(N, C, H_l, W_l)`.

        Returns:
            tuple: Offsets :math:`(N, A, 4)` and objectness logits :math:`(N, A)` of the anchors
            of all levels, in the order of :meth:`anchors`, and the number of anchors a level.
        """
        locs, confs = [], []
        for h in hs:
            h = F.relu(self.conv(h))
            N = h.shape[0]
            locs.append(F.reshape(F.transpose(self.loc(h), (0, 2, 3, 1)), (N, -1, 4)))
            confs.append(F.reshape(F.transpose(self.conf(h), (0, 2, 3, 1)), (N, -1)))
        return F.concat(locs, axis=1), F.concat(confs, axis=1), [c.shape[1] for c in confs]

    def anchors(self, sizes: Sequence[tuple[int, int]]):
        """Anchors of all levels.

        Args:
            sizes (sequence of pairs of int): Height and width of each level's feature map.

        Returns:
            array: :math:`(A, 4)` in pixels: by level, row, column, aspect ratio.
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
        self, locs, confs, anchors, n_anchors: Sequence[int], size: tuple[int, int]
    ) -> Proposals:
        """Turn the network's output into proposals, without gradient.

        By level, the best are decoded and clipped; suppression runs over all levels of all images
        side by side; what is left of an image is sorted by its logit.

        Args:
            locs, confs (array): As :meth:`forward` returns them, as arrays.
            anchors (array): :math:`(A, 4)`.
            n_anchors (sequence of int): Number of anchors a level.
            size (pair of int): Height and width of the padded batch.

        Returns:
            Proposals: At most the limit for images, in order of descending logit.
        """
        xp = self.xp
        before, after = self.train_limits if chainer.config.train else self.test_limits
        N = len(confs)
        k_max = min(before, max(n_anchors))
        # Levels with fewer anchors than others are filled up with entries of logit -inf.
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
            # On the GPU, to know would be to wait for it.
            order = order[:, : max(1, int((score > -np.inf).sum(axis=1).max()))]
        rows = xp.arange(N)[:, None]
        return Proposals(
            bbox.reshape(N, -1, 4)[rows, order],
            xp.isfinite(score[rows, order]),
            anchor.reshape(N, -1)[rows, order],
        )


def _best(xp, score, k: int):
    """Indices of the ``k`` largest of each row, in descending order; ties by place."""
    if xp is np and k < score.shape[1]:
        # A stable sort of everything costs more than finding the k-th value and sorting above it.
        least = -np.partition(-score, k - 1, axis=1)[:, k - 1 : k]
        order = np.empty((len(score), k), np.int64)
        for i, row in enumerate(score):
            above = np.flatnonzero(row >= least[i])
            order[i] = above[np.argsort(-row[above], kind='stable')[:k]]
        return order
    # CuPy's sort is always stable.
    order = xp.argsort(-score, axis=1, **({'kind': 'stable'} if xp is np else {}))
    return order[:, :k]
