"""The papers' label rules, each a function over the target matrix.

A target matrix ``t`` is int8, ``(N, S, C)`` for :math:`S` regions of interest of :math:`N` images:
1 positive, 0 negative, -1 ignored. A rule returns a new one. Only negatives become ignored: what
an annotator has drawn stays.
"""

from typing import NamedTuple

import numpy as np
from chainer.backends import cuda

from pfdet.targets import overlap
from pfdet.targets.batch_truth import BatchTruth
from pfdet.targets.sampling import RoiSample


class CooccurrencePairs(NamedTuple):
    """Pairs of classes of which the second is a part or possession of the first.

    Attributes:
        subject, part (int arrays): Class ids, :math:`(P,)` each.
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
    rows = xp.arange(len(label))[:, None]
    t = (label[rows, sample.matched] & sample.foreground[:, :, None]).astype(np.int8)
    t[~sample.used] = -1
    return t


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
    descendants = xp.asarray(descendants, dtype=np.float32)
    label = truth.label.astype(np.float32)
    implied = label @ descendants.T > 0
    maybe = (label * ~implied) @ descendants > 0
    rows = xp.arange(len(t))[:, None]
    ignored = maybe[rows, sample.matched] & sample.foreground[:, :, None]
    return xp.where(ignored & (t == 0), np.int8(-1), t)


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
    group = truth.valid & truth.group_of
    if not group.any():
        return t
    within = (overlap.inside(sample.bbox, truth.bbox) >= share) & group[:, None]
    ignored = within.astype(np.float32) @ truth.expanded.astype(np.float32) > 0
    return xp.where(ignored & (t == 0), np.int8(-1), t)


def ignore_cooccurring(t, sample: RoiSample, truth: BatchTruth, pairs: CooccurrencePairs,
                       share: float = 0.5, also_verified: bool = False):
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
    xp = cuda.get_array_module(t)
    subjects = truth.expanded & truth.valid[:, :, None]
    within = (overlap.inside(sample.bbox, truth.bbox) >= share).astype(np.float32)
    in_subject = within @ subjects.astype(np.float32) > 0
    relation = xp.zeros((t.shape[2], t.shape[2]), np.float32)
    relation[xp.asarray(pairs.subject), xp.asarray(pairs.part)] = 1
    ignored = in_subject.astype(np.float32) @ relation > 0
    if not also_verified:
        ignored &= ~truth.verified[:, None]
    return xp.where(ignored & (t == 0), np.int8(-1), t)
