"""Choose a small train and validation split: ``python -m pfdet.openimages.split``.

Section 5.1 of Peng et al. (2020): "115K training images and 5K validation images named as
mini-train and mini-val. All the images are sampled from Open Images challenge 2019 dataset with the
ratio of each category unchanged." The paper states neither the sampling method nor whether mini-val
is from the training or the validation images. Here both parts are from the same index and disjoint,
unless ``--val-index`` gives an index of the validation images.

An image belongs to every class that it has a box of, as annotated. Images without a box are a class
of their own. The share of a class is its number of images at an unchanged ratio. With a share of
5.4, 5 images are chosen. With a share below 1, one image is chosen (``--at-least``), because a
class without images can be neither learned nor scored.

The algorithm goes through the classes from rare to frequent and chooses images that have no rarer
class until the share is reached. Then it exchanges pairs of images as long as this reduces the sum
over classes of the squared relative deviation. Images are considered in the order of a hash of
their position and ``--seed``; nothing else is random.

With ``--ids``, nothing is chosen: the listed images are the validation images, and all others the
training images. So the official validation set of the challenge of 2018 is cut from an index of the
training table.

It writes ``DIR/train.index``, ``DIR/validation.index``, and ``DIR/split.csv`` with one line per
class.
"""

import argparse
import csv
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError, run_command
from pfdet.files.locks import output_lock
from pfdet.flags import MANY, SEED, Parser, integer, path_text
from pfdet.openimages.arrow_arrays import from_strings
from pfdet.openimages.classes import Classes
from pfdet.openimages.csv_columns import Paths, as_paths
from pfdet.openimages.image_ids import contains, read_image_ids
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.shared_images import describe_shared_images
from pfdet.openimages.stratify import column_sums, stratify
from pfdet.openimages.subset import subset
from pfdet.printable import printable

TRAIN, VAL = 115_000, 5_000


@dataclass(frozen=True)
class Part:
    """The images chosen for one part of a split, and their numbers per class.

    Attributes:
        images (array): int64 ``(n,)``, ascending positions in the index.
        source (array): int64 ``(C,)``, number of images of each class in the index.
        count (array): int64 ``(C,)``, number of chosen images of each class.
        share (array): float64 ``(C,)``, number of images of each class at an unchanged ratio.
        target (array): float64 ``(C,)``, ``share``, but no less than the minimum per class.
    """

    images: np.ndarray
    source: np.ndarray
    count: np.ndarray
    share: np.ndarray
    target: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """float64 ``(C,)``: ``count / share - 1``, 0 for classes without images in the index."""
        return np.where(self.share > 0, self.count / np.where(self.share > 0, self.share, 1), 1) - 1


def choose_split(
    index: AnnotationIndex,
    n_train: int = TRAIN,
    n_val: int = VAL,
    val_index: AnnotationIndex | None = None,
    at_least: int = 1,
    seed: int = 0,
) -> tuple[Part, Part]:
    """Choose images such that the ratio of each class is unchanged.

    Args:
        index (AnnotationIndex): Source of the training images.
        n_train (int): Number of training images.
        n_val (int): Number of validation images.
        val_index (AnnotationIndex): Source of the validation images. By default ``index``, without
            the training images.
        at_least (int): Minimum number of images of each class in each part, if its source has
            enough. If both parts have the same source and it has no more than this of a class, they
            are all training images. 0 for no minimum.
        seed (int): Seed of the order in which images are considered.

    Returns:
        tuple of Part: Training and validation.

    Raises:
        InputError: If an index has too few images.
    """
    _check_size(index, n_train if val_index else n_train + n_val)
    member = _membership(index)
    if val_index is not None:
        _check_size(val_index, n_val)
        other = _membership(val_index)
        return (
            _part(member, stratify(member, n_train, at_least, seed), at_least),
            _part(other, stratify(other, n_val, at_least, seed), at_least),
        )
    n_image = len(index)
    total = column_sums(member)
    free = np.ones(n_image, bool)
    # The smaller part is chosen first. Its deviations are small, and so are those of the rest.
    order = ('val', 'train') if n_val <= n_train else ('train', 'val')
    sizes = {'train': n_train, 'val': n_val}
    chosen = {}
    for name in order:
        allowed = free
        if name == 'val' and 'train' not in chosen:
            rare = np.flatnonzero(total[:-1] <= at_least)
            reserved = np.unique(member[:, rare].tocoo().row)
            if n_image - len(reserved) >= n_val:
                allowed = free.copy()
                allowed[reserved] = False
        candidates = np.flatnonzero(allowed)
        share = total * (sizes[name] / n_image)
        picked = candidates[stratify(member[candidates], sizes[name], at_least, seed, share)]
        chosen[name] = np.sort(picked)
        free[picked] = False
    return _part(member, chosen['train'], at_least), _part(member, chosen['val'], at_least)


