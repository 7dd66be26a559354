"""The figures of MiniOpenImages, their frequencies, and their distribution over images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pfdet.openimages.mini import nature, people, things, vehicles
from pfdet.openimages.mini.backdrops import SETTINGS
from pfdet.openimages.mini.knobs import Knobs
from pfdet.openimages.mini.shapes import Patch


class Figure(NamedTuple):
    """A kind of object.

    Attributes:
        labels (tuple of str): Its true classes. A toy car has two, and so have objects of classes
            that annotators confuse.
        draw (callable): Takes a random generator and returns patches of about unit size.
        weight (float): Number of objects per 1000 training images.
        size (tuple of float): Range of the longer side, relative to the short side of the image.
        position (str): ``'ground'``, ``'surface'`` (ground or table), ``'air'`` or ``'wall'``.
        settings (tuple of str): The settings in which it is placed.
        parent (str or None): The class of its boxes in images where it is annotated as its parent
            only.
        subject (str or None): The class for which its parts are verified.
        heaps (bool): Whether it may be drawn as a heap with one group-of box.
        tilt (float): Maximum rotation in degrees.
    """

    labels: tuple[str, ...]
    draw: Callable[[np.random.Generator], list[Patch]]
    weight: float
    size: tuple[float, float]
    position: str
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
# The drawn parts and possessions by subject. The pairs are among PFDet's 47.
PARTS: dict[str, tuple[str, ...]] = {
    'Person': ('Human face', 'Hat', 'Dress'),
    'Land vehicle': ('Wheel',),
    'Door': ('Door handle',),
}
# The figures whose two classes annotators confuse, and the option with the concurrent rates.
CONFUSED = {'hand lamp': 'torch_flashlight', 'spotted cat': 'leopard_cheetah'}


class Plan(NamedTuple):
    """The content of one image.

    Attributes:
        split (str): ``'train'`` or ``'validation'``.
        number (int): Number of the image in the split.
        setting (str): One of :data:`~pfdet.openimages.mini.backdrops.SETTINGS`.
        figures (tuple of str): Keys of :data:`FIGURES`.
        heap (int): Position in ``figures`` of the one that is drawn as a heap, or -1.
        inside (bool): Whether the image is taken from inside a car.
    """

    split: str
    number: int
    setting: str
    figures: tuple[str, ...]
    heap: int
    inside: bool


def object_counts(knobs: Knobs, split: str) -> dict[str, int]:
    """Return the number of objects per figure in a split.

    The natural counts are raised to the power of the tail option and rescaled. The minimum is one
    object, but very small splits have one object of each of the most frequent figures only.

    Args:
        knobs (Knobs): The options.
        split (str): ``'train'`` or ``'validation'``.
    """
    tail = knobs.tail if split == 'train' else knobs.validation_tail
    weights = {name: figure.weight for name, figure in FIGURES.items() if figure.weight}
    if 3 * knobs.n_image(split) <= len(weights):
        by_frequency = sorted(weights, key=weights.__getitem__, reverse=True)
        return dict.fromkeys(by_frequency[: 3 * knobs.n_image(split)], 1)
    total = sum(weights.values())
    shares = {name: (weight / total) ** tail for name, weight in weights.items()}
    scale = total * knobs.n_image(split) / 1000 / sum(shares.values())
    return {name: max(1, round(share * scale)) for name, share in shares.items()}


def plan_images(knobs: Knobs, split: str) -> list[Plan]:
    """Distribute the objects of a split over its images.

    Numbers of objects are exact, not random, because the classes of the tail have few objects.

    Args:
        knobs (Knobs): The options.
        split (str): ``'train'`` or ``'validation'``.

    Returns:
        list of Plan: One per image.
    """
    rng = np.random.default_rng(knobs.rng_seed(split, 0))
    n_image = knobs.n_image(split)
    setting = rng.choice(len(SETTINGS), n_image, p=(0.3, 0.22, 0.22, 0.14, 0.12))
    n_slot = rng.choice(np.arange(1, 6), n_image, p=(0.18, 0.34, 0.28, 0.13, 0.07))
    n_object = object_counts(knobs, split)
    n_extra = sum(n_object.values()) - int(n_slot.sum())
    if n_extra > 0:  # add slots for the remaining objects
        n_slot += np.bincount(rng.permutation(n_extra) % n_image, minlength=n_image)
    # All images of a setting get their first object before any of them gets a second.
    free: list[list[int]] = []
    for s in range(len(SETTINGS)):
        images = np.flatnonzero(setting == s)
        first, more = rng.permutation(images), np.repeat(images, n_slot[images] - 1)
        free.append([*rng.permutation(more).tolist(), *first.tolist()])

    figures: list[list[str]] = [[] for _ in range(n_image)]
    for name in sorted(n_object, key=n_object.__getitem__):  # rare figures first
        for i in range(n_object[name]):
            figure = name
            if name == 'car' and (i + 1) * knobs.toy_cars % 1 < knobs.toy_cars:
                figure = 'toy car'
            n_free = np.array([len(slots) for slots in free])
            n_suitable = np.isin(SETTINGS, FIGURES[figure].settings) * n_free
            share = n_suitable if n_suitable.any() else n_free
            image = free[rng.choice(len(free), p=share / share.sum())].pop()
            figures[image].append(figure)
    with_heap = _choose_images(
        rng,
        knobs.group_of,
        [i for i in range(n_image) if any(FIGURES[name].heaps for name in figures[i])],
        n_image,
    )
    inside = _choose_images(
        rng, knobs.inside, np.flatnonzero(setting == SETTINGS.index('street')).tolist(), n_image
    )
    return [
        Plan(
            split,
            i,
            SETTINGS[setting[i]],
            tuple(figures[i]),
            [FIGURES[name].heaps for name in figures[i]].index(True) if i in with_heap else -1,
            i in inside,
        )
        for i in range(n_image)
    ]


def _choose_images(
    rng: np.random.Generator, rate: float, candidates: list[int], n_image: int
) -> set[int]:
    """Choose ``rate * n_image`` of the candidates, or all if there are fewer."""
    return set(rng.permutation(candidates)[: round(rate * n_image)].tolist())
