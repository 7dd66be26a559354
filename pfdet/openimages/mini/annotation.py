"""What human annotators write about the scenes they are shown."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from pfdet.openimages.mini.classes import ancestors, mini_classes
from pfdet.openimages.mini.knobs import Knobs
from pfdet.openimages.mini.scene import GROUP_OF, SeenObject
from pfdet.openimages.mini.world import CONFUSED, FIGURES, PARTS

Box = tuple[float, float, float, float]


class BoxRow(NamedTuple):
    """A box as written: image number, class name, ``(x_min, y_min, x_max, y_max)``, flags."""

    image: int
    name: str
    bbox: Box
    flags: int


class LabelRow(NamedTuple):
    """An image-level label as written: image number, class name, whether it is there."""

    image: int
    name: str
    positive: bool


def annotate(
    scenes: Sequence[Sequence[SeenObject]], knobs: Knobs, split: str
) -> tuple[list[BoxRow], list[LabelRow]]:
    """Annotate a split as Open Images was.

    Shares are dealt exactly, up to rounding, over the split: planted rates come back.

    Args:
        scenes (sequence): For each image the objects in it.
        knobs (Knobs): How annotators go wrong.
        split (str): ``'train'``, with all the troubles, or ``'validation'``, verified
            exhaustively: every class is positive or negative in every image, and every part
            is boxed.

    Returns:
        tuple: A list of :class:`BoxRow` and a list of :class:`LabelRow`, by image.
    """
    rng = np.random.default_rng(knobs.stream(split, 3))
    train = split == 'train'
    jitter = knobs.jitter if train else knobs.validation_jitter
    naming = _names_of_confused(rng, scenes, knobs, train)
    hasty = _dealt(rng, _by_class(scenes), knobs.parent_only if train else 0.0)
    with_parts = _by_subject(scenes)
    prominent = _prominent(with_parts, knobs.parts_verified * knobs.parts_prominent)
    verified = _dealt(
        rng, with_parts, knobs.parts_verified if train else 1.0, prominent if train else {}
    )
    boxes: list[BoxRow] = []
    labels: list[LabelRow] = []
    for i, scene in enumerate(scenes):
        mine = []
        for j, one in enumerate(scene):
            figure = FIGURES[one.figure]
            if one.figure in CONFUSED and not one.flags & GROUP_OF:
                names: tuple[str, ...] = naming[i, j]
            else:
                names = (figure.parent,) if (one.figure, i) in hasty else figure.labels
            box = _jittered(rng, one.bbox, jitter)
            mine.append(BoxRow(i, names[0], box, one.flags))
            for name in names[1:]:
                # Two labels of one object share a box; two guesses about one have each its own.
                again = _apart(rng, box) if one.figure in CONFUSED else box
                mine.append(BoxRow(i, name, again, one.flags))
            if (figure.subject, i) in verified:
                mine += [
                    BoxRow(i, part.name, _jittered(rng, part.bbox, jitter), part.flags)
                    for part in one.parts
                ]
        boxes += mine
        positive = {row.name for row in mine}
        there = _closure({name for one in scene for name in _true_names(one)})
        if train:
            checked = {
                part for subject in PARTS if (subject, i) in verified for part in PARTS[subject]
            }
            negative = (checked - there) | _sampled(rng, _absent(there), knobs.negatives)
        else:
            positive, negative = there, _absent(there)
        labels += [LabelRow(i, name, True) for name in sorted(positive)]
        labels += [LabelRow(i, name, False) for name in sorted(negative)]
    return boxes, labels


def naming_shares(first: float, second: float) -> tuple[float, float, float]:
    """Shares of objects called only the one, only the other, and both.

    Args:
        first (float): Concurrent rate :math:`r_{12}`: of the objects called the one, how many
            are called the other too.
        second (float): :math:`r_{21}`, the other way round.

    Returns:
        tuple of float: Three shares that sum to 1. If both rates are 0, half are called the one
        and half the other.
    """
    if not first or not second:
        return 0.5, 0.5, 0.0
    both = 1 / (1 / first + 1 / second - 1)
    return both / first - both, both / second - both, both


def _names_of_confused(
    rng: np.random.Generator, scenes: Sequence[Sequence[SeenObject]], knobs: Knobs, train: bool
) -> dict[tuple[int, int], tuple[str, ...]]:
    naming = {}
    for figure, knob in CONFUSED.items():
        one, other = FIGURES[figure].labels
        objects = [
            (i, j)
            for i, scene in enumerate(scenes)
            for j, seen in enumerate(scene)
            if seen.figure == figure
        ]
        only_one, only_other, _ = naming_shares(*getattr(knobs, knob))
        n = len(objects)
        if not train and knobs.validation_naming == 'both':
            only_one = only_other = 0.0
        ends = np.round(np.cumsum([only_one, only_other]) * n)
        for rank, at in enumerate(rng.permutation(n)):
            names: tuple[str, ...] = (one, other) if rng.random() < 0.5 else (other, one)
            if rank < ends[0]:
                names = (one,)
            elif rank < ends[1]:
                names = (other,)
            naming[objects[at]] = names
    return naming


def _by_class(scenes: Sequence[Sequence[SeenObject]]) -> dict[str, list[int]]:
    """Images of each figure that has a parent to be called by."""
    images = defaultdict(list)
    for i, scene in enumerate(scenes):
        for name in sorted({one.figure for one in scene if FIGURES[one.figure].parent}):
            images[name].append(i)
    return images


def _by_subject(scenes: Sequence[Sequence[SeenObject]]) -> dict[str, dict[int, float]]:
    """Images of each subject that has parts, and in each the mean size of these parts."""
    sizes: dict[str, dict[int, float]] = defaultdict(dict)
    for i, scene in enumerate(scenes):
        for name in sorted({FIGURES[one.figure].subject or '' for one in scene} - {''}):
            of_parts = [
                (part.bbox[2] - part.bbox[0]) * (part.bbox[3] - part.bbox[1])
                for one in scene
                if FIGURES[one.figure].subject == name
                for part in one.parts
            ]
            sizes[name][i] = float(np.mean(of_parts or [0.0]))
    return sizes


def _prominent(images: dict[str, dict[int, float]], rate: float) -> dict[str, list[int]]:
    """For each key, the share of its images with the largest value."""
    return {
        key: sorted(sorted(sizes, key=sizes.__getitem__, reverse=True)[: round(rate * len(sizes))])
        for key, sizes in images.items()
    }


def _dealt(
    rng: np.random.Generator,
    images: Mapping[str, Iterable[int]],
    rate: float,
    first: Mapping[str, list[int]] = MappingProxyType({}),
) -> set[tuple[str, int]]:
    """For each key, a share of its images: those in ``first``, then any."""
    dealt = set()
    for key, at in images.items():
        before = first.get(key, [])
        others = [i for i in at if i not in set(before)]
        n = round(rate * len([*at])) - len(before)
        dealt |= {(key, i) for i in before}
        dealt |= {(key, others[k]) for k in rng.permutation(len(others))[:n].tolist()}
    return dealt


def _true_names(one: SeenObject) -> set[str]:
    return {*FIGURES[one.figure].labels, *(part.name for part in one.parts)}


def _closure(names: set[str]) -> set[str]:
    return names.union(*(ancestors()[name] for name in names))


def _absent(there: set[str]) -> set[str]:
    return set(mini_classes()) - there


def _sampled(rng: np.random.Generator, absent: set[str], mean: float) -> set[str]:
    """A few of the absent classes, those an image classifier might have suggested."""
    n = min(int(rng.poisson(mean)), len(absent))
    return set(rng.permutation(sorted(absent))[:n].tolist())


def _jittered(rng: np.random.Generator, bbox: Box, amount: float) -> Box:
    """Edges missed by a little, never so far that they meet; one on the border stays there."""
    x0, y0, x1, y1 = bbox
    w, h = x1 - x0, y1 - y0
    miss = np.clip(rng.standard_normal(4) * amount, -0.3, 0.3) * (w, h, w, h)
    x0, y0, x1, y1 = (
        edge if edge in (0.0, 1.0) else min(max(edge + d, 0.0), 1.0)
        for edge, d in zip(bbox, miss.tolist(), strict=True)
    )
    return x0, y0, x1, y1


def _apart(rng: np.random.Generator, bbox: Box, least: float = 0.004, most: float = 0.02) -> Box:
    """Another person's box for the same object: IoU at least 0.9, but not the same."""
    x0, y0, x1, y1 = bbox
    side = np.array((x1 - x0, y1 - y0) * 2)
    move = rng.uniform(least, most, 4) * rng.choice([-1, 1], 4) * side
    x0, y0, x1, y1 = np.clip(np.array(bbox) + move, 0, 1).tolist()
    return x0, y0, x1, y1
