"""Choose a small train and validation split: ``python -m pfdet.openimages.split``.

Section 5.1 of *Large-Scale Object Detection in the Wild from Imbalanced Multi-Labels*: "115K
training images and 5K validation images named as mini-train and mini-val. All the images are
sampled from Open Images challenge 2019 dataset with the ratio of each category unchanged." The
paper does not say how, nor whether mini-val is from the training or the validation images: here
it is from the same index, without common images, unless ``--val-index`` names another.

An image is in all categories that it has boxes of, as annotated. A class with a share of 5.4 images
has 5; a class whose share is less than one image has one all the same (``--at-least``), as without
one it could neither be learnt nor scored. Images without a box are a category of their own.

How: classes from rare to frequent deal out their images that no rarer class has dealt out, as many
as their share still lacks. Then images are exchanged, two at a time, as long as that makes the sum
over classes of the squared relative deviation smaller. Nothing is random but the order in which
like images are taken, which is a hash of their position and ``--seed``.

``DIR/train.index``, ``DIR/validation.index`` and ``DIR/split.csv``, a line a class, are written.
"""

import argparse
import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError, run_command
from pfdet.openimages.classes import Classes
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.subset import subset

TRAIN, VAL = 115_000, 5_000
# How many of the most promising images are looked at before all are judged anew.
_POOL = 512


@dataclass(frozen=True)
class Part:
    """The images chosen for one side of a split, and how well they represent their index.

    Attributes:
        images (array): int64 ``(n,)``, ascending positions in the index.
        source (array): int64 ``(C,)``, images of each class in the index.
        count (array): int64 ``(C,)``, images of each class among the chosen.
        share (array): float64 ``(C,)``, what the class would have at an unchanged ratio.
        wanted (array): float64 ``(C,)``, the share, or the least number asked for if that is more.
    """

    images: np.ndarray
    source: np.ndarray
    count: np.ndarray
    share: np.ndarray
    wanted: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """float64 ``(C,)``: ``count / share - 1``; 0 for a class the index has no image of."""
        return np.where(self.share > 0, self.count / np.where(self.share > 0, self.share, 1), 1) - 1


