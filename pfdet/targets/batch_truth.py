"""The ground truth of a batch of images as arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from chainer.backends import cuda

from pfdet.boxes.arrays import Array
from pfdet.boxes.iou import pairwise_iou
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.hierarchy import Hierarchy


class BatchTruth(NamedTuple):
    """Objects of :math:`N` images, at most :math:`G` per image.

    Attributes:
        bbox (float32 array): Boxes :math:`(N, G, 4)` in pixels of the batch.
        valid (bool array): Whether an entry is an object, :math:`(N, G)`. The other entries are
            padding and have no labels.
        group_of (bool array): Whether a box is a group-of box, :math:`(N, G)`.
        label (bool array): The label sets as annotated, :math:`(N, G, C)`.
        expanded (bool array): The label sets with all ancestors, :math:`(N, G, C)`.
        verified (bool array): Whether annotators verified the class as present or absent,
            :math:`(N, C)`. Positive labels also verify ancestors, negative labels descendants.
        absent (bool array): Whether annotators verified the class, or an ancestor of it, as absent,
            :math:`(N, C)`.
    """

    bbox: Array
    valid: Array
    group_of: Array
    label: Array
    expanded: Array
    verified: Array
    absent: Array


def collate(
    bbox: Sequence[np.ndarray],
    label: Sequence[np.ndarray],
    flags: Sequence[np.ndarray],
    positive: Sequence[np.ndarray],
    negative: Sequence[np.ndarray],
    hierarchy: Hierarchy,
    join_iou: float | None = None,
) -> BatchTruth:
    """Collate the annotations of several images.

    Args:
        bbox (sequence of arrays): Boxes of each image, :math:`(R_n, 4)` in pixels.
        label (sequence of bool arrays): Label sets as annotated, :math:`(R_n, C)`.
        flags (sequence of uint8 arrays): Flag bits of the index, :math:`(R_n,)`, see
            :mod:`pfdet.openimages.box_flags`.
        positive, negative (sequences of bool arrays): Classes verified as present and as absent
            in each image, :math:`(C,)`.
        hierarchy (Hierarchy): The class hierarchy.
        join_iou (float): IoU from which boxes of an image share their labels, see
            :func:`join_labels`. By default each box keeps its own labels.

    Returns:
        BatchTruth: NumPy arrays.

    Raises:
        ValueError: ``join_iou`` is out of range.
    """
    N, G, C = len(bbox), max(1, max(map(len, bbox))), hierarchy.n_class
    truth = BatchTruth(
        np.zeros((N, G, 4), np.float32),
        np.zeros((N, G), bool),
        np.zeros((N, G), bool),
        np.zeros((N, G, C), bool),
        np.zeros((N, G, C), bool),
        np.zeros((N, C), bool),
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
    truth.absent[:] = related(np.stack(negative), closure.T)
    truth.verified[:] = related(np.stack(positive), closure) | truth.absent
    return truth


def join_labels(
    bbox: np.ndarray, label: np.ndarray, group_of: np.ndarray, iou_thresh: float
) -> np.ndarray:
    """Merge the label sets of boxes that surround the same object.

    An object may be annotated once as Torch and once as Flashlight. Boxes with an IoU of at least
    ``iou_thresh`` are the same object, also when a chain of such boxes links them. Concurrent
    rates are counted with the same grouping (:mod:`pfdet.openimages.concurrent_rates`). Group-of
    boxes are not grouped. The boxes themselves stay as they are.

    Args:
        bbox (array): Boxes of one image, :math:`(R, 4)`.
        label (bool array): Label sets :math:`(R, C)`.
        group_of (bool array): Whether a box is a group-of box, :math:`(R,)`.
        iou_thresh (float): IoU in (0, 1].

    Returns:
        bool array: Label sets :math:`(R, C)`.

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
    # Each iteration doubles the length of the chains.
    while joined.sum() > before:
        before = joined.sum()
        joined = (joined @ joined > 0).astype(np.float32)
    label[several] = related(joined > 0, label[several])
    return label


def only_objects_of(truth: BatchTruth, classes: Array) -> BatchTruth:
    """Treat the objects of other classes as background.

    Args:
        truth (BatchTruth): Ground truth of the batch.
        classes (int array): Ids of the classes to keep. Objects of their descendants are kept too.

    Returns:
        BatchTruth: Arrays of the same shapes. The entries of other objects become padding.
    """
    kept = truth.expanded[:, :, classes].any(axis=2)
    return truth._replace(
        bbox=truth.bbox * kept[:, :, None],
        valid=truth.valid & kept,
        group_of=truth.group_of & kept,
        label=truth.label & kept[:, :, None],
        expanded=truth.expanded & kept[:, :, None],
    )


def related(label: Array, relation: Array) -> Array:
    """Find the classes related to any class of a label set, in NumPy or CuPy arrays.

    This is the product ``label @ relation`` of boolean matrices. Label sets are small, so the CPU
    uses only the rows of ``relation`` whose class occurs.

    Args:
        label (bool array): Label sets :math:`(..., C)`.
        relation (bool array): ``relation[i, j]`` is true if ``j`` is related to ``i``,
            :math:`(C, D)`.

    Returns:
        bool array: Label sets :math:`(..., D)`.
    """
    xp = cuda.get_array_module(label)
    sets = label.reshape(-1, label.shape[-1])
    # The GPU multiplies all rows: finding those that occur would make the host wait for it.
    present = np.flatnonzero(sets.any(axis=0)) if xp is np else slice(None)
    rows = xp.asarray(relation)[present]
    # Products of boolean matrices are slow.
    found = sets[:, present].astype(np.float32) @ rows.astype(np.float32) > 0
    return found.reshape(*label.shape[:-1], rows.shape[1])
