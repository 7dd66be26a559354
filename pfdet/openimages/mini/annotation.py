"""Simulate human annotators: boxes and image-level labels with gaps and errors."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from pfdet.openimages.mini.classes import ancestors, mini_classes
from pfdet.openimages.mini.knobs import Knobs
from pfdet.openimages.mini.scene import GROUP_OF, VisibleObject
from pfdet.openimages.mini.world import CONFUSED, FIGURES, PARTS

Box = tuple[float, float, float, float]


class BoxRow(NamedTuple):
    """An annotated box.

    Attributes:
        image (int): Number of the image.
        name (str): Class name.
        bbox (tuple of float): ``(x_min, y_min, x_max, y_max)`` in [0, 1].
        flags (int): Bits of :mod:`pfdet.openimages.box_flags`.
    """

    image: int
    name: str
    bbox: Box
    flags: int


class LabelRow(NamedTuple):
    """An annotated image-level label.

    Attributes:
        image (int): Number of the image.
        name (str): Class name.
        positive (bool): Whether the class is verified as present or as absent.
    """

    image: int
    name: str
    positive: bool


def annotate(
    scenes: Sequence[Sequence[VisibleObject]], knobs: Knobs, split: str
) -> tuple[list[BoxRow], list[LabelRow]]:
    """Annotate a split like Open Images.

    Over the split, the rates of ``knobs`` are exact up to rounding.

    Args:
        scenes (sequence): For each image, its :class:`~pfdet.openimages.mini.scene.VisibleObject`.
        knobs (Knobs): Rates of gaps and errors.
        split (str): ``'train'`` has all gaps and errors. ``'validation'`` is verified
            exhaustively: each class is positive or negative in each image, and all parts are
            boxed.

    Returns:
        tuple: A list of :class:`BoxRow` and a list of :class:`LabelRow`, sorted by image.
    """
    rng = np.random.default_rng(knobs.rng_seed(split, 3))
    train = split == 'train'
    jitter = knobs.jitter if train else knobs.validation_jitter
    naming = _names_of_confused(rng, scenes, knobs, train)
    parent_only = _choose_share(rng, _by_class(scenes), knobs.parent_only if train else 0.0)
    with_parts = _by_subject(scenes)
    prominent = _prominent(with_parts, knobs.parts_verified * knobs.parts_prominent)
    verified = _choose_share(
        rng, with_parts, knobs.parts_verified if train else 1.0, prominent if train else {}
    )
    boxes: list[BoxRow] = []
    labels: list[LabelRow] = []
    for i, scene in enumerate(scenes):
        rows = []
        for j, one in enumerate(scene):
            figure = FIGURES[one.figure]
            if one.figure in CONFUSED and not one.flags & GROUP_OF:
                names: tuple[str, ...] = naming[i, j]
            else:
                names = (figure.parent,) if (one.figure, i) in parent_only else figure.labels
            box = _jittered(rng, one.bbox, jitter)
            rows.append(BoxRow(i, names[0], box, one.flags))
            for name in names[1:]:
                # Two labels of one annotator share a box. Confused names are from two annotators.
                second = _second_box(rng, box) if one.figure in CONFUSED else box
                rows.append(BoxRow(i, name, second, one.flags))
            if (figure.subject, i) in verified:
                rows += [
                    BoxRow(i, part.name, _jittered(rng, part.bbox, jitter), part.flags)
                    for part in one.parts
                ]
        boxes += rows
        positive = {row.name for row in rows}
        present = _closure({name for one in scene for name in _true_names(one)})
        if train:
            checked = {
                part for subject in PARTS if (subject, i) in verified for part in PARTS[subject]
            }
            negative = (checked - present) | _sample(rng, _absent(present), knobs.negatives)
        else:
            positive, negative = present, _absent(present)
        labels += [LabelRow(i, name, True) for name in sorted(positive)]
        labels += [LabelRow(i, name, False) for name in sorted(negative)]
    return boxes, labels


def naming_shares(first: float, second: float) -> tuple[float, float, float]:
    """Return the shares of objects with the first name only, the second name only, and both.

    Args:
        first (float): Concurrent rate :math:`r_{12}`, the share of the objects with the first name
            that also have the second.
        second (float): Concurrent rate :math:`r_{21}`.

    Returns:
        tuple of float: Three shares that sum to 1. If both rates are 0, they are 1/2, 1/2 and 0.
    """
    if not first or not second:
        return 0.5, 0.5, 0.0
    both = 1 / (1 / first + 1 / second - 1)
    return both / first - both, both / second - both, both


def _names_of_confused(
    rng: np.random.Generator, scenes: Sequence[Sequence[VisibleObject]], knobs: Knobs, train: bool
) -> dict[tuple[int, int], tuple[str, ...]]:
    naming = {}
    for figure, knob in CONFUSED.items():
        one, other = FIGURES[figure].labels
        objects = [
            (i, j)
            for i, scene in enumerate(scenes)
            for j, visible in enumerate(scene)
            if visible.figure == figure
        ]
        only_one, only_other, _ = naming_shares(*getattr(knobs, knob))
        n = len(objects)
        if not train and knobs.validation_naming == 'both':
            only_one = only_other = 0.0
        ends = np.round(np.cumsum([only_one, only_other]) * n)
        for rank, k in enumerate(rng.permutation(n)):
            names: tuple[str, ...] = (one, other) if rng.random() < 0.5 else (other, one)
            if rank < ends[0]:
                names = (one,)
            elif rank < ends[1]:
                names = (other,)
            naming[objects[k]] = names
    return naming


def _by_class(scenes: Sequence[Sequence[VisibleObject]]) -> dict[str, list[int]]:
    """Images of each figure that may be annotated as its parent only."""
    images = defaultdict(list)
    for i, scene in enumerate(scenes):
        for name in sorted({one.figure for one in scene if FIGURES[one.figure].parent}):
            images[name].append(i)
    return images


def _by_subject(scenes: Sequence[Sequence[VisibleObject]]) -> dict[str, dict[int, float]]:
    """Images of each subject with parts, and the mean area of these parts in each image."""
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
    """For each key, the given share of its images with the largest values."""
    return {
        key: sorted(sorted(sizes, key=sizes.__getitem__, reverse=True)[: round(rate * len(sizes))])
        for key, sizes in images.items()
    }


def _choose_share(
    rng: np.random.Generator,
    images: Mapping[str, Iterable[int]],
    rate: float,
    first: Mapping[str, list[int]] = MappingProxyType({}),
) -> set[tuple[str, int]]:
    """For each key, a share of its images: those in ``first``, then random ones."""
    chosen = set()
    for key, candidates in images.items():
        preferred = first.get(key, [])
        others = [i for i in candidates if i not in set(preferred)]
        n = round(rate * len([*candidates])) - len(preferred)
        chosen |= {(key, i) for i in preferred}
        chosen |= {(key, others[k]) for k in rng.permutation(len(others))[:n].tolist()}
    return chosen


def _true_names(one: VisibleObject) -> set[str]:
    return {*FIGURES[one.figure].labels, *(part.name for part in one.parts)}


def _closure(names: set[str]) -> set[str]:
    return names.union(*(ancestors()[name] for name in names))


def _absent(present: set[str]) -> set[str]:
    return set(mini_classes()) - present


def _sample(rng: np.random.Generator, absent: set[str], mean: float) -> set[str]:
    """A few absent classes, as if suggested to annotators by an image classifier."""
    n = min(int(rng.poisson(mean)), len(absent))
    return set(rng.permutation(sorted(absent))[:n].tolist())


def _jittered(rng: np.random.Generator, bbox: Box, amount: float) -> Box:
    """Jitter the edges by less than half the box. Edges on the image border stay there."""
    x0, y0, x1, y1 = bbox
    w, h = x1 - x0, y1 - y0
    shift = np.clip(rng.standard_normal(4) * amount, -0.3, 0.3) * (w, h, w, h)
    x0, y0, x1, y1 = (
        edge if edge in (0.0, 1.0) else min(max(edge + d, 0.0), 1.0)
        for edge, d in zip(bbox, shift.tolist(), strict=True)
    )
    return x0, y0, x1, y1


def _second_box(rng: np.random.Generator, bbox: Box, low: float = 0.004, high: float = 0.02) -> Box:
    """Another annotator's box of the same object: not equal, but with an IoU of at least 0.9."""
    x0, y0, x1, y1 = bbox
    side = np.array((x1 - x0, y1 - y0) * 2)
    shift = rng.uniform(low, high, 4) * rng.choice([-1, 1], 4) * side
    x0, y0, x1, y1 = np.clip(np.array(bbox) + shift, 0, 1).tolist()
    return x0, y0, x1, y1
