"""Mean AP over the groups of classes that the papers report.

- PFDet, Table 4: ranks 11 to 100, 101 to 250 and 251 to 350 of the classes by number of training
  images, rarest first.
- PFDet, Table 3: the 47 classes that are parts or possessions of other classes.
- Peng et al. (2020), figure 5: the 100 classes with the most training images and the 100 with the
  fewest.
- Leaves and parents of the hierarchy.
"""

import csv
import io
import os
from collections.abc import Mapping

import numpy as np

from pfdet.errors import InputError
from pfdet.files.regular import read_bytes
from pfdet.openimages.classes import Classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex

# Of a list of classes with counts.
_MAX_SIZE = 1 << 26
#: First and last rank out of 500. Rank 1 is the class with the fewest training images.
RANKS = {
    'rank 11-100': (11, 100),
    'rank 101-250': (101, 250),
    'rank 251-350': (251, 350),
    'least frequent 100': (1, 100),
    'most frequent 100': (401, 500),
}
#: Number of classes that the papers rank: all classes of the challenge.
N_RANKED = 500


def class_groups(
    classes: Classes, images: np.ndarray | None = None, hierarchy: Hierarchy | None = None
) -> dict[str, np.ndarray]:
    """Return the classes of each group.

    Args:
        classes (Classes): The :math:`C` classes.
        images (int array): Number of training images with each class, :math:`(C,)`, expanded over
            the hierarchy. If omitted, there are no groups by rank.
        hierarchy (Hierarchy): Class hierarchy. If omitted, there are no groups of leaves and
            parents.

    Returns:
        dict: From the name of a group to class ids. The names are the keys of :data:`RANKS`,
        ``'parts'``, ``'leaves'`` and ``'parents'``. Groups by rank are sorted, rarest class first.
        Empty groups are omitted.
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
    """Return the classes of a range of ranks.

    Args:
        images (int array): Number of training images with each class, :math:`(C,)`.
        first, last (int): Ranks out of 500, counted from 1. They are scaled to the number of
            classes: of 41 classes, ranks 11 to 100 are the first to the eighth.

    Returns:
        int array: Class ids, rarest first. Equally rare classes are sorted by id.
    """
    by_rarity = np.argsort(images, kind='stable')
    return by_rarity[rank_slice(first, last, len(by_rarity))]


def rank_slice(first: int, last: int, n_class: int) -> slice:
    """Scale a range of ranks to a number of classes.

    Args:
        first, last (int): Ranks out of :data:`N_RANKED`, counted from 1.
        n_class (int): Number of classes.

    Returns:
        slice: The range of positions, counted from 0, among the classes sorted by rarity.
    """
    return slice((first - 1) * n_class // N_RANKED, last * n_class // N_RANKED)


def mean_by_group(ap: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Compute the mean AP of each group over its classes with ground truth.

    Args:
        ap (array): AP of each class, :math:`(C,)`, NaN for classes without ground truth.
        groups (dict): Result of :func:`class_groups`.

    Returns:
        dict: From the name of a group to its entry in ``score.json``: ``'mAP'``, :obj:`None` if no
        class of the group has ground truth; ``'n_class'``, the number of classes with ground truth;
        ``'n_all'``, the number of all classes of the group.
    """
    means = {}
    for name, ids in groups.items():
        known = ap[ids][~np.isnan(ap[ids])]
        means[name] = {
            'mAP': float(known.mean()) if len(known) else None,
            'n_class': len(known),
            'n_all': len(ids),
        }
    return means


def read_training_images(path: str | os.PathLike, classes: Classes) -> np.ndarray:
    """Read the number of training images of each class.

    Args:
        path (path): ``classes.csv`` written by :mod:`pfdet.openimages.statistics`, or any CSV file
            with the columns ``LabelName`` and ``ImagesExpanded``.
        classes (Classes): The classes. The file may have others, too.

    Returns:
        int64 array: :math:`(C,)`.

    Raises:
        InputError: The file cannot be read, lacks a column or a class, has a class twice, or has
            an invalid number of images.
    """
    columns = ('LabelName', 'ImagesExpanded')
    counts: dict[str, int] = {}
    try:
        text = read_bytes(path, max_size=_MAX_SIZE).decode('utf-8-sig')
        with io.StringIO(text, newline='') as f:
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
                if mid in counts:
                    raise InputError(
                        f'{where}: {mid[:60]!r} for the second time; expected one row per class'
                    )
                if not (text.isascii() and text.isdecimal() and len(text) < 19):
                    raise InputError(
                        f'{where}: ImagesExpanded is {text[:60]!r}; expected a number of images'
                    )
                counts[mid] = int(text)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else e
        raise InputError(f'{path}: cannot read the class counts: {reason}') from e
    missing = [mid for mid in classes.mids if mid not in counts]
    if missing:
        raise InputError(
            f'{path}: no row for {missing[0]} and {len(missing) - 1} other classes; expected one '
            'row per class'
        )
    return np.array([counts[mid] for mid in classes.mids], np.int64)


def training_images(index: AnnotationIndex) -> dict[str, int]:
    """Count the images of each class in an index.

    Args:
        index (AnnotationIndex): The training split.

    Returns:
        dict: From MID to number of images, expanded over the hierarchy of the index.
    """
    # Imported here because SciPy, which counting needs, is slow to import.
    from pfdet.openimages.class_counts import count_classes

    return dict(zip(index.classes.mids, count_classes(index).images_expanded.tolist(), strict=True))


def training_images_of_index(path: str | os.PathLike, classes: Classes) -> np.ndarray:
    """Count the images of each class in an index file.

    Args:
        path (path): The index of the training split.
        classes (Classes): The classes. The index may have others, too.

    Returns:
        int64 array: Number of images :math:`(C,)`, expanded over the hierarchy of the index.

    Raises:
        InputError: The file is not an index or lacks a class.
    """
    index = AnnotationIndex.open(path)
    missing = [mid for mid in classes.mids if mid not in index.classes.ids]
    if missing:
        raise InputError(
            f'{path}: lacks class {missing[0]} and {len(missing) - 1} others; expected an index '
            'with all scored classes'
        )
    images = training_images(index)
    return np.array([images[mid] for mid in classes.mids], np.int64)
