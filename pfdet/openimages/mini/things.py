"""Toys and household objects, about one unit in size.

Each function takes a random generator and returns patches.
"""

import numpy as np

from pfdet.openimages.mini.shapes import (
    Patch,
    ellipse,
    limb,
    pick,
    polygon,
    rectangle,
    rotate,
    shade,
    smooth,
    vary,
)


def draw_balloon(rng: np.random.Generator) -> list[Patch]:
    """Draw a shiny balloon on a string."""
    rubber = pick(
        rng,
        (
            (230, 40, 60),
            (50, 120, 230),
            (250, 200, 40),
            (160, 60, 200),
            (60, 190, 110),
            (250, 120, 180),
        ),
        8,
    )
    sway = rng.uniform(-0.06, 0.06)
    return [
        Patch(limb((0, 0.76), (sway, 0.88), 0.008, 0.008), (120, 120, 120)),
        Patch(limb((sway, 0.88), (0, 1.0), 0.008, 0.008), (120, 120, 120)),
        Patch(polygon((-0.045, 0.775), (0, 0.71), (0.045, 0.775)), shade(rubber, 0.75)),
        Patch(
            smooth(
                [
                    (0, 0),
                    (0.24, 0.07),
                    (0.33, 0.29),
                    (0.23, 0.54),
                    (0, 0.73),
                    (-0.23, 0.54),
                    (-0.33, 0.29),
                    (-0.24, 0.07),
                ]
            ),
            rubber,
        ),
        Patch(
            smooth([(0.05, 0.7), (0.22, 0.52), (0.31, 0.28), (0.28, 0.5), (0.14, 0.66)]),
            shade(rubber, 0.75),
        ),
        Patch(ellipse(-0.14, 0.2, 0.05, 0.11, 25), (255, 255, 255), alpha=0.7),
    ]


def draw_teddy_bear(rng: np.random.Generator) -> list[Patch]:
    """Draw a sitting teddy bear with a bow."""
    fur = vary(rng, (170, 112, 62), 10)
    light, dark = shade(fur, 1.4), (40, 26, 20)
    bow = pick(rng, ((220, 40, 60), (50, 90, 210)))
    patches = [Patch(ellipse(0, 0.97, 0.4, 0.04), (20, 20, 20), alpha=0.4, solid=False)]
    for side in (-1, 1):
        patches += [
            Patch(limb((side * 0.2, 0.58), (side * 0.38, 0.72), 0.085, 0.075), fur),
            Patch(ellipse(side * 0.22, 0.05, 0.1, 0.1), fur),
            Patch(ellipse(side * 0.22, 0.06, 0.055, 0.055), light),
        ]
    patches += [Patch(ellipse(0, 0.7, 0.27, 0.27), fur), Patch(ellipse(0, 0.73, 0.17, 0.18), light)]
    for side in (-1, 1):
        patches += [
            Patch(ellipse(side * 0.27, 0.87, 0.15, 0.12), fur),
            Patch(ellipse(side * 0.3, 0.87, 0.08, 0.075), light),
        ]
    patches += [
        Patch(ellipse(0, 0.25, 0.28, 0.25), fur),
        Patch(ellipse(0, 0.34, 0.13, 0.105), light),
        Patch(ellipse(0, 0.29, 0.05, 0.035), dark),
        Patch(limb((0, 0.32), (0, 0.38), 0.009, 0.009), dark),
    ]
    for side in (-1, 1):
        patches += [
            Patch(ellipse(side * 0.11, 0.2, 0.032, 0.036), dark),
            Patch(polygon((0, 0.5), (side * 0.14, 0.44), (side * 0.14, 0.57)), bow),
        ]
    return patches + [Patch(ellipse(0, 0.505, 0.035, 0.035), shade(bow, 0.75))]


def draw_hand_lamp(rng: np.random.Generator) -> list[Patch]:
    """Draw a hand lamp that may be labelled as a torch or as a flashlight."""
    case = pick(rng, ((40, 42, 50), (200, 40, 44), (230, 190, 30), (60, 110, 180)), 8)
    metal = (180, 184, 190)
    patches = []
    if rng.random() < 0.6:
        patches.append(
            Patch(
                polygon((0.5, 0.02), (0.95, -0.2), (0.95, 0.6), (0.5, 0.38)),
                (255, 246, 170),
                alpha=0.35,
                solid=False,
            )
        )
    patches += [
        Patch(rectangle(-0.5, 0.09, 0.2, 0.31, 0.05), case),
        Patch(rectangle(-0.5, 0.11, 0.2, 0.15), shade(case, 1.35)),
        Patch(rectangle(-0.5, 0.09, -0.42, 0.31, 0.03), metal),
        Patch(polygon((0.16, 0.08), (0.34, 0.0), (0.34, 0.4), (0.16, 0.32)), shade(case, 0.7)),
        Patch(rectangle(0.33, -0.02, 0.46, 0.42, 0.03), metal),
        Patch(ellipse(0.46, 0.2, 0.045, 0.21), (255, 244, 150)),
        Patch(rectangle(-0.06, 0.04, 0.08, 0.11, 0.02), (220, 60, 50)),
    ]
    return patches + [
        Patch(rectangle(x, 0.09, x + 0.018, 0.31), shade(case, 0.6))
        for x in np.linspace(-0.38, -0.14, 5)
    ]


