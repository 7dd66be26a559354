"""Mean AP over the groups of classes that the papers look at.

- PFDet, Table 4: classes ranked by their training images, the rarest first, 11 to 100, 101 to 250
  and 251 to 350.
- PFDet, Table 3: the classes that are parts or possessions of another, 47 of them.
- *Large-Scale Object Detection in the Wild from Imbalanced Multi-Labels*, figure 5: the 100 classes
  with the most training images, and the 100 with the fewest.
- Classes without and with children in the hierarchy.
"""

import csv
import os
from collections.abc import Mapping

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex

#: First and last rank of 500, the class with the fewest training images being the first.
RANKS = {
    'rank 11-100': (11, 100),
    'rank 101-250': (101, 250),
    'rank 251-350': (251, 350),
    'least frequent 100': (1, 100),
    'most frequent 100': (401, 500),
}
#: Classes that the papers rank, all of the challenge.
N_RANKED = 500


def class_groups(
    classes: Classes, images: np.ndarray | None = None, hierarchy: Hierarchy | None = None
) -> dict[str, np.ndarray]:
    """The classes of each group.

    Args:
        classes (Classes): The label space, :math:`C` classes.
        images (int array): Training images with each class, :math:`(C,)`, expanded over the
            hierarchy. Without, there are no groups by rank.
        hierarchy (Hierarchy): Without, there are no groups of leaves and of parents.

    Returns:
        dict: From a group's name to class ids, those by rank the rarest first. The names are those
        of :data:`RANKS`, ``'parts'``, ``'leaves'`` and ``'parents'``; a group without a class is
        left out.
    """
    groups = {}
    if images is not None:
        groups.update({name: classes_of_rank(images, *ranks) for name, ranks in RANKS.items()})
    groups['parts'] = np.unique(read_pairs(classes)[1])
    if hierarchy is not None:
        groups['leaves'] = np.flatnonzero(hierarchy.is_leaf)
        groups['parents'] = np.flatnonzero(~hierarchy.is_leaf)
    return {name: ids for name, ids in groups.items() if len(ids)}


def classes_of_rank(images: np.ndarray, first: int, last: int) -> np.ndarray:
    """The classes of a range of ranks.

    Args:
        images (int array): Training images with each class, :math:`(C,)`. A class without any is
            among the rarest.
        first, last (int): Ranks of 500, from 1. Where there are more or fewer classes, the same
            share of them: of 41 classes, ranks 11 to 100 are the first to the eighth.

    Returns:
        int array: Class ids, the rarest first; of equally rare ones, by id.
    """
    rarest = np.argsort(images, kind='stable')
    return rarest[places_of_ranks(first, last, len(rarest))]


def places_of_ranks(first: int, last: int, n_class: int) -> slice:
    """Where the classes of a range of ranks of :data:`N_RANKED` are among others, sorted."""
    return slice((first - 1) * n_class // N_RANKED, last * n_class // N_RANKED)


def mean_by_group(ap: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Mean AP of each group, over its classes that have ground truth.

    Args:
        ap (array): AP by class, :math:`(C,)`, NaN where there is no ground truth; of
            :func:`~pfdet.evaluation.average_precision.average_precision`.
        groups (dict): Of :func:`class_groups`.

    Returns:
        dict: From a group's name to what ``score.json`` says of it: ``'mAP'``, :obj:`None` if none
        of its classes has ground truth; ``'n_class'``, how many have; ``'n_all'``, how many
        there are.
    """
    means = {}
    for name, ids in groups.items():
        some = ap[ids][~np.isnan(ap[ids])]
        means[name] = {
            'mAP': float(some.mean()) if len(some) else None,
            'n_class': len(some),
            'n_all': len(ids),
        }
    return means


def read_training_images(path: str | os.PathLike, classes: Classes) -> np.ndarray:
    """Read how many training images have each class.

    Args:
        path (path): ``classes.csv`` as :mod:`pfdet.openimages.statistics` writes it, or any CSV
            file with the columns ``LabelName`` and ``ImagesExpanded``.
        classes (Classes): The classes that must occur; others may.

    Returns:
        int64 array: :math:`(C,)`.

    Raises:
        InputError: The file cannot be read, lacks a column or a class, has a class twice, or has
            something else than a number of images.
    """
    columns = ('LabelName', 'ImagesExpanded')
    found = {}
    try:
        with open(path, encoding='utf-8-sig', newline='') as f:
            rows = csv.DictReader(f, strict=True)
            for column in columns:
                if column not in (rows.fieldnames or ()):
                    raise InputError(
                        f'{path}, line 1: no column {column}; expected {" and ".join(columns)}, '
                        'as pfdet.openimages.statistics writes classes.csv'
                    )
            for row in rows:
                mid, text = (row[column] or '' for column in columns)
                where = f'{path}, line {rows.line_num}'
                if mid in found:
                    raise InputError(
                        f'{where}: {mid[:60]!r} for the second time; expected a row a class'
                    )
                if not (text.isascii() and text.isdecimal() and len(text) < 19):
                    raise InputError(
                        f'{where}: ImagesExpanded is {text[:60]!r}; expected a number of images'
                    )
                found[mid] = int(text)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else e
        raise InputError(f'{path}: cannot read the counts of classes: {reason}') from e
    missing = [mid for mid in classes.mids if mid not in found]
    if missing:
        raise InputError(
            f'{path}: no row of {missing[0]} and {len(missing) - 1} other classes; expected one '
            'for each class'
        )
    return np.array([found[mid] for mid in classes.mids], np.int64)


def training_images(index: AnnotationIndex) -> dict[str, int]:
    """Training images of each class by machine id, expanded over the index's hierarchy."""
    # SciPy, which counting needs, takes a while to import.
    from pfdet.openimages.statistics import count_classes

    return dict(zip(index.classes.mids, count_classes(index).images_expanded.tolist(), strict=True))


def training_images_of_index(path: str | os.PathLike, classes: Classes) -> np.ndarray:
    """Count the images of an annotation index that have each class.

    Args:
        path (path): The index of the training split.
        classes (Classes): The classes that it must have; it may have others.

    Returns:
        int64 array: :math:`(C,)`, expanded over the index's hierarchy.

    Raises:
        InputError: The file is no index or lacks a class.
    """
    index = AnnotationIndex.open(path)
    missing = [mid for mid in classes.mids if mid not in index.classes.ids]
    if missing:
        raise InputError(
            f'{path}: does not know {missing[0]} and {len(missing) - 1} other classes; expected an '
            'index of the classes that are scored'
        )
    images = training_images(index)
    return np.array([images[mid] for mid in classes.mids], np.int64)
