"""Sampling of the anchors and regions of interest used in training.

The sample is random but depends only on the seed and on the image's position in the global order.
It is therefore the same on any number of ranks and after resuming. Each anchor of an image has a
random priority, and a region of interest has the priority of its anchor. If rounding adds or
removes a proposal, the order of the others does not change.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from chainer.backends import cuda

from pfdet.boxes import coding
from pfdet.boxes.arrays import Array
from pfdet.boxes.iou import pairwise_ioa, pairwise_iou
from pfdet.links.rpn import Proposals
from pfdet.targets.batch_truth import BatchTruth

# Pairs of an anchor and an object whose IoU is computed at a time, some 16 MB a temporary array.
_PAIRS_AT_ONCE = 1 << 22


class AnchorTargets(NamedTuple):
    """Training targets of the region proposal network for the sampled anchors of a batch.

    Attributes:
        image, anchor (int arrays): Image and anchor index of each sample, :math:`(S,)`.
        positive (bool array): Whether the anchor is matched to an object, :math:`(S,)`.
        offset (float array): Offsets of the object from the anchor, :math:`(S, 4)`; meaningless
            for negatives.
        weight (float array): One over the number of samples in the same image, :math:`(S,)`.
    """

    image: Array
    anchor: Array
    positive: Array
    offset: Array
    weight: Array


class RoiSample(NamedTuple):
    """Regions of interest for training the head, the same number in each image.

    Attributes:
        bbox (float array): Boxes :math:`(N, S, 4)` in pixels.
        matched (int array): Index of the object with the highest IoU, :math:`(N, S)`.
        foreground (bool array): Whether the region is assigned to that object, :math:`(N, S)`.
        used (bool array): Whether the region contributes to the loss, :math:`(N, S)`. An image
            with too few regions is padded with repeated ones, which do not.
        positions (sequence of int): The images' positions in the global order, :math:`(N,)`, on
            which random choices of target rules depend.
    """

    bbox: Array
    matched: Array
    foreground: Array
    used: Array
    positions: Sequence[int] | None = None


def priorities(seed: int, positions: Sequence[int], n: int, stream: int = 0) -> np.ndarray:
    """Draw random priorities for images.

    Args:
        seed (int): Random seed.
        positions (sequence of int): The images' positions in the global order.
        n (int): Priorities per image.
        stream (int): The priorities of different streams are independent.

    Returns:
        float32 array: Values in [0, 1), :math:`(N, n)`.
    """
    key = (stream,) if stream else ()
    sequences = [np.random.SeedSequence((seed, int(p)), spawn_key=key) for p in positions]
    return np.stack([np.random.default_rng(s).random(n, np.float32) for s in sequences])


def sample_anchors(
    anchors: Array,
    truth: BatchTruth,
    sizes: Array,
    priority: Array,
    n_sample: int = 256,
    positive_share: float = 0.25,
    positive_iou: float = 0.7,
    negative_iou: float = 0.3,
    border: int = -1,
    n_pair: int = _PAIRS_AT_ONCE,
) -> AnchorTargets:
    """Match anchors to objects and sample from them (Ren et al., Faster R-CNN, section 3.1.2).

    An anchor is positive if its IoU with an object is at least ``positive_iou``, or if no other
    anchor has a higher IoU with the object. Anchors of which at least half is inside a group-of box
    are never negatives. Memory does not grow with the number of objects.

    Faster R-CNN and ChainerCV sample no anchor that crosses the border of the image. In a feature
    pyramid, the anchors of the coarsest levels are larger than the image, so these levels would
    never be trained, and still propose regions. By default, anchors whose centre is in the image
    are sampled, as in MMDetection; the padding of a batch has no samples.

    Args:
        anchors (array): Anchors :math:`(A, 4)` in pixels.
        truth (BatchTruth): Ground truth of the batch.
        sizes (array): Heights and widths of the images before padding, :math:`(N, 2)`.
        priority (array): Random values in [0, 1), :math:`(N, A)`. The lowest are sampled first.
        n_sample (int): Anchors per image.
        positive_share (float): Largest fraction of positives among them.
        positive_iou, negative_iou (float): IoU from which an anchor is positive, and below which
            it is negative.
        border (int): Pixels by which a sampled anchor may cross the border of the image; -1 for no
            limit.
        n_pair (int): Pairs of an anchor and an object whose IoU is computed at a time.

    Returns:
        AnchorTargets: Samples of all images, in the order of the images.
    """
    xp = cuda.get_array_module(anchors)
    within = anchors_in_images(anchors, xp.asarray(sizes, dtype=anchors.dtype), border)
    match = _match_anchors(anchors, truth, within, n_pair)
    positive = within & ((match.iou >= positive_iou) | match.best)
    negative = within & ~positive & ~match.crowd & (match.iou < negative_iou)

    chosen_positive = _first(positive, priority, int(n_sample * positive_share))
    n_negative = n_sample - chosen_positive.sum(axis=1)
    chosen = chosen_positive | _first(negative, priority, n_negative[:, None])
    image, anchor = xp.nonzero(chosen)
    positive = chosen_positive[image, anchor]
    matched = truth.bbox[image, match.object[image, anchor]]
    base = anchors[anchor]
    # The offsets of negatives are not used, but they must be finite.
    offset = coding.encode(xp.where(positive[:, None], matched, base), base)
    weight = 1 / xp.maximum(chosen.sum(axis=1), 1)
    dtype = truth.bbox.dtype
    return AnchorTargets(
        image, anchor, positive, offset.astype(dtype, copy=False), weight[image].astype(dtype)
    )


def anchors_in_images(anchors: Array, sizes: Array, border: int = -1) -> Array:
    """The anchors that the RPN may learn from.

    Args:
        anchors (array): Anchors :math:`(A, 4)` in pixels.
        sizes (array): Heights and widths of the images before padding, :math:`(N, 2)`.
        border (int): Pixels by which an anchor may cross the border; with -1, the centre must be in
            the image.

    Returns:
        bool array: :math:`(N, A)`.
    """
    sizes = sizes[:, None]
    if border < 0:
        centre = (anchors[:, :2] + anchors[:, 2:]) / 2
        return ((centre >= 0) & (centre < sizes)).all(axis=2)
    return ((anchors[:, :2] >= -border) & (anchors[:, 2:] <= sizes + border)).all(axis=2)


class _Match(NamedTuple):
    """Anchors matched to objects.

    Attributes:
        iou (array): IoU of each anchor with its object, :math:`(N, A)`; 0 without objects.
        object (int array): The object with the highest IoU, :math:`(N, A)`.
        best (bool array): Whether no other sampled anchor has a higher IoU with some object.
        crowd (bool array): Whether at least half of the anchor is inside a group-of box.
    """

    iou: Array
    object: Array
    best: Array
    crowd: Array


def _match_anchors(anchors: Array, truth: BatchTruth, within: Array, n_pair: int) -> _Match:
    """Match anchors to the objects, some objects at a time."""
    xp = cuda.get_array_module(anchors)
    shape = within.shape
    match = _Match(
        xp.zeros(shape, truth.bbox.dtype),
        xp.zeros(shape, np.int64),
        xp.zeros(shape, bool),
        xp.zeros(shape, bool),
    )
    objects = truth.valid & ~truth.group_of
    groups = truth.valid & truth.group_of
    step = max(1, n_pair // max(1, shape[0] * shape[1]))
    for start in range(0, truth.valid.shape[1], step):
        part = slice(start, start + step)
        bbox = truth.bbox[:, part]
        iou = pairwise_iou(anchors[None], bbox)
        iou *= objects[:, None, part]
        # The first of equal ones wins, as with argmax over all objects.
        highest = iou.max(axis=2)
        higher = highest > match.iou
        match.object[...] = xp.where(higher, iou.argmax(axis=2) + start, match.object)
        xp.maximum(match.iou, highest, out=match.iou)
        iou *= within[:, :, None]
        best = iou.max(axis=1, keepdims=True)
        match.best[...] |= ((iou == best) & (best > 0)).any(axis=2)
        if xp is not np or groups[:, part].any():
            inside = pairwise_ioa(anchors[None], bbox) * groups[:, None, part]
            match.crowd[...] |= (inside >= 0.5).any(axis=2)
    return match


def sample_rois(
    proposals: Proposals,
    truth: BatchTruth,
    priority: Array,
    n_sample: int = 512,
    foreground_share: float = 0.25,
    foreground_iou: float = 0.5,
) -> RoiSample:
    """Match proposals to objects and sample from them (Girshick, Fast R-CNN, section 2.3).

    The ground truth boxes are added to the proposals, as in ChainerCV.

    Args:
        proposals (Proposals): Proposals of the batch.
        truth (BatchTruth): Ground truth of the batch.
        priority (array): Random values in [0, 1) of the anchors, then of the objects,
            :math:`(N, A + G)`. The lowest are sampled first.
        n_sample (int): Regions per image. Every image has exactly this number, so that batch
            statistics weight all images equally on all ranks.
        foreground_share (float): Largest fraction of foreground regions among them.
        foreground_iou (float): IoU from which a region is assigned to an object.

    Returns:
        RoiSample: Regions of the batch. Foreground comes first in each image.
    """
    xp = cuda.get_array_module(proposals.bbox)
    objects = truth.valid & ~truth.group_of
    N, G = objects.shape
    bbox = xp.concatenate([proposals.bbox, truth.bbox], axis=1)
    valid = xp.concatenate([proposals.valid, objects], axis=1)
    n_anchor = priority.shape[1] - G
    key = xp.concatenate(
        [
            xp.take_along_axis(priority[:, :n_anchor], proposals.anchor, axis=1),
            priority[:, n_anchor:],
        ],
        axis=1,
    )

    iou = xp.where(objects[:, None], pairwise_iou(bbox, truth.bbox), 0)
    matched, best_iou = iou.argmax(axis=2), iou.max(axis=2)
    is_foreground = valid & (best_iou >= foreground_iou)
    foreground = _first(is_foreground, key, int(n_sample * foreground_share))
    background = valid & ~is_foreground
    n_background = n_sample - foreground.sum(axis=1)
    used = foreground | _first(background, key, n_background[:, None])
    # Foreground first, then background, then unused regions, each ordered by priority.
    rank = xp.where(foreground, 0, xp.where(used, 1, 2)) + key
    order = xp.argsort(rank, axis=1)
    if order.shape[1] < n_sample:
        order = xp.concatenate([order] * -(-n_sample // order.shape[1]), axis=1)
    slot = xp.arange(n_sample)
    n_used = used.sum(axis=1, keepdims=True)
    order = xp.take_along_axis(order[:, :n_sample], slot[None] % xp.maximum(n_used, 1), axis=1)
    rows = xp.arange(N)[:, None]
    return RoiSample(
        bbox[rows, order],
        matched[rows, order],
        foreground[rows, order],
        xp.broadcast_to(slot, order.shape) < n_used,
    )


def _first(mask: Array, key: Array, n: int | Array) -> Array:
    """Keep the ``n`` true entries of each row of ``mask`` with the smallest ``key``."""
    xp = cuda.get_array_module(mask)
    order = xp.argsort(xp.where(mask, key, 2), axis=1)
    rank = xp.empty_like(order)
    # CuPy 13 has no put_along_axis.
    rank[xp.arange(len(mask))[:, None], order] = xp.arange(mask.shape[1])
    return mask & (rank < n)