def listed_split(index: AnnotationIndex, ids: Paths) -> tuple[Part, Part, int]:
    """Split an index by lists of the validation images.

    Args:
        index (AnnotationIndex): All images.
        ids (path or paths): Lists of image ids, see
            :func:`~pfdet.openimages.image_ids.read_image_ids`.

    Returns:
        tuple: Training and validation, and the number of listed images that are not in the index.

    Raises:
        InputError: If a list cannot be read, or lists none or all of the images of the index.
    """
    listed = read_image_ids(ids)
    is_listed = contains(from_strings([index.image_id(i) for i in range(len(index))]), listed)
    if is_listed.all() or not is_listed.any():
        raise InputError(
            f'{", ".join(map(str, as_paths(ids)))}: lists {"all" if is_listed.any() else "none"} '
            f'of the images of {index.path}; expected the ids of the validation images'
        )
    member = _membership(index)
    train, val = (_part(member, np.flatnonzero(is_listed == value), 1) for value in (False, True))
    return train, val, len(listed) - int(is_listed.sum())


def _check_size(index: AnnotationIndex, n: int) -> None:
    if n > len(index):
        raise InputError(
            f'{index.path}: has {len(index):,} images; expected at least {n:,}, as requested'
        )


def _membership(index: AnnotationIndex) -> sp.csr_array:
    """float64 ``(N, C + 1)``: 1 if an image has a box of the class; last column: without boxes."""
    offsets, ids = index.image_classes()
    n_class = len(index.classes)
    n_id = np.diff(offsets)
    image = np.repeat(np.arange(len(index)), n_id)
    empty = np.flatnonzero(n_id == 0)
    return sp.coo_array(
        (
            np.ones(len(ids) + len(empty)),
            (np.concatenate([image, empty]), np.concatenate([ids, np.full(len(empty), n_class)])),
        ),
        (len(index), n_class + 1),
    ).tocsr()


def _part(member: sp.csr_array, images: np.ndarray, at_least: int) -> Part:
    source = column_sums(member)[:-1]
    share = source * (len(images) / max(member.shape[0], 1))
    return Part(
        images,
        source,
        column_sums(member[images])[:-1],
        share,
        np.maximum(share, np.minimum(at_least, source)),
    )


def describe(name: str, part: Part, classes: Classes) -> list[str]:
    """Return the lines that the command prints about one part.

    Args:
        name (str): Name of the part.
        part (Part): From :func:`choose_split`.
        classes (Classes): The classes.

    Returns:
        list of str: Lines without line ends.
    """
    n_nearest = int((np.abs(part.count - part.target) <= 0.5).sum())
    lines = [
        f'{name}: {len(part.images):,} images; {n_nearest} of {len(classes)} classes have the '
        'number of images nearest to their share, or the minimum'
    ]
    for low, high, what in (
        (10, np.inf, 'of 10 images or more'),
        (1, 10, 'of 1 to 10'),
        (0, 1, 'below 1'),
    ):
        ids = np.flatnonzero((part.share >= low) & (part.share < high) & (part.source > 0))
        if len(ids):
            worst = ids[np.abs(part.deviation[ids]).argmax()]
            name_of_worst = printable(classes.names[worst])
            lines.append(
                f'  {len(ids)} classes with a share {what}: largest relative deviation '
                f'{part.deviation[worst]:+.2%} ({name_of_worst}: {part.count[worst]:,} '
                f'for a share of {part.share[worst]:,.2f}), largest deviation '
                f'{np.abs(part.count - part.share)[ids].max():.2f} images'
            )
    n_missing = int(((part.count == 0) & (part.source > 0)).sum())
    return [
        *lines,
        f'  classes without a chosen image: {n_missing} that have images in the index, '
        f'{int((part.source == 0).sum())} that have none',
    ]