def draw_football(rng: np.random.Generator) -> list[Patch]:
    """Draw a white football with black pentagons."""
    white, turn = vary(rng, (240, 240, 238), 6), rng.uniform(0, 72)
    black = (28, 28, 32)
    patches = [
        Patch(ellipse(0.04, 0.98, 0.38, 0.05), (20, 20, 25), alpha=0.35, solid=False),
        Patch(ellipse(0, 0.5, 0.48, 0.48), white),
    ]
    pentagon = ellipse(0, 0, 0.16, 0.16, n=5)
    patches.append(Patch(rotate(pentagon, turn) + (0, 0.5), black))
    for angle in np.arange(0, 360, 72) + turn:
        t = np.radians(angle)
        spoke = np.array([np.cos(t), np.sin(t)])
        patches.append(
            Patch(
                limb(spoke * 0.15 + (0, 0.5), spoke * 0.34 + (0, 0.5), 0.012, 0.012), (90, 90, 96)
            )
        )
        # The outer pentagons are truncated by the edge of the ball.
        a, b = np.radians(angle - 24), np.radians(angle + 24)
        c, d = np.radians(angle - 15), np.radians(angle + 15)
        patches.append(
            Patch(
                np.array([0, 0.5])
                + np.stack(
                    [
                        0.47 * np.array([np.cos(a), np.sin(a)]),
                        0.35 * np.array([np.cos(c), np.sin(c)]),
                        0.31 * spoke,
                        0.35 * np.array([np.cos(d), np.sin(d)]),
                        0.47 * np.array([np.cos(b), np.sin(b)]),
                        0.478 * spoke,
                    ]
                ),
                black,
            )
        )
    return patches + [
        Patch(
            smooth([(0.08, 0.95), (0.34, 0.8), (0.45, 0.52), (0.42, 0.8), (0.22, 0.95)]),
            (20, 20, 40),
            alpha=0.3,
        )
    ]


def draw_umbrella(rng: np.random.Generator) -> list[Patch]:
    """Draw an open umbrella in two colours, with a hooked handle."""
    one = pick(rng, ((220, 50, 60), (40, 110, 200), (130, 60, 160), (30, 150, 130)))
    two = (248, 240, 226)
    patches = [
        Patch(limb((0, 0.02), (0, 0.9), 0.014, 0.014), (110, 80, 50)),
        Patch(limb((0, 0.9), (0.05, 0.97), 0.02, 0.02), (110, 80, 50)),
        Patch(limb((0.05, 0.97), (0.11, 0.9), 0.02, 0.02), (110, 80, 50)),
        Patch(limb((0, -0.02), (0, 0.05), 0.012, 0.012), (80, 80, 90)),
    ]
    edges = np.linspace(-0.55, 0.55, 7)
    for i, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        bow = [(0, 0.03)]
        bow += [(a * s, 0.03 + 0.42 * s**2.2) for s in np.linspace(0.2, 1, 6)]
        bow += [((a + b) / 2, 0.39)]
        bow += [(b * s, 0.03 + 0.42 * s**2.2) for s in np.linspace(1, 0.2, 6)]
        patches.append(Patch(polygon(*bow), one if i % 2 else two))
    return patches


def draw_door(rng: np.random.Generator) -> list[Patch]:
    """Draw a panelled door in its frame, with a handle on a long plate."""
    wood = pick(rng, ((150, 92, 50), (60, 110, 90), (170, 44, 44), (60, 80, 130)), 10)
    frame, brass = vary(rng, (232, 226, 212), 8), vary(rng, (226, 184, 70), 10)
    x = 0.14
    patches = [
        Patch(rectangle(-0.26, 0.0, 0.26, 1.0), frame),
        Patch(rectangle(-0.21, 0.05, 0.21, 1.0), wood),
    ]
    for y0, y1 in ((0.1, 0.42), (0.66, 0.94)):
        for x0, x1 in ((-0.17, -0.02), (0.02, 0.17)):
            patches += [
                Patch(rectangle(x0, y0, x1, y1), shade(wood, 0.72)),
                Patch(rectangle(x0 + 0.015, y0 + 0.015, x1 - 0.008, y1 - 0.008), shade(wood, 1.12)),
            ]
    handle = ('Door handle',)
    return patches + [
        Patch(rectangle(x - 0.06, 0.4, x + 0.06, 0.66, 0.05), brass, handle),
        Patch(rectangle(x - 0.045, 0.415, x + 0.045, 0.645, 0.04), shade(brass, 1.25), handle),
        Patch(limb((x, 0.49), (x - 0.17, 0.505), 0.034, 0.026), shade(brass, 0.7), handle),
        Patch(ellipse(x, 0.6, 0.018, 0.026), (40, 30, 20), handle),
    ]


def draw_traffic_light(rng: np.random.Generator) -> list[Patch]:
    """Draw a traffic light with a yellow rim, on a pole."""
    lit = int(rng.integers(3))
    box = vary(rng, (40, 48, 44), 6)
    patches = [
        Patch(rectangle(-0.025, 0.7, 0.025, 1.0), (90, 94, 98)),
        Patch(rectangle(-0.17, 0.0, 0.17, 0.75, 0.06), (236, 190, 40)),
        Patch(rectangle(-0.145, 0.025, 0.145, 0.725, 0.05), box),
    ]
    for i, lamp in enumerate(((240, 40, 40), (250, 190, 40), (50, 220, 100))):
        y = 0.15 + i * 0.225
        patches += [
            Patch(ellipse(0, y, 0.105, 0.105), (20, 22, 22)),
            Patch(ellipse(0, y, 0.092, 0.092), lamp if i == lit else shade(lamp, 0.5)),
        ]
        if i == lit:
            patches.append(Patch(ellipse(-0.03, y - 0.03, 0.035, 0.03), shade(lamp, 1.6)))
    return patches
