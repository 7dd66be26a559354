"""Ground truth of the metric: boxes and verified classes, expanded over the hierarchy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pfdet.openimages.annotation_files import AnnotationTables, ReadOptions, read_annotations
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.classes import Classes
from pfdet.openimages.csv_columns import Paths
from pfdet.openimages.hierarchy import Hierarchy, flat_hierarchy

if TYPE_CHECKING:
    from pfdet.openimages.index import AnnotationIndex


@dataclass
class GroundTruth:
    """Annotations of a set of images for the metric of the challenge.

    Attributes:
        image_ids (sequence of str): The :math:`I` images, each once.
        image (int32, :math:`(G,)`): Index into ``image_ids`` of each box.
        label (int32, :math:`(G,)`): Class of each box. An object has one box for each of its
            classes, including ancestors.
        bbox (float32, :math:`(G, 4)`): ``(y_min, x_min, y_max, x_max)`` in [0, 1].
        group_of (bool, :math:`(G,)`): Whether the box surrounds a group of objects.
        verified (bool, :math:`(I, C)`): Whether the image has an image-level label of the class,
            positive or negative. Detections of a class that is not verified and has no box in the
            image are ignored.
    """

    image_ids: Sequence[str]
    image: np.ndarray
    label: np.ndarray
    bbox: np.ndarray
    group_of: np.ndarray
    verified: np.ndarray


def read_ground_truth(
    boxes: Paths,
    labels: Paths | None,
    classes: Classes,
    hierarchy: Hierarchy | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008
) -> GroundTruth:
    """Read the ground truth of a split from its annotation files.

    With a hierarchy, rows are expanded as by the challenge's script. A box is repeated for each
    ancestor of its class, a positive image-level label for each ancestor, and a negative one for
    each descendant. Duplicates are kept, as in the challenge: an object annotated as Apple and, in
    a second row, as Fruit yields two boxes of Fruit.

    Files that are expanded already are not expanded twice: see
    :mod:`pfdet.openimages.expanded_boxes`.

    Boxes are clipped to the image. Boxes without area are skipped, whereas the official evaluator
    keeps them as objects that cannot be detected. Open Images has none.

    Args:
        boxes (path or sequence of paths): CSV files of box annotations.
        labels (path or sequence of paths): CSV files of human-verified image-level labels. Without
            them, only the classes with a box are verified.
        classes (Classes): The classes. Rows of other classes are skipped.
        hierarchy (Hierarchy): Class hierarchy. Without it, the files are taken as they are.
        options (ReadOptions): Which images and labels are used.

    Returns:
        GroundTruth: All images that occur in either file, sorted by id.

    Raises:
        InputError: A file cannot be used; see :func:`~pfdet.openimages.tables.read_boxes`.
    """
    tables = read_annotations(boxes, labels, classes, hierarchy, options)
    return ground_truth_of_tables(tables, hierarchy or flat_hierarchy(len(classes)))


def ground_truth_of_tables(tables: AnnotationTables, hierarchy: Hierarchy) -> GroundTruth:
    """Expand the rows of annotation files, as :func:`read_ground_truth` does.

    Args:
        tables (AnnotationTables): The rows.
        hierarchy (Hierarchy): Class hierarchy.

    Returns:
        GroundTruth: All images of the tables.
    """
    return _expand(
        tables.ids.to_pylist(),
        tables.boxes.image,
        tables.boxes.label,
        tables.boxes.bbox,
        tables.boxes.flags & GROUP_OF != 0,
        tables.labels.image,
        tables.labels.label,
        tables.labels.positive,
        hierarchy,
    )


def ground_truth_of_index(index: 'AnnotationIndex') -> GroundTruth:
    """Read the ground truth from an index and expand it as :func:`read_ground_truth` does.

    A box with several classes in the index is repeated for each class and each of its ancestors,
    as the rows that it was compiled from would be, and rows that were repeated are repeated. So a
    table that has a file for every image gives the same scores by its files and by its index.

    Args:
        index (AnnotationIndex): Compiled annotations.

    Returns:
        GroundTruth: All images, in the order of the index.
    """
    columns = index.columns
    n_label = np.diff(columns['label_offsets'])
    box = np.repeat(np.arange(len(n_label)), n_label)
    image = np.repeat(np.arange(len(index)), np.diff(columns['object_offsets']))[box]
    row = np.arange(len(box))
    if 'order' in columns:
        row = np.lexsort((columns['order'], image))
    if 'n_row' in columns:
        row = np.repeat(row, columns['n_row'][row])
    box, image = box[row], image[row]
    verified_image, verified_label, positive = [], [], []
    for name, value in (('positive', True), ('negative', False), ('contradictory', False)):
        if name not in columns:
            continue
        label = columns[name]
        verified_image.append(np.repeat(np.arange(len(index)), np.diff(columns[f'{name}_offsets'])))
        verified_label.append(label)
        positive.append(np.full(len(label), value))
    return _expand(
        [index.image_id(i) for i in range(len(index))],
        image,
        columns['label'][row],
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
    # Repeats each row for every class related to its label. Returns row indices and classes.
    n_related = related.sum(axis=1)
    of_class = np.nonzero(related)[1]
    start = np.cumsum(n_related) - n_related
    n = n_related[label]
    row = np.repeat(np.arange(len(label)), n)
    within = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
    return row, of_class[start[label[row]] + within]
