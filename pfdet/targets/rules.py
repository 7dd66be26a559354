"""The papers' label rules, each a function over the target matrix.

A target matrix ``t`` is int8, ``(N, S, C)`` for :math:`S` regions of interest of :math:`N` images:
1 positive, 0 negative, -1 ignored. A rule returns a new one. Ignoring rules turn only negatives to
ignored: what an annotator has drawn stays.

The matrix has a row a region, but what is in it depends on objects, of which there are few, or on
a few classes. So the rules work out small matrices and, on the CPU, write only the rows or columns
that change. On the GPU they go over all of them: that is fast, while to know which, the host would
have to wait for all that the GPU has yet to do.
"""

from typing import NamedTuple

import numpy as np
from chainer.backends import cuda

from pfdet.boxes.iou import pairwise_ioa
from pfdet.targets.batch_truth import BatchTruth, related
from pfdet.targets.sampling import RoiSample


class CooccurrencePairs(NamedTuple):
    """Pairs of classes of which the second is a part or possession of the first.

    Attributes:
        subject, part (int arrays): Class ids, :math:`(P,)` each, NumPy arrays.
    """

    subject: np.ndarray
    part: np.ndarray


def positives(sample: RoiSample, truth: BatchTruth, expand_ancestors: bool = True):
    """The target matrix before any rule: the matched object's labels.

    Args:
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Of the batch.
        expand_ancestors (bool): The object's labels with all their ancestors (PFDet, section 2.1),
            or as annotated.

    Returns:
        int8 array: :math:`(N, S, C)`. Rows of regions that only fill up are ignored.
    """
    xp = cuda.get_array_module(sample.bbox)
    label = truth.expanded if expand_ancestors else truth.label
    t = xp.zeros((*sample.foreground.shape, label.shape[2]), np.int8)
    image, place = _places(sample.foreground)
    t[image, place] = (
        label[image, sample.matched[image, place]] & sample.foreground[image, place][:, None]
    )
    return xp.where(sample.used[:, :, None], t, np.int8(-1))


def ignore_descendants(t, sample: RoiSample, truth: BatchTruth, descendants):
    """Ignore the descendants of a ground truth that is not a leaf (PFDet, section 2.1).

    An object annotated only as Fruit may be an apple. Where an object has both a class and a
    descendant of it (Fruit and Apple), the descendant says which it is, so only the most specific
    of its labels are looked at; for objects of one label this is the paper's rule to the letter.

    Args:
        t (int8 array): :math:`(N, S, C)`.
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Of the batch.
        descendants (bool array): :math:`(C, C)`, ``descendants[i, j]``: ``j`` descends from ``i``.

    Returns:
        int8 array: :math:`(N, S, C)`.
    """
    xp = cuda.get_array_module(t)
    specific = truth.label & ~related(truth.label, descendants.T)
    maybe = related(specific, descendants)
    rows = xp.arange(len(t))[:, None]
    open_ = maybe.any(axis=2)[rows, sample.matched] & sample.foreground
    image, place = _places(open_)
    row = t[image, place]
    ignored = maybe[image, sample.matched[image, place]] & open_[image, place][:, None]
    t = t.copy()
    t[image, place] = xp.where(ignored & (row == 0), np.int8(-1), row)
    return t


def ignore_group_of(t, sample: RoiSample, truth: BatchTruth, share: float = 0.5):
    """Ignore the classes of a group-of box for regions within it.

    The single objects of a group are not boxed, so such a region may well be one. Neither paper
    speaks of it; the challenge's metric treats detections in the same way.

    Args:
        t (int8 array): :math:`(N, S, C)`.
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Of the batch.
        share (float): A region is within a box when at least this share of its area is.

    Returns:
        int8 array: :math:`(N, S, C)`.
    """
    xp = cuda.get_array_module(t)
    label = truth.expanded & truth.group_of[:, :, None]
    if xp is not np:
        return _ignore_within(t, slice(None), sample, truth, label, share)
    columns = np.flatnonzero(label.any(axis=(0, 1)))
    if len(columns) == 0:
        return t
    return _ignore_within(t, columns, sample, truth, label[:, :, columns], share)