def choose_split(
    index: AnnotationIndex,
    n_train: int = TRAIN,
    n_val: int = VAL,
    val_index: AnnotationIndex | None = None,
    at_least: int = 1,
    seed: int = 0,
) -> tuple[Part, Part]:
    """Choose images so that every class keeps its ratio.

    Args:
        index (AnnotationIndex): Where the training images are from.
        n_train (int): How many to choose for training.
        n_val (int): How many to choose for validation.
        val_index (AnnotationIndex): Where the validation images are from; by default ``index``,
            without those chosen for training.
        at_least (int): Images of each class in each part, if its index has enough. Of a class
            with no more than this in an index for both, training has all. 0 for the ratio alone.
        seed (int): Another seed chooses other images.

    Returns:
        tuple of Part: Training and validation.

    Raises:
        InputError: If a size is negative or an index has too few images.
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
    total = _column_sums(member)
    free = np.ones(n_image, bool)
    # The smaller part first: what it leaves is then as near to the ratio as it is itself.
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
        places = np.flatnonzero(allowed)
        picked = places[
            stratify(member[places], sizes[name], at_least, seed, total * (sizes[name] / n_image))
        ]
        chosen[name] = np.sort(picked)
        free[picked] = False
    return _part(member, chosen['train'], at_least), _part(member, chosen['val'], at_least)


def _check_size(index: AnnotationIndex, n: int) -> None:
    if n > len(index):
        raise InputError(
            f'{index.path}: has {len(index):,} images; expected the {n:,} asked for or more'
        )


def _membership(index: AnnotationIndex) -> sp.csr_array:
    """float64 ``(N, C + 1)``: 1 where an image has a box of a class; the last column, none."""
    offsets, ids = index.image_classes()
    n_class = len(index.classes)
    of_image = np.diff(offsets)
    image = np.repeat(np.arange(len(index)), of_image)
    empty = np.flatnonzero(of_image == 0)
    return sp.coo_array(
        (
            np.ones(len(ids) + len(empty)),
            (np.concatenate([image, empty]), np.concatenate([ids, np.full(len(empty), n_class)])),
        ),
        (len(index), n_class + 1),
    ).tocsr()


def _column_sums(member: sp.csr_array) -> np.ndarray:
    return np.bincount(member.indices, minlength=member.shape[1])


def _part(member: sp.csr_array, images: np.ndarray, at_least: int) -> Part:
    source = _column_sums(member)[:-1]
    share = source * (len(images) / max(member.shape[0], 1))
    return Part(
        images,
        source,
        _column_sums(member[images])[:-1],
        share,
        np.maximum(share, np.minimum(at_least, source)),
    )


def stratify(
    member: sp.csr_array, n: int, at_least: int = 0, seed: int = 0, share: np.ndarray | None = None
) -> np.ndarray:
    """Choose rows so that the sum of every column is near its share.

    Args:
        member (scipy.sparse.csr_array): float64 ``(N, K)`` of 0 and 1, rows by categories.
        n (int): How many rows to choose, at most ``N``.
        at_least (int): A category's share is at least this, or all of its rows.
        seed (int): For the order in which like rows are taken.
        share (array): ``(K,)``, the sums to come near to; by default those of all rows by
            ``n / N``.

    Returns:
        array: int64 ``(n,)``, ascending.
    """
    n_row = member.shape[0]
    available = _column_sums(member)
    if share is None:
        share = available * (n / max(n_row, 1))
    target = np.maximum(share, np.minimum(at_least, available))
    order = np.argsort(_hashed(n_row, seed), kind='stable')
    member = member[order]
    chosen = _deal(member, available, target)
    _refine(member, chosen, target, n)
    return np.sort(order[chosen])


def _hashed(n: int, seed: int) -> np.ndarray:
    """Mix positions and a seed to uint64 (splitmix64): the same with every version of NumPy."""
    mixed = np.arange(n, dtype=np.uint64)
    mixed += np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & (2**64 - 1))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed


def _deal(member: sp.csr_array, available: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Choose by every category, from rare to frequent, what it still lacks; bool ``(N,)``."""
    by_category = member.tocsc()
    chosen, dealt = np.zeros((2, member.shape[0]), bool)
    count = np.zeros(member.shape[1])
    for k in np.argsort(available, kind='stable'):
        rows = by_category.indices[by_category.indptr[k] : by_category.indptr[k + 1]]
        rows = np.sort(rows[~dealt[rows]])
        dealt[rows] = True
        taken = rows[: max(0, round(float(target[k] - count[k])))]
        chosen[taken] = True
        count += np.bincount(member[taken].indices, minlength=len(count))
    return chosen


def _refine(member: sp.csr_array, chosen: np.ndarray, target: np.ndarray, n: int) -> None:
    """Exchange rows until ``n`` are chosen and no exchange makes the deviation smaller.

    What an exchange adds to the sum over categories of ``weight * deviation ** 2`` is at most what
    the row put in adds and the row taken out adds, each judged alone.

    Args:
        member (scipy.sparse.csr_array): float64 ``(N, K)``.
        chosen (array): bool ``(N,)``; changed.
        target (array): ``(K,)``.
        n (int): How many to choose.
    """
    weight = 1 / np.maximum(target, 1) ** 2
    off = member.T @ chosen - target
    n_chosen = int(chosen.sum())
    with tqdm(desc='exchanged', unit=' images', disable=None) as bar:
        while True:
            cost = np.where(
                chosen, member @ (weight * (1 - 2 * off)), member @ (weight * (1 + 2 * off))
            )
            pools = [
                _best(np.where(side, cost, np.inf), min(_POOL, int(side.sum())))
                for side in (~chosen, chosen)
            ]
            rows = [member[pool] for pool in pools]
            used = [np.zeros(len(pool), bool) for pool in pools]
            n_step = 0
            while True:
                costs = [
                    np.where(u, np.inf, r @ (weight * (1 + sign * 2 * off)))
                    for r, u, sign in zip(rows, used, (1, -1))
                ]
                best = [int(c.argmin()) if len(c) else -1 for c in costs]
                moves = _moves(costs, best, n - n_chosen)
                if not moves:
                    break
                for side, sign in ((0, 1), (1, -1)):
                    if side in moves:
                        at = best[side]
                        used[side][at] = True
                        chosen[pools[side][at]] = side == 0
                        row = slice(rows[side].indptr[at], rows[side].indptr[at + 1])
                        off[rows[side].indices[row]] += sign
                        n_chosen += sign
                n_step += 1
            bar.update(n_step)
            if not n_step:
                return


