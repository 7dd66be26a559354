"""The papers' label rules as functions of the target matrix.

A target matrix ``t`` is int8, :math:`(N, S, C)` for :math:`S` regions of interest in each of
:math:`N` images: 1 positive, 0 negative, -1 ignored. Every rule returns a new matrix. The
``ignore_*`` rules change only negatives to ignored, so positives always stay.

A row depends only on the object that its region is matched to, and a rule often affects only a few
classes. On the CPU the rules therefore write only the rows or columns that change. On the GPU they
write all of them, because selecting some would make the host wait for the GPU.
"""

from typing import NamedTuple

import numpy as np
from chainer.backends import cuda

from pfdet.boxes.arrays import Array
from pfdet.boxes.iou import pairwise_ioa
from pfdet.targets.batch_truth import BatchTruth, related
from pfdet.targets.sampling import RoiSample, priorities

# Stream of the random numbers that break ties between labels. The regions are drawn from stream 0.
_TIES = 1


class CooccurrencePairs(NamedTuple):
    """Pairs of classes in which the second is a part or possession of the first.

    Attributes:
        subject, part (int arrays): Class ids, :math:`(P,)` each. NumPy arrays.
    """

    subject: np.ndarray
    part: np.ndarray


def positives(sample: RoiSample, truth: BatchTruth, expand_ancestors: bool = True) -> Array:
    """Make the initial target matrix from the labels of the matched objects.

    Args:
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Ground truth of the batch.
        expand_ancestors (bool): Whether the ancestors of an object's labels are positive as well
            (PFDet, section 2.1).

    Returns:
        int8 array: Target matrix :math:`(N, S, C)`. Rows of padding regions are ignored.
    """
    xp = cuda.get_array_module(sample.bbox)
    label = truth.expanded if expand_ancestors else truth.label
    t = xp.zeros((*sample.foreground.shape, label.shape[2]), np.int8)
    image, region = _selected(sample.foreground)
    t[image, region] = (
        label[image, sample.matched[image, region]] & sample.foreground[image, region][:, None]
    )
    return xp.where(sample.used[:, :, None], t, np.int8(-1))


def ignore_descendants(
    t: Array,
    sample: RoiSample,
    truth: BatchTruth,
    descendants: Array,
    also_absent: bool = False,
) -> Array:
    """Ignore the descendants of a ground truth class that is not a leaf (PFDet, section 2.1).

    An object annotated only as Fruit may be an apple. An object annotated as both Fruit and Apple
    is known to be an apple, so only the descendants of its most specific labels are ignored. For
    objects of one label this is the paper's rule. It is no apple if annotators verified that there
    is none in the image, so Apple then stays negative.

    Args:
        t (int8 array): Target matrix :math:`(N, S, C)`.
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Ground truth of the batch.
        descendants (bool array): ``descendants[i, j]`` is true if ``j`` descends from ``i``,
            :math:`(C, C)`.
        also_absent (bool): Whether to ignore also descendants that were verified as absent. The
            paper does not mention them.

    Returns:
        int8 array: Target matrix :math:`(N, S, C)`.
    """
    xp = cuda.get_array_module(t)
    maybe = _possible_descendants(truth.label, truth, descendants, also_absent)
    rows = xp.arange(len(t))[:, None]
    uncertain = maybe.any(axis=2)[rows, sample.matched] & sample.foreground
    image, region = _selected(uncertain)
    row = t[image, region]
    ignored = maybe[image, sample.matched[image, region]] & uncertain[image, region][:, None]
    t = t.copy()
    t[image, region] = xp.where(ignored & (row == 0), np.int8(-1), row)
    return t


def ignore_group_of(
    t: Array,
    sample: RoiSample,
    truth: BatchTruth,
    share: float = 0.5,
    descendants: Array | None = None,
    also_absent: bool = False,
) -> Array:
    """Ignore the classes of a group-of box for regions inside it.

    The objects of a group have no boxes of their own, so such a region may be one of them. Neither
    paper mentions this case. The challenge's metric treats detections in the same way.

    An object in a group annotated only as Person may be a man, as a single object may be. With
    ``descendants``, the descendants of the group's most specific labels are ignored too, as in
    :func:`ignore_descendants`.

    Args:
        t (int8 array): Target matrix :math:`(N, S, C)`.
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Ground truth of the batch.
        share (float): Smallest fraction of a region's area inside the box.
        descendants (bool array): ``descendants[i, j]`` is true if ``j`` descends from ``i``,
            :math:`(C, C)`. By default no descendants are ignored.
        also_absent (bool): Whether to ignore also descendants that were verified as absent.

    Returns:
        int8 array: Target matrix :math:`(N, S, C)`.
    """
    xp = cuda.get_array_module(t)
    label = truth.expanded & truth.group_of[:, :, None]
    if descendants is not None:
        group = truth.label & truth.group_of[:, :, None]
        label |= _possible_descendants(group, truth, descendants, also_absent)
    if xp is not np:
        return _ignore_within(t, slice(None), sample, truth, label, share)
    columns = np.flatnonzero(label.any(axis=(0, 1)))
    if len(columns) == 0:
        return t
    return _ignore_within(t, columns, sample, truth, label[:, :, columns], share)


