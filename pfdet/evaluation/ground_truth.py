"""What detections are scored against: boxes and verified classes, expanded over the hierarchy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pfdet.openimages.classes import Classes
from pfdet.openimages.csv_columns import Paths
from pfdet.openimages.hierarchy import Hierarchy, flat_hierarchy
from pfdet.openimages.tables import GROUP_OF, read_boxes, read_image_labels, union_of_ids

if TYPE_CHECKING:
    from pfdet.openimages.index import AnnotationIndex


@dataclass
class GroundTruth:
    """Annotations of a set of images, as the challenge's metric takes them.

    Attributes:
        image_ids (sequence of str): The :math:`I` images, each once.
        image (int32, :math:`(G,)`): Index into ``image_ids`` of each box.
        label (int32, :math:`(G,)`): Class of each box. An object of several classes, its
            ancestors among them, is one box per class.
        bbox (float32, :math:`(G, 4)`): ``(y_min, x_min, y_max, x_max)`` in [0, 1].
        group_of (bool, :math:`(G,)`): Whether a box surrounds a group of objects.
        verified (bool, :math:`(I, C)`): Whether an image has a label of a class at image
            level, positive or negative. Detections of other classes are not judged, unless
            there is a box of the class.
    """

    image_ids: Sequence[str]
    image: np.ndarray
    label: np.ndarray
    bbox: np.ndarray
    group_of: np.ndarray
    verified: np.ndarray


def read_ground_truth(
    boxes: Paths, labels: Paths, classes: Classes, hierarchy: Hierarchy | None = None
) -> GroundTruth:
    """Read the ground truth of a split from its two annotation files.

    With a hierarchy, rows are first repeated as the challenge's expansion script does: a box
    for every ancestor of its class, a positive image label for every ancestor, a negative one
    for every descendant. Boxes are not made unique afterwards: an object annotated both as
    an Apple and, by a second row, as a Fruit is two boxes of Fruit, as officially.

    Boxes are clipped to the image, and those without area left out, which the official
    evaluator keeps as objects that nothing can find; Open Images has none.

    Args:
        boxes (path or sequence of paths): Box annotations, CSV.
        labels (path or sequence of paths): Image-level labels verified by people, CSV.
        classes (Classes): Rows of other classes are left out.
        hierarchy (Hierarchy): :obj:`None` if the files are expanded already.

    Returns:
        GroundTruth: All images that occur in either file, sorted by id.

    Raises:
        InputError: If a file cannot be used; see :func:`~pfdet.openimages.tables.read_boxes`.
    """
    box_table = read_boxes(boxes, classes)
    label_table = read_image_labels(labels, classes)
    image_ids, (box_place, label_place) = union_of_ids([box_table, label_table])
    if hierarchy is None:
        hierarchy = flat_hierarchy(len(classes))
    return _expand(
        image_ids,
        box_place[box_table.image],
        box_table.label,
        box_table.bbox,
        box_table.flags & GROUP_OF != 0,
        label_place[label_table.image],
        label_table.label,
        label_table.positive,
        hierarchy,
    )


def ground_truth_of_index(index: 'AnnotationIndex') -> GroundTruth:
    """Expand the annotations of an index with its hierarchy, as :func:`read_ground_truth` does.

    A box of several classes in the index becomes a box for each of them and, again, for each
    of their ancestors, which is what the rows it was made of become.

    Args:
        index (AnnotationIndex): Compiled annotations.

    Returns:
        GroundTruth: The images in the order of the index.
    """
    columns = index.columns
    n_label = np.diff(columns['label_offsets'])
    box = np.repeat(np.arange(len(n_label)), n_label)
    image = np.repeat(np.arange(len(index)), np.diff(columns['object_offsets']))[box]
    verified_image, verified_label, positive = [], [], []
    for name, value in (('positive', True), ('negative', False)):
        label = columns[name]
        verified_image.append(np.repeat(np.arange(len(index)), np.diff(columns[f'{name}_offsets'])))
        verified_label.append(label)
        positive.append(np.full(len(label), value))
    return _expand(
        [index.image_id(i) for i in range(len(index))],
        image,
        columns['label'],
        columns['bbox'][box],
        columns['flags'][box] & GROUP_OF != 0,
        np.concatenate(verified_image),
        np.concatenate(verified_label),
        np.concatenate(positive),
        index.hierarchy,
    )


def _expand(
    image_ids: Sequence[str],
    image: np.ndarray,
    label: np.ndarray,
    bbox: np.ndarray,
    group_of: np.ndarray,
    label_image: np.ndarray,
    label_label: np.ndarray,
    positive: np.ndarray,
    hierarchy: Hierarchy,
) -> GroundTruth:
    row, expanded = _repeat_for_related(label, hierarchy.closure)
    verified = np.zeros((len(image_ids), hierarchy.n_class), bool)
    for value, related in ((True, hierarchy.closure), (False, hierarchy.closure.T)):
        chosen = np.flatnonzero(positive == value)
        label_row, label_expanded = _repeat_for_related(label_label[chosen], related)
        verified[label_image[chosen[label_row]], label_expanded] = True
    return GroundTruth(
        image_ids=list(image_ids),
        image=image[row].astype(np.int32),
        label=expanded.astype(np.int32),
        bbox=bbox[row].astype(np.float32),
        group_of=group_of[row].astype(bool),
        verified=verified,
    )


def _repeat_for_related(label: np.ndarray, related: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Each row once per class related to its label: the row's index and that class.
    n_related = related.sum(axis=1)
    of_class = np.nonzero(related)[1]
    start = np.cumsum(n_related) - n_related
    n = n_related[label]
    row = np.repeat(np.arange(len(label)), n)
    within = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
    return row, of_class[start[label[row]] + within]