def _moves(costs: list[np.ndarray], best: list[int], lacking: int) -> tuple[int, ...]:
    """Say whether to put a row in (0), take one out (1), both or neither."""
    cost = [float(c[at]) if at >= 0 else np.inf for c, at in zip(costs, best)]
    if lacking:
        side = 0 if lacking > 0 else 1
        return (side,) if np.isfinite(cost[side]) else ()
    # Rounding must not make two exchanges undo each other for ever.
    return (0, 1) if cost[0] + cost[1] < -1e-12 else ()


def _best(cost: np.ndarray, n: int) -> np.ndarray:
    """Return the positions of the ``n`` lowest, the lowest first, ties by position."""
    if not n:
        return np.zeros(0, np.int64)
    limit = np.partition(cost, n - 1)[n - 1]
    places = np.flatnonzero(cost <= limit)
    return places[np.argsort(cost[places], kind='stable')[:n]]


def describe(name: str, part: Part, classes: Classes) -> list[str]:
    """Return the lines the command prints about one part."""
    nearest = int((np.abs(part.count - part.wanted) <= 0.5).sum())
    lines = [
        f'{name}: {len(part.images):,} images; {nearest} of {len(classes)} classes have the '
        'whole number of images nearest to their share, or the least number asked for'
    ]
    for low, high, what in (
        (10, np.inf, 'of 10 images or more'),
        (1, 10, 'of 1 to 10'),
        (0, 1, 'below 1'),
    ):
        mine = np.flatnonzero((part.share >= low) & (part.share < high) & (part.source > 0))
        if len(mine):
            worst = mine[np.abs(part.deviation[mine]).argmax()]
            lines.append(
                f'  {len(mine)} classes with a share {what}: largest relative deviation '
                f'{part.deviation[worst]:+.2%} ({classes.names[worst]}: {part.count[worst]:,} '
                f'for {part.share[worst]:,.2f}), in images '
                f'{np.abs(part.count - part.share)[mine].max():.2f}'
            )
    none = int(((part.count == 0) & (part.source > 0)).sum())
    return [
        *lines,
        f'  classes without an image: {none} that the index has, '
        f'{int((part.source == 0).sum())} that it has not',
    ]


def write_table(path: str | os.PathLike, parts: Mapping[str, Part], classes: Classes) -> None:
    """Write how each class fares in each part, as CSV.

    Args:
        path (path): The file; it appears when it is complete.
        parts (mapping): By what to call them in the header.
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
    parser = argparse.ArgumentParser(
        prog='python -m pfdet.openimages.split',
        description='Choose a small train and validation split that keeps the ratio of each class.',
    )
    parser.add_argument('--index', required=True, metavar='INDEX', help='an annotation index')
    parser.add_argument(
        '--val-index',
        metavar='INDEX',
        help='where validation images are from; '
        'by default, the same index without the training images',
    )
    parser.add_argument(
        '--train', type=int, default=TRAIN, metavar='N', help='training images (%(default)s)'
    )
    parser.add_argument(
        '--val', type=int, default=VAL, metavar='N', help='validation images (%(default)s)'
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='DIR',
        help='where train.index, validation.index and split.csv go',
    )
    parser.add_argument(
        '--at-least',
        type=int,
        default=1,
        metavar='N',
        help='images of a class '
        'in each part, if there are enough, however small its share '
        '(%(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='another seed, other images (%(default)s)'
    )
    args = parser.parse_args(argv)
    for name in ('train', 'val', 'at_least', 'seed'):
        least = 1 if name in ('train', 'val') else 0
        if getattr(args, name) < least:
            raise InputError(
                f'--{name.replace("_", "-")} {getattr(args, name)}: expected at least {least}'
            )
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; ``--help`` says what it takes."""
    args = _parse(argv)
    index = AnnotationIndex.open(args.index)
    val_index = AnnotationIndex.open(args.val_index) if args.val_index else None
    if val_index is not None and val_index.classes != index.classes:
        raise InputError(
            f'{args.val_index}: its classes are not those of {args.index}; expected '
            'two indexes built with the same class descriptions'
        )
    parts = dict(
        zip(
            ('Train', 'Validation'),
            choose_split(index, args.train, args.val, val_index, args.at_least, args.seed),
        )
    )
    out = Path(args.out)
    try:
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
