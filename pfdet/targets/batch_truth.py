"""The ground truth of a batch of images as arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from chainer.backends import cuda

from pfdet.boxes.iou import pairwise_iou
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.hierarchy import Hierarchy


class BatchTruth(NamedTuple):
    """Objects of :math:`N` images, at most :math:`G` an image.

    Attributes:
        bbox (float32 array): :math:`(N, G, 4)` in pixels of the batch.
        valid (bool array): :math:`(N, G)`; the others fill up, and have no labels.
        group_of (bool array): :math:`(N, G)`; boxes around a crowd of a class.
        label (bool array): :math:`(N, G, C)`; the label set as annotated.
        expanded (bool array): :math:`(N, G, C)`; the label set with all ancestors.
        verified (bool array): :math:`(N, C)`; whether annotators looked for the class, found or
            not: positive labels hold for ancestors, negative ones for descendants.
    """

    bbox: np.ndarray
    valid: np.ndarray
    group_of: np.ndarray
    label: np.ndarray
    expanded: np.ndarray
    verified: np.ndarray


def collate(
    bbox: Sequence[np.ndarray],
    label: Sequence[np.ndarray],
    flags: Sequence[np.ndarray],
    positive: Sequence[np.ndarray],
    negative: Sequence[np.ndarray],
    hierarchy: Hierarchy,
    join_iou: float | None = None,
) -> BatchTruth:
    """Put the annotations of several images together.

    Args:
        bbox (sequence of arrays): :math:`(R_n, 4)` in pixels.
        label (sequence of bool arrays): :math:`(R_n, C)`, as annotated.
        flags (sequence of uint8 arrays): :math:`(R_n,)`, the index's flag bits.
        positive, negative (sequences of bool arrays): :math:`(C,)`, verified in the image.
        hierarchy (Hierarchy): The classes' relation.
        join_iou (float): Give boxes that are one object by this IoU each other's labels, see
            :func:`join_labels`; by default a box has its own.

    Returns:
        BatchTruth: NumPy arrays.
    """
    N, G, C = len(bbox), max(1, max(map(len, bbox))), hierarchy.n_class
    truth = BatchTruth(
        np.zeros((N, G, 4), np.float32),
        np.zeros((N, G), bool),
        np.zeros((N, G), bool),
        np.zeros((N, G, C), bool),
        np.zeros((N, G, C), bool),
        np.zeros((N, C), bool),
    )
    for n, b in enumerate(bbox):
        R = len(b)
        truth.bbox[n, :R] = b
        truth.valid[n, :R] = True
        truth.group_of[n, :R] = (flags[n] & GROUP_OF) > 0
        truth.label[n, :R] = (
            label[n]
            if join_iou is None
            else join_labels(b, label[n], truth.group_of[n, :R], join_iou)
        )
    closure = hierarchy.closure
    truth.expanded[:] = related(truth.label, closure)
    truth.verified[:] = related(np.stack(positive), closure)
    truth.verified[:] |= related(np.stack(negative), closure.T)
    return truth


def join_labels(
    bbox: np.ndarray, label: np.ndarray, group_of: np.ndarray, iou_thresh: float
) -> np.ndarray:
    """Give all boxes of an object the labels of each.

    Annotators may have drawn an object once as Torch and once as Flashlight. Boxes with an IoU of
    at least ``iou_thresh``, and those joined by a chain of such boxes, are one object: the grouping
    that concurrent rates are counted by (:mod:`pfdet.openimages.concurrent_rates`), so group-of
    boxes stay as they are. Boxes are not merged, only their label sets.

    Args:
        bbox (array): Of one image, :math:`(R, 4)`.
        label (bool array): :math:`(R, C)`.
        group_of (bool array): :math:`(R,)`.
        iou_thresh (float): In (0, 1].

    Returns:
        bool array: :math:`(R, C)`.

    Raises:
        ValueError: ``iou_thresh`` is out of range.
    """
    if not 0 < iou_thresh <= 1:
        raise ValueError(f'join_iou {iou_thresh}: expected more than 0 and at most 1')
    bbox = np.asarray(bbox, np.float64)
    near = (pairwise_iou(bbox, bbox) >= iou_thresh) & ~(group_of[:, None] | group_of)
    np.fill_diagonal(near, True)
    several = np.flatnonzero(near.sum(axis=1) > 1)
    label = label.copy()
    if len(several) == 0:
        return label
    joined, before = near[np.ix_(several, several)].astype(np.float32), 0
    # Each turn doubles the length of the chains.
    while joined.sum() > before:
        before = joined.sum()
        joined = (joined @ joined > 0).astype(np.float32)
    label[several] = related(joined > 0, label[several])
    return label


def only_objects_of(truth: BatchTruth, classes) -> BatchTruth:
    """Take the objects of other classes for background.

    Args:
        truth (BatchTruth): Of the batch.
        classes (int array): Class ids; an object of a descendant is one of theirs.

    Returns:
        BatchTruth: With as many places, of which those of other objects fill up.
    """
    kept = truth.expanded[:, :, classes].any(axis=2)
    return truth._replace(
        bbox=truth.bbox * kept[:, :, None],
        valid=truth.valid & kept,
        group_of=truth.group_of & kept,
        label=truth.label & kept[:, :, None],
        expanded=truth.expanded & kept[:, :, None],
    )


def related(label, relation):
    """The classes related to any class of a label set, on NumPy and CuPy arrays.

    This is the product ``label @ relation`` of boolean matrices; label sets are small, so on the
    CPU all but a few rows of ``relation`` are left out.

    Args:
        label (bool array): Label sets, :math:`(..., C)`.
        relation (bool array): ``relation[i, j]``: ``j`` is related to ``i``, :math:`(C, D)`.

    Returns:
        bool array: :math:`(..., D)`.
    """
    xp = cuda.get_array_module(label)
    sets = label.reshape(-1, label.shape[-1])
    # To know which are present, the host would wait for the GPU, which has them all multiplied by
    # then.
    present = np.flatnonzero(sets.any(axis=0)) if xp is np else slice(None)
    rows = xp.asarray(relation)[present]
    # There is no fast product of booleans.
    found = sets[:, present].astype(np.float32) @ rows.astype(np.float32) > 0
    return found.reshape(*label.shape[:-1], rows.shape[1])
