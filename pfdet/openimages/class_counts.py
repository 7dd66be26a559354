"""Counts per class of an annotation index: images, boxes, verified images, parent classes."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from pfdet.openimages.concurrent_rates import (
    expand,
)
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.tables import GROUP_OF


@dataclass(frozen=True)
class ClassCounts:
    """Counts per class, all int64 ``(C,)``.

    Attributes:
        images (array): Images with a box of the class, as annotated.
        images_expanded (array): The same after expansion to all ancestors.
        boxes (array): Boxes of the class, as annotated. Equal boxes of an image with the same
            group-of flag are counted once.
        boxes_group_of (array): Group-of boxes among these.
        positive (array): Images in which the class is verified as present or has a box.
        negative (array): Images in which the class is verified as absent.
    """

    images: np.ndarray
    images_expanded: np.ndarray
    boxes: np.ndarray
    boxes_group_of: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


@dataclass(frozen=True)
class ParentCounts:
    """Counts of objects without more specific labels (Figure 3b), all int64 ``(C,)``.

    An object is a group of boxes, as in :mod:`pfdet.openimages.concurrent_rates`.

    Attributes:
        objects (array): Objects labelled with the class or a descendant of it.
        without_descendant (array): Objects among these without a label of a descendant.
        without_leaf (array): Objects among these without a label of a leaf below the class. This
            is at least ``without_descendant``.
    """

    objects: np.ndarray
    without_descendant: np.ndarray
    without_leaf: np.ndarray


@dataclass(frozen=True)
class Imbalance:
    """The imbalance magnitude (Figure 2).

    Attributes:
        largest (int): The class with the most images.
        smallest (int): The class with the fewest images, among the classes with images.
        magnitude (float): Number of images of the largest class divided by that of the smallest.
            NaN without images.
        n_empty (int): Number of classes without images.
    """

    largest: int
    smallest: int
    magnitude: float
    n_empty: int


def count_classes(index: AnnotationIndex) -> ClassCounts:
    """Count images, boxes and verified images per class.

    Args:
        index (AnnotationIndex): The annotations.
    """
    n_class = len(index.classes)
    columns = index.columns
    offsets, ids = index.image_classes()
    n_label = np.diff(columns['label_offsets'])
    is_group_of = np.repeat((columns['flags'] & GROUP_OF) != 0, n_label)

    def per_class(classes: np.ndarray) -> np.ndarray:
        return np.bincount(classes, minlength=n_class)

    expanded = np.zeros(n_class, np.int64)
    block = 250_000
    for first in range(0, len(index), block):
        bounds = offsets[first : first + block + 1]
        expanded += per_class(
            expand(
                sp.csr_array(
                    (
                        np.ones(bounds[-1] - bounds[0], np.int32),
                        ids[bounds[0] : bounds[-1]],
                        bounds - bounds[0],
                    ),
                    (len(bounds) - 1, n_class),
                ),
                index.hierarchy,
            ).indices
        )
    return ClassCounts(
        per_class(ids),
        expanded,
        per_class(columns['label']),
        per_class(columns['label'][is_group_of]),
        per_class(columns['positive']),
        per_class(columns['negative']),
    )


def imbalance(images: np.ndarray) -> Imbalance:
    """Compute the imbalance magnitude.

    Args:
        images (array): Integers ``(C,)``, images per class.
    """
    nonempty = np.flatnonzero(images)[::-1]
    if not len(nonempty):
        return Imbalance(0, 0, float('nan'), len(images))
    # Of equally rare classes the last one, which is also the last one in the plot.
    largest, smallest = int(images.argmax()), int(nonempty[images[nonempty].argmin()])
    return Imbalance(
        largest, smallest, float(images[largest] / images[smallest]), len(images) - len(nonempty)
    )


def add_parents(sets: sp.csr_array, hierarchy: Hierarchy, parents: ParentCounts) -> None:
    """Add a block of objects to the counts of parents, in place.

    Args:
        sets (scipy.sparse.csr_array): From
            :func:`~pfdet.openimages.concurrent_rates.label_sets`.
        hierarchy (Hierarchy): Hierarchy of the same classes.
        parents (ParentCounts): Modified. The entries of leaf classes have no meaning.
    """
    n_class = hierarchy.n_class
    leaf_below = hierarchy.ancestors & hierarchy.is_leaf[:, None]

    def count_related(relation: np.ndarray) -> np.ndarray:
        related = (sets @ sp.csr_array(relation.astype(np.int32))).tocsr()
        return np.bincount(related.indices, minlength=n_class)

    objects = count_related(hierarchy.closure)
    parents.objects[:] += objects
    parents.without_descendant[:] += objects - count_related(hierarchy.ancestors)
    parents.without_leaf[:] += objects - count_related(leaf_below)