def ignore_cooccurring(
    t,
    sample: RoiSample,
    truth: BatchTruth,
    pairs: CooccurrencePairs,
    share: float = 0.5,
    also_verified: bool = False,
):
    """Ignore classes that are likely inside a ground truth box (PFDet, section 2.2).

    "If a proposal is inside a ground truth box of class X, it is safe to ignore treating the
    proposal as a negative sample of class Y." Boxes of X are also those of its descendants.

    Args:
        t (int8 array): :math:`(N, S, C)`.
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Of the batch.
        pairs (CooccurrencePairs): X and Y of each pair.
        share (float): A region is inside a box when at least this share of its area is. The paper
            does not say.
        also_verified (bool): Also where annotators have looked for Y in the image. The paper
            motivates the loss by classes that were not verified.

    Returns:
        int8 array: :math:`(N, S, C)`.
    """
    if len(pairs.part) == 0:
        return t
    xp = cuda.get_array_module(t)
    subjects, subject = np.unique(pairs.subject, return_inverse=True)
    parts, part = np.unique(pairs.part, return_inverse=True)
    relation = np.zeros((len(subjects), len(parts)), bool)
    relation[subject, part] = True
    columns = xp.asarray(parts)
    label = related(truth.expanded[:, :, xp.asarray(subjects)], relation)
    if not also_verified:
        label &= ~truth.verified[:, None, columns]
    return _ignore_within(t, columns, sample, truth, label, share)


def keep_one_label(t, sample: RoiSample, truth: BatchTruth, priority, others: int = 0):
    """Keep one positive class of each region, for losses of a single label.

    "In the conventional object detection training scheme, each bounding box is assigned only one
    label during training ignoring other ground-truth labels" (Peng et al., section 4.1). The paper
    does not say which.

    Args:
        t (int8 array): :math:`(N, S, C)`.
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Of the batch; not looked at.
        priority (array): :math:`(C,)`; the positive class with the highest is kept, the one with
            the lowest class id among equals. With a hierarchy's ``depth`` it is the most specific,
            with minus the number of training images the rarest.
        others (int): What the other positive classes become: 0, negative as any other class, or
            -1, ignored.

    Returns:
        int8 array: :math:`(N, S, C)`.

    Raises:
        ValueError: ``others`` is neither.
    """
    if others not in (0, -1):
        raise ValueError(f'others must be 0 or -1, not {others}')
    xp = cuda.get_array_module(t)
    # The k-th best class gets C - k, so that no two are equal and 0 is none.
    order = np.argsort(-np.asarray(cuda.to_cpu(priority), np.float64), kind='stable')
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), 0, -1)
    # Other regions have no positive class.
    image, place = _places(sample.foreground & sample.used)
    row = t[image, place]
    ranked = (row > 0) * xp.asarray(rank)
    kept = (ranked > 0) & (ranked == ranked.max(axis=1, keepdims=True))
    t = t.copy()
    t[image, place] = xp.where((row > 0) & ~kept, np.int8(others), row)
    return t


def _places(mask):
    """Image and place of the regions to work on: of the mask, on the GPU of all."""
    xp = cuda.get_array_module(mask)
    if xp is np:
        return np.nonzero(mask)
    N, S = mask.shape
    return xp.repeat(xp.arange(N), S), xp.tile(xp.arange(S), N)


def _ignore_within(t, columns, sample: RoiSample, truth: BatchTruth, label, share: float):
    """Ignore some classes for regions within objects.

    Args:
        t (int8 array): :math:`(N, S, C)`.
        columns (int array): The classes, :math:`(K,)`; or a slice.
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Of the batch.
        label (bool array): Which of the classes each object has ignored, :math:`(N, G, K)`.
        share (float): A region is within a box when at least this share of its area is.

    Returns:
        int8 array: :math:`(N, S, C)`.
    """
    xp = cuda.get_array_module(t)
    # Places at which no image has such an object need not be looked at.
    concerned = np.flatnonzero(label.any(axis=(0, 2))) if xp is np else slice(None)
    within = pairwise_ioa(sample.bbox, truth.bbox[:, concerned]) >= share
    ignored = within.astype(np.float32) @ label[:, concerned].astype(np.float32) > 0
    before = t[:, :, columns]
    t = t.copy()
    t[:, :, columns] = xp.where(ignored & (before == 0), np.int8(-1), before)
    return t
