"""Which anchors and which regions of interest are learnt from.

The choice is random, but a function of the seed and of the image's position in the global order
alone: the same on any number of ranks, and after resuming. Each anchor of an image has a random
priority, and a region of interest has that of the anchor it came from. So when rounding makes one
proposal more or less, the choice among the others stays.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from chainer.backends import cuda

from pfdet.boxes import coding
from pfdet.boxes.iou import pairwise_ioa, pairwise_iou
from pfdet.links.rpn import Proposals
from pfdet.targets.batch_truth import BatchTruth


class AnchorTargets(NamedTuple):
    """What the region proposal network must learn from the sampled anchors.

    Attributes:
        image, anchor (int arrays): Which anchors, :math:`(S,)` each.
        positive (bool array): Whether it is on an object, :math:`(S,)`.
        offset (float array): Offsets of the object from it; of meaning where positive,
            :math:`(S, 4)`.
        weight (float array): One over the number of samples of its image, :math:`(S,)`.
    """

    image: np.ndarray
    anchor: np.ndarray
    positive: np.ndarray
    offset: np.ndarray
    weight: np.ndarray


class RoiSample(NamedTuple):
    """Regions of interest that the head learns from, the same number in each image.

    Attributes:
        bbox (float array): :math:`(N, S, 4)`.
        matched (int array): The object each overlaps most, :math:`(N, S)`.
        foreground (bool array): Whether it counts as that object, :math:`(N, S)`.
        used (bool array): :math:`(N, S)`; an image with too few regions has repeated ones that
            teach nothing.
    """

    bbox: np.ndarray
    matched: np.ndarray
    foreground: np.ndarray
    used: np.ndarray


def priorities(seed: int, positions: Sequence[int], n: int) -> np.ndarray:
    """Random priorities :math:`(N, n)` of images at these positions of the global order."""
    return np.stack([np.random.default_rng((seed, p)).random(n, np.float32) for p in positions])


def sample_anchors(
    anchors,
    truth: BatchTruth,
    sizes,
    priority,
    n_sample: int = 256,
    positive_share: float = 0.25,
    positive_iou: float = 0.7,
    negative_iou: float = 0.3,
) -> AnchorTargets:
    """Match anchors to objects and choose some (Ren et al., Faster R-CNN, section 3.1.2).

    Positive are anchors with an IoU of at least ``positive_iou`` with an object, and the best ones
    of each object. Anchors that cross the image's border, and those at least half inside a
    group-of box, are never chosen.

    Args:
        anchors (array): :math:`(A, 4)` in pixels.
        truth (BatchTruth): Of the batch.
        sizes (array): Heights and widths of the images within the batch, :math:`(N, 2)`.
        priority (array): Random in [0, 1), :math:`(N, A)`.
        n_sample (int): Anchors an image.
        positive_share (float): At most this share of them is positive.
        positive_iou, negative_iou (float): IoU from which an anchor is positive, and below which
            it is negative.

    Returns:
        AnchorTargets: Of all images, one after the other.
    """
    xp = cuda.get_array_module(anchors)
    sizes = xp.asarray(sizes, dtype=anchors.dtype)[:, None]
    within = ((anchors[:, :2] >= 0) & (anchors[:, 2:] <= sizes)).all(axis=2)
    objects = truth.valid & ~truth.group_of
    iou = xp.where(objects[:, None], pairwise_iou(anchors[None], truth.bbox), 0)
    crowd = (
        xp.where(
            (truth.valid & truth.group_of)[:, None], pairwise_ioa(anchors[None], truth.bbox), 0
        ).max(axis=2)
        >= 0.5
    )

    best_iou = iou.max(axis=2)
    reachable = xp.where(within[:, :, None], iou, 0)
    best_of_object = reachable.max(axis=1, keepdims=True)
    is_best = ((reachable == best_of_object) & (best_of_object > 0)).any(axis=2)
    positive = within & ((best_iou >= positive_iou) | is_best)
    negative = within & ~positive & ~crowd & (best_iou < negative_iou)

    chosen_positive = _first(positive, priority, int(n_sample * positive_share))
    n_negative = n_sample - chosen_positive.sum(axis=1)
    chosen = chosen_positive | _first(negative, priority, n_negative[:, None])
    image, anchor = xp.nonzero(chosen)
    positive = chosen_positive[image, anchor]
    matched = truth.bbox[image, iou.argmax(axis=2)[image, anchor]]
    base = anchors[anchor]
    # Where nothing is matched the offsets have no meaning, but must be finite.
    offset = coding.encode(xp.where(positive[:, None], matched, base), base)
    weight = 1 / xp.maximum(chosen.sum(axis=1), 1)
    dtype = truth.bbox.dtype
    return AnchorTargets(
        image, anchor, positive, offset.astype(dtype, copy=False), weight[image].astype(dtype)
    )


def sample_rois(
    proposals: Proposals,
    truth: BatchTruth,
    priority,
    n_sample: int = 512,
    foreground_share: float = 0.25,
    foreground_iou: float = 0.5,
) -> RoiSample:
    """Match proposals to objects and choose some (Girshick, Fast R-CNN, section 2.3).

    The objects themselves are added to the proposals, as in ChainerCV.

    Args:
        proposals (Proposals): Of the batch.
        truth (BatchTruth): Of the batch.
        priority (array): Random in [0, 1), :math:`(N, A + G)`: of the anchors, then of the
            objects.
        n_sample (int): Regions an image. Every image gives exactly so many, so that batch
            statistics weigh images alike on all ranks.
        foreground_share (float): At most this share of them is on an object.
        foreground_iou (float): IoU from which a region counts as the object.

    Returns:
        RoiSample: Of the batch.
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
    # Foreground first, then background, then what fills up; by priority among each.
    rank = xp.where(foreground, 0, xp.where(used, 1, 2)) + key
    order = xp.argsort(rank, axis=1)
    if order.shape[1] < n_sample:
        order = xp.concatenate([order] * -(-n_sample // order.shape[1]), axis=1)
    place = xp.arange(n_sample)
    n_used = used.sum(axis=1, keepdims=True)
    order = xp.take_along_axis(order[:, :n_sample], place[None] % xp.maximum(n_used, 1), axis=1)
    rows = xp.arange(N)[:, None]
    return RoiSample(
        bbox[rows, order],
        matched[rows, order],
        foreground[rows, order],
        xp.broadcast_to(place, order.shape) < n_used,
    )


def _first(mask, key, n):
    """The ``n`` members of each row of ``mask`` with the smallest ``key``."""
    xp = cuda.get_array_module(mask)
    order = xp.argsort(xp.where(mask, key, 2), axis=1)
    rank = xp.empty_like(order)
    # CuPy 13 has no put_along_axis.
    rank[xp.arange(len(mask))[:, None], order] = xp.arange(mask.shape[1])
    return mask & (rank < n)
