"""What there is in the world, how often, and which images it is dealt to."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pfdet.openimages.mini import nature, people, things, vehicles
from pfdet.openimages.mini.backdrops import SETTINGS
from pfdet.openimages.mini.knobs import Knobs
from pfdet.openimages.mini.shapes import Patch


class Figure(NamedTuple):
    """A kind of thing that scenes are made of.

    Attributes:
        labels (tuple of str): The classes it truly has: more than one for a toy car, and for
            things that nobody can tell apart.
        draw (callable): Takes a random generator, returns patches of about unit size.
        weight (float): Objects in 1000 training images.
        size (tuple of float): Range of its longer side, in short sides of the image.
        stands (str): ``'ground'``, ``'surface'`` (as ground, or a table), ``'air'``, ``'wall'``.
        settings (tuple of str): Where it is at home.
        parent (str or None): What a hasty annotator calls it.
        subject (str or None): The class by which its parts are verified.
        heaps (bool): Whether it comes in heaps and bunches.
        tilt (float): Largest turn, in degrees.
    """

    labels: tuple[str, ...]
    draw: Callable[[np.random.Generator], list[Patch]]
    weight: float
    size: tuple[float, float]
    stands: str
    settings: tuple[str, ...]
    parent: str | None = None
    subject: str | None = None
    heaps: bool = False
    tilt: float = 4.0


_OUT, _ALL = ('street', 'meadow', 'beach'), ('street', 'meadow', 'beach', 'room')
_SMALL = ('table', 'room')

FIGURES: dict[str, Figure] = {
    'man': Figure(('Man',), people.draw_man, 400, (0.72, 1.0), 'ground', _ALL, 'Person', 'Person'),
    'woman': Figure(
        ('Woman',), people.draw_woman, 280, (0.7, 0.97), 'ground', _ALL, 'Person', 'Person'
    ),
    'boy': Figure(('Boy',), people.draw_boy, 150, (0.52, 0.8), 'ground', _ALL, 'Person', 'Person'),
    'girl': Figure(
        ('Girl',), people.draw_girl, 150, (0.52, 0.8), 'ground', _ALL, 'Person', 'Person'
    ),
    'car': Figure(
        ('Car',),
        vehicles.draw_car,
        190,
        (0.68, 1.05),
        'ground',
        ('street', 'meadow'),
        'Land vehicle',
        'Land vehicle',
        tilt=2,
    ),
    'toy car': Figure(
        ('Car', 'Toy'),
        vehicles.draw_toy_car,
        0,
        (0.42, 0.68),
        'surface',
        _SMALL,
        None,
        'Land vehicle',
    ),
    'bus': Figure(
        ('Bus',),
        vehicles.draw_bus,
        80,
        (0.85, 1.15),
        'ground',
        ('street',),
        'Land vehicle',
        'Land vehicle',
        tilt=2,
    ),
    'truck': Figure(
        ('Truck',),
        vehicles.draw_truck,
        90,
        (0.78, 1.1),
        'ground',
        ('street',),
        'Land vehicle',
        'Land vehicle',
        tilt=2,
    ),
    'apple': Figure(
        ('Apple',),
        nature.draw_apple,
        150,
        (0.26, 0.5),
        'surface',
        ('table',),
        'Fruit',
        heaps=True,
        tilt=20,
    ),
    'orange': Figure(
        ('Orange',),
        nature.draw_orange,
        110,
        (0.26, 0.5),
        'surface',
        ('table',),
        'Fruit',
        heaps=True,
        tilt=40,
    ),
    'banana': Figure(
        ('Banana',),
        nature.draw_banana,
        90,
        (0.38, 0.65),
        'surface',
        ('table',),
        'Fruit',
        heaps=True,
        tilt=30,
    ),
    'pineapple': Figure(
        ('Pineapple',),
        nature.draw_pineapple,
        14,
        (0.55, 0.85),
        'surface',
        ('table',),
        'Fruit',
        tilt=12,
    ),
    'tree': Figure(('Tree',), nature.draw_tree, 170, (0.62, 1.0), 'ground', _OUT, tilt=3),
    'sunflower': Figure(
        ('Sunflower',),
        nature.draw_sunflower,
        80,
        (0.5, 0.85),
        'ground',
        ('meadow',),
        'Flower',
        heaps=True,
        tilt=8,
    ),
    'mushroom': Figure(
        ('Mushroom',), nature.draw_mushroom, 7, (0.42, 0.65), 'ground', ('meadow',), tilt=8
    ),
    'spotted cat': Figure(
        ('Leopard', 'Cheetah'),
        nature.draw_spotted_cat,
        130,
        (0.58, 0.95),
        'ground',
        ('meadow', 'beach'),
    ),
    'duck': Figure(
        ('Duck',),
        nature.draw_duck,
        40,
        (0.38, 0.62),
        'ground',
        ('beach', 'meadow'),
        'Bird',
        heaps=True,
    ),
    'balloon': Figure(
        ('Balloon',),
        things.draw_balloon,
        120,
        (0.42, 0.72),
        'air',
        _ALL,
        'Toy',
        heaps=True,
        tilt=14,
    ),
    'teddy bear': Figure(
        ('Teddy bear',), things.draw_teddy_bear, 26, (0.42, 0.68), 'surface', _SMALL, 'Toy', tilt=10
    ),
    'hand lamp': Figure(
        ('Torch', 'Flashlight'),
        things.draw_hand_lamp,
        130,
        (0.42, 0.68),
        'surface',
        _SMALL,
        tilt=35,
    ),
    'football': Figure(
        ('Football',),
        things.draw_football,
        110,
        (0.27, 0.48),
        'surface',
        ('meadow', 'street', 'beach', 'room'),
        'Ball',
        heaps=True,
        tilt=40,
    ),
    'umbrella': Figure(
        ('Umbrella',),
        things.draw_umbrella,
        90,
        (0.48, 0.78),
        'surface',
        ('beach', 'street', 'room'),
        tilt=25,
    ),
    'door': Figure(
        ('Door',), things.draw_door, 110, (0.75, 0.98), 'wall', ('room',), None, 'Door', tilt=0
    ),
    'traffic light': Figure(
        ('Traffic light',),
        things.draw_traffic_light,
        5,
        (0.55, 0.82),
        'ground',
        ('street',),
        tilt=3,
    ),
    'cabin': Figure(('Car',), vehicles.draw_cabin, 0, (1.0, 1.0), 'wall', (), None, None, tilt=0),
}
# The parts and possessions drawn, by the subject of their pairs among the 47.
PARTS: dict[str, tuple[str, ...]] = {
    'Person': ('Human face', 'Hat', 'Dress'),
    'Land vehicle': ('Wheel',),
    'Door': ('Door handle',),
}
# The figures nobody can tell apart, and the knob that says what annotators do about it.
CONFUSED = {'hand lamp': 'torch_flashlight', 'spotted cat': 'leopard_cheetah'}


class Plan(NamedTuple):
    """What is to be seen in one image."""

    split: str
    number: int
    setting: str
    figures: tuple[str, ...]
    heap: int  # which of the figures is a heap of its kind, or -1
    inside: bool


def counts(knobs: Knobs, split: str) -> dict[str, int]:
    """Objects of each figure in a split: the natural counts bent by the tail, at least one.

    Splits too small for that hold one each of the most frequent.
    """
    tail = knobs.tail if split == 'train' else knobs.validation_tail
    weights = {name: figure.weight for name, figure in FIGURES.items() if figure.weight}
    if 3 * knobs.n_image(split) <= len(weights):
        common = sorted(weights, key=weights.__getitem__, reverse=True)
        return dict.fromkeys(common[: 3 * knobs.n_image(split)], 1)
    total = sum(weights.values())
    bent = {name: (weight / total) ** tail for name, weight in weights.items()}
    scale = total * knobs.n_image(split) / 1000 / sum(bent.values())
    return {name: max(1, round(share * scale)) for name, share in bent.items()}


def deal(knobs: Knobs, split: str) -> list[Plan]:
    """Deal the objects of a split to its images.

    Counts are dealt exactly, not drawn: a long tail is too thin for luck.

    Args:
        knobs (Knobs): How much of what.
        split (str): ``'train'`` or ``'validation'``.

    Returns:
        list of Plan: One for each image.
    """
    rng = np.random.default_rng(knobs.stream(split, 0))
    n_image = knobs.n_image(split)
    setting = rng.choice(len(SETTINGS), n_image, p=(0.3, 0.22, 0.22, 0.14, 0.12))
    room = rng.choice(np.arange(1, 6), n_image, p=(0.18, 0.34, 0.28, 0.13, 0.07))
    number = counts(knobs, split)
    short = sum(number.values()) - int(room.sum())
    if short > 0:  # everything finds a place
        room += np.bincount(rng.permutation(short) % n_image, minlength=n_image)
    # An image gets its first object before any image of its setting gets a second.
    free: list[list[int]] = []
    for s in range(len(SETTINGS)):
        here = np.flatnonzero(setting == s)
        first, more = rng.permutation(here), np.repeat(here, room[here] - 1)
        free.append([*rng.permutation(more).tolist(), *first.tolist()])

    held: list[list[str]] = [[] for _ in range(n_image)]
    for name in sorted(number, key=number.__getitem__):  # the rare ones choose first
        for i in range(number[name]):
            figure = name
            if name == 'car' and (i + 1) * knobs.toy_cars % 1 < knobs.toy_cars:
                figure = 'toy car'
            left = np.array([len(slots) for slots in free])
            at_home = np.isin(SETTINGS, FIGURES[figure].settings) * left
            share = at_home if at_home.any() else left
            place = free[rng.choice(len(free), p=share / share.sum())].pop()
            held[place].append(figure)
    heaped = _share_of(
        rng,
        knobs.group_of,
        [i for i in range(n_image) if any(FIGURES[name].heaps for name in held[i])],
        n_image,
    )
    within = _share_of(
        rng, knobs.inside, np.flatnonzero(setting == SETTINGS.index('street')).tolist(), n_image
    )
    return [
        Plan(
            split,
            i,
            SETTINGS[setting[i]],
            tuple(held[i]),
            [FIGURES[name].heaps for name in held[i]].index(True) if i in heaped else -1,
            i in within,
        )
        for i in range(n_image)
    ]


def _share_of(rng: np.random.Generator, rate: float, able: list[int], n_image: int) -> set[int]:
    """Images of which something is true: a share of all, as far as there are able ones."""
    return set(rng.permutation(able)[: round(rate * n_image)].tolist())