def ignore_cooccurring(
    t: Array,
    sample: RoiSample,
    truth: BatchTruth,
    pairs: CooccurrencePairs,
    share: float = 0.5,
    also_verified: bool = False,
) -> Array:
    """Ignore classes that are likely to occur inside a ground truth box (PFDet, section 2.2).

    "If a proposal is inside a ground truth box of class X, it is safe to ignore treating the
    proposal as a negative sample of class Y." Boxes of the descendants of X count as well.

    Args:
        t (int8 array): Target matrix :math:`(N, S, C)`.
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Ground truth of the batch.
        pairs (CooccurrencePairs): X (``subject``) and Y (``part``) of each pair.
        share (float): Smallest fraction of a region's area inside the box. The paper does not give
            it.
        also_verified (bool): Whether to ignore Y also in images where it was verified. The paper
            motivates the loss with classes that were not verified.

    Returns:
        int8 array: Target matrix :math:`(N, S, C)`.
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


def keep_one_label(
    t: Array,
    sample: RoiSample,
    truth: BatchTruth,
    priority: Array,
    others: int = 0,
    seed: int | None = None,
) -> Array:
    """Keep one positive class of each region, for single-label losses.

    "In the conventional object detection training scheme, each bounding box is assigned only one
    label during training ignoring other ground-truth labels" (Peng et al. (2020), section 4.1).
    The paper does not say which label.

    With a seed, ties are broken by a random number per seed, position of the image in the global
    order, and class. So an object that is both a Torch and a Flashlight teaches either class in
    about half of its epochs. The choice is the same for all objects of an image, on any number of
    ranks, and after resuming.

    Args:
        t (int8 array): Target matrix :math:`(N, S, C)`.
        sample (RoiSample): Regions of interest, with ``positions`` if there is a seed.
        truth (BatchTruth): Ground truth of the batch. Not used.
        priority (array): Priority of each class, :math:`(C,)`. The positive class of the highest
            priority is kept. A hierarchy's ``depth`` keeps the most specific class, the negated
            number of training images the rarest.
        others (int): New value of the other positive classes: 0, negative, or -1, ignored.
        seed (int): Seed of the choice between classes of equal priority. By default, the lowest
            class id is kept.

    Returns:
        int8 array: Target matrix :math:`(N, S, C)`.

    Raises:
        ValueError: ``others`` is neither 0 nor -1, or there is a seed, but no positions.
    """
    if others not in (0, -1):
        raise ValueError(f'others must be 0 or -1, not {others}')
    xp = cuda.get_array_module(t)
    rank = xp.asarray(_class_ranks(sample, priority, seed))
    # All other regions have no positive class.
    image, region = _selected(sample.foreground & sample.used)
    row = t[image, region]
    ranked = (row > 0) * (rank[0] if seed is None else rank[image])
    kept = (ranked > 0) & (ranked == ranked.max(axis=1, keepdims=True))
    t = t.copy()
    t[image, region] = xp.where((row > 0) & ~kept, np.int8(others), row)
    return t


def _class_ranks(sample: RoiSample, priority: Array, seed: int | None) -> np.ndarray:
    """Rank the classes by priority; with a seed, equal ones at random.

    Returns:
        int32 array: Ranks :math:`(N, C)` or, without a seed, :math:`(1, C)`. They are distinct and
        start at 1, so that 0 can stand for classes that are not positive.
    """
    priority = np.asarray(cuda.to_cpu(priority), np.float64)
    if seed is None:
        tie = -np.arange(len(priority))[None]
    elif sample.positions is None:
        raise ValueError('random ties need the positions of the images')
    else:
        tie = priorities(seed, sample.positions, len(priority), _TIES)
    order = np.lexsort((tie, np.broadcast_to(priority, tie.shape)), axis=1)
    rank = np.empty(order.shape, np.int32)
    np.put_along_axis(rank, order, np.arange(1, len(priority) + 1, dtype=np.int32)[None], axis=1)
    return rank


def _possible_descendants(
    label: Array, truth: BatchTruth, descendants: Array, also_absent: bool
) -> Array:
    """Find the more specific classes that an object may have.

    Args:
        label (bool array): Label sets of the objects, :math:`(N, G, C)`.
        truth (BatchTruth): Ground truth of the batch.
        descendants (bool array): See :func:`ignore_descendants`.
        also_absent (bool): Whether classes that were verified as absent are possible.

    Returns:
        bool array: The descendants of the most specific labels, :math:`(N, G, C)`.
    """
    specific = label & ~related(label, descendants.T)
    possible = related(specific, descendants)
    return possible if also_absent else possible & ~truth.absent[:, None]


def _selected(mask: Array) -> tuple[Array, ...]:
    """Image and region indices where ``mask`` is true; on the GPU, all indices."""
    xp = cuda.get_array_module(mask)
    if xp is np:
        return np.nonzero(mask)
    N, S = mask.shape
    return xp.repeat(xp.arange(N), S), xp.tile(xp.arange(S), N)


def _ignore_within(
    t: Array,
    columns: Array | slice,
    sample: RoiSample,
    truth: BatchTruth,
    label: Array,
    share: float,
) -> Array:
    """Ignore classes for regions inside objects.

    Args:
        t (int8 array): Target matrix :math:`(N, S, C)`.
        columns (int array or slice): Ids of the classes, :math:`(K,)`.
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Ground truth of the batch.
        label (bool array): Whether the object has the class ignored, :math:`(N, G, K)`.
        share (float): Smallest fraction of a region's area inside the box.

    Returns:
        int8 array: Target matrix :math:`(N, S, C)`.
    """
    xp = cuda.get_array_module(t)
    # Skip the object slots in which no image has such a class.
    slots = np.flatnonzero(label.any(axis=(0, 2))) if xp is np else slice(None)
    within = pairwise_ioa(sample.bbox, truth.bbox[:, slots]) >= share
    ignored = within.astype(np.float32) @ label[:, slots].astype(np.float32) > 0
    before = t[:, :, columns]
    t = t.copy()
    t[:, :, columns] = xp.where(ignored & (before == 0), np.int8(-1), before)
    return t