def write_table(path: str | os.PathLike, parts: Mapping[str, Part], classes: Classes) -> None:
    """Write the numbers of images per class and part as CSV.

    Args:
        path (path): The file. It appears when it is complete.
        parts (mapping): From the prefix of the part's columns to the :class:`Part`.
        classes (Classes): The classes.

    Raises:
        OSError: If the file cannot be written.
    """
    with (
        replace_when_done(path) as unfinished,
        open(unfinished, 'w', newline='', encoding='utf-8') as f,
    ):
        writer = csv.writer(f, lineterminator='\n')
        writer.writerow(
            [
                'LabelName',
                'DisplayName',
                *(
                    name + what
                    for name in parts
                    for what in ('Source', 'Share', 'Images', 'Deviation')
                ),
            ]
        )
        for i, (mid, name) in enumerate(zip(classes.mids, classes.names)):
            writer.writerow(
                [
                    mid,
                    name,
                    *(
                        value
                        for part in parts.values()
                        for value in (
                            part.source[i],
                            f'{part.share[i]:.3f}',
                            part.count[i],
                            f'{part.deviation[i]:.6f}',
                        )
                    ),
                ]
            )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description='Choose a small train and validation split that keeps the ratio of each class.'
        '\n\n    pfdet split --index train.index --train 115000 --val 5000 --out parts',
    )
    parser.add_argument(
        '--index', required=True, type=path_text, metavar='INDEX', help='an annotation index'
    )
    parser.add_argument(
        '--val-index',
        type=path_text,
        metavar='INDEX',
        help='source of the validation images '
        '(default: --index without the chosen training images)',
    )
    parser.add_argument(
        '--ids',
        nargs='+',
        type=path_text,
        metavar='CSV',
        help='lists of the validation images, with a column ImageID or an id per line; all other '
        'images are training images',
    )
    parser.add_argument(
        '--train', type=integer(1, MANY), metavar='N', help=f'training images (default: {TRAIN})'
    )
    parser.add_argument(
        '--val', type=integer(1, MANY), metavar='N', help=f'validation images (default: {VAL})'
    )
    parser.add_argument(
        '--out',
        required=True,
        type=path_text,
        metavar='DIR',
        help='directory for train.index, validation.index and split.csv',
    )
    parser.add_argument(
        '--at-least',
        type=integer(0, MANY),
        default=1,
        metavar='N',
        help='minimum number of images of each class in each part, if there are enough '
        '(%(default)s)',
    )
    parser.add_argument(
        '--seed', type=SEED, default=0, help='seed of the choice of images (%(default)s)'
    )
    args = parser.parse_args(argv)
    if args.ids and (args.val_index or args.train is not None or args.val is not None):
        raise InputError('--ids: takes all images; expected no --val-index, --train or --val')
    args.train = TRAIN if args.train is None else args.train
    args.val = VAL if args.val is None else args.val
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see ``--help``.

    Raises:
        InputError: If an argument or an input is invalid.
    """
    args = _parse(argv)
    index = AnnotationIndex.open(args.index)
    val_index = AnnotationIndex.open(args.val_index) if args.val_index else None
    if val_index is not None and val_index.classes != index.classes:
        raise InputError(
            f'{args.val_index}: its classes differ from those of {args.index}; expected '
            'two indexes built with the same class descriptions'
        )
    if val_index is not None and (shared := describe_shared_images(index, val_index)):
        print(f'warning: {shared}', file=sys.stderr)
    if args.ids:
        *chosen, n_missing = listed_split(index, args.ids)
        if n_missing:
            print(f'listed images that are not in {index.path}: {n_missing:,}', file=sys.stderr)
    else:
        chosen = choose_split(index, args.train, args.val, val_index, args.at_least, args.seed)
    parts = dict(zip(('Train', 'Validation'), chosen))
    out = Path(args.out)
    try:
        with output_lock(out, is_directory=True):
            subset(index, parts['Train'].images, out / 'train.index')
            subset(val_index or index, parts['Validation'].images, out / 'validation.index')
            write_table(out / 'split.csv', parts, index.classes)
    except OSError as e:
        raise InputError(f'--out {args.out}: cannot write there: {e.strerror or e}') from e
    for name, part in parts.items():
        for line in describe(name.lower(), part, index.classes):
            print(line)
    print(f'{out}: train.index, validation.index, split.csv')


if __name__ == '__main__':
    run_command(main)
