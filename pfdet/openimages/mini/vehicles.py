"""Cars, buses, trucks and toy cars from the side, one unit long, and a car from the inside.

Each function takes a random generator and returns patches.
"""

import numpy as np

from pfdet.openimages.mini.shapes import (
    Colour,
    Patch,
    ellipse,
    limb,
    pick,
    polygon,
    rectangle,
    shade,
    smooth,
    vary,
)

PAINTS = (
    (200, 36, 40),
    (40, 84, 180),
    (190, 194, 200),
    (36, 120, 80),
    (240, 240, 236),
    (60, 62, 70),
    (90, 150, 200),
    (230, 140, 30),
)
GLASS = (150, 196, 220)


def draw_car(rng: np.random.Generator) -> list[Patch]:
    """Draw a saloon or a hatchback."""
    paint = pick(rng, PAINTS)
    tail = 0.5 if rng.random() < 0.5 else 0.43
    roof = rng.uniform(-0.02, 0.02)
    body = smooth(
        [
            (-0.5, 0.27),
            (-0.49, 0.2),
            (-tail + 0.02, 0.165),
            (-0.28, 0.03 + roof),
            (-0.1, roof),
            (0.1, 0.01 + roof),
            (0.24, 0.15),
            (0.4, 0.175),
            (0.49, 0.22),
            (0.5, 0.3),
            (0.46, 0.34),
            (0, 0.345),
            (-0.46, 0.34),
        ]
    )
    patches = [_shadow(0.46, 0.425), Patch(body, paint)]
    patches += [
        Patch(
            polygon((-0.27, 0.15), (-0.22, 0.055 + roof), (-0.05, 0.035 + roof), (-0.05, 0.15)),
            GLASS,
        ),
        Patch(
            polygon((-0.02, 0.15), (-0.02, 0.035 + roof), (0.08, 0.045 + roof), (0.17, 0.15)), GLASS
        ),
        Patch(
            polygon((-0.2, 0.15), (-0.14, 0.05 + roof), (-0.1, 0.05 + roof), (-0.16, 0.15)),
            (226, 240, 248),
        ),
        Patch(rectangle(-0.038, 0.16, -0.032, 0.32), shade(paint, 0.6)),
        Patch(rectangle(-0.1, 0.19, -0.055, 0.2), shade(paint, 0.45)),
        Patch(
            polygon((-0.49, 0.235), (0.49, 0.235), (0.495, 0.245), (-0.49, 0.245)),
            shade(paint, 0.7),
        ),
        Patch(ellipse(0.465, 0.225, 0.025, 0.03), (255, 244, 190)),
        Patch(ellipse(-0.48, 0.22, 0.018, 0.03), (220, 40, 40)),
        Patch(rectangle(-0.505, 0.3, -0.42, 0.335, 0.012), (70, 72, 76)),
        Patch(rectangle(0.42, 0.3, 0.505, 0.335, 0.012), (70, 72, 76)),
    ]
    for i, x in enumerate((-0.29, 0.29)):
        patches += _wheel(x, 0.325, 0.105, f'Wheel:{i}')
    return patches


def draw_toy_car(rng: np.random.Generator) -> list[Patch]:
    """Draw a plastic toy car in bright colours, with a wind-up key."""
    paint, other = (
        colour
        for colour in (
            pick(rng, ((250, 210, 30), (240, 60, 150), (60, 210, 110), (255, 120, 30)), 6),
            pick(rng, ((40, 110, 240), (230, 40, 50)), 6),
        )
    )
    patches = [_shadow(0.42, 0.585)]
    patches += [
        Patch(limb((-0.05, -0.12), (-0.05, 0.03), 0.018, 0.018), (150, 150, 160)),
        Patch(ellipse(-0.095, -0.13, 0.05, 0.035), (190, 190, 200)),
        Patch(ellipse(-0.005, -0.13, 0.05, 0.035), (190, 190, 200)),
        Patch(rectangle(-0.27, 0.0, 0.2, 0.3, 0.12), other),
        Patch(rectangle(-0.46, 0.2, 0.46, 0.46, 0.11), paint),
        Patch(rectangle(-0.2, 0.06, -0.05, 0.2, 0.04), (210, 240, 255)),
        Patch(rectangle(-0.02, 0.06, 0.13, 0.2, 0.04), (210, 240, 255)),
        Patch(ellipse(0.4, 0.28, 0.045, 0.045), (255, 255, 220)),
        Patch(smooth([(-0.4, 0.25), (0.2, 0.23), (0.2, 0.26), (-0.4, 0.29)]), shade(paint, 1.6)),
    ]
    for i, x in enumerate((-0.25, 0.25)):
        patches += _wheel(x, 0.45, 0.14, f'Wheel:{i}', hub=other)
    return patches


def draw_bus(rng: np.random.Generator) -> list[Patch]:
    """Draw a bus with a row of windows."""
    paint = pick(rng, ((250, 196, 30), (246, 186, 20), (214, 50, 44)), 10)
    patches = [
        _shadow(0.48, 0.51),
        Patch(rectangle(-0.5, 0.0, 0.5, 0.43, 0.05), paint),
        Patch(rectangle(-0.5, 0.27, 0.5, 0.3), (250, 250, 246)),
        Patch(rectangle(-0.5, 0.31, 0.5, 0.325), shade(paint, 0.6)),
        Patch(rectangle(0.36, 0.07, 0.5, 0.25, 0.02), GLASS),
        Patch(rectangle(0.25, 0.08, 0.335, 0.42, 0.01), shade(GLASS, 0.75)),
        Patch(rectangle(0.289, 0.08, 0.296, 0.42), shade(paint, 0.6)),
    ]
    for x in np.linspace(-0.46, 0.1, 5):
        patches += [
            Patch(rectangle(x, 0.07, x + 0.115, 0.22, 0.015), GLASS),
            Patch(
                polygon((x + 0.02, 0.2), (x + 0.06, 0.08), (x + 0.08, 0.08), (x + 0.04, 0.2)),
                (226, 240, 248),
            ),
        ]
    patches += [
        Patch(ellipse(0.49, 0.37, 0.015, 0.025), (255, 244, 190)),
        Patch(rectangle(-0.51, 0.385, 0.51, 0.43, 0.01), (64, 66, 70)),
    ]
    for i, x in enumerate((-0.28, 0.17)):
        patches += _wheel(x, 0.425, 0.088, f'Wheel:{i}')
    return patches


def draw_truck(rng: np.random.Generator) -> list[Patch]:
    """Draw a truck that carries a box or a heap of gravel."""
    cab = pick(rng, PAINTS[:4] + PAINTS[6:])
    patches = [_shadow(0.48, 0.55), Patch(rectangle(-0.48, 0.4, 0.46, 0.46), (60, 60, 66))]
    if rng.random() < 0.7:
        box = vary(rng, (226, 222, 210), 16)
        patches += [Patch(rectangle(-0.5, 0.0, 0.17, 0.41), box)]
        patches += [
            Patch(rectangle(x, 0.02, x + 0.012, 0.4), shade(box, 0.8))
            for x in np.linspace(-0.44, 0.1, 6)
        ]
        patches.append(Patch(rectangle(-0.5, 0.18, 0.17, 0.24), cab))
    else:
        bed = shade(cab, 0.8)
        patches += [
            Patch(
                smooth([(-0.48, 0.24), (-0.3, 0.06), (-0.15, 0.02), (0.0, 0.08), (0.14, 0.24)]),
                (140, 110, 80),
            ),
            Patch(polygon((-0.5, 0.2), (0.17, 0.2), (0.14, 0.42), (-0.46, 0.42)), bed),
        ]
        patches += [
            Patch(rectangle(x, 0.22, x + 0.015, 0.4), shade(bed, 0.7)) for x in (-0.36, -0.2, -0.04)
        ]
    patches += [
        Patch(
            smooth(
                [(0.2, 0.1), (0.4, 0.09), (0.465, 0.25), (0.5, 0.28), (0.5, 0.46), (0.2, 0.46)], 4
            ),
            cab,
        ),
        Patch(polygon((0.27, 0.13), (0.385, 0.13), (0.43, 0.25), (0.27, 0.25)), GLASS),
        Patch(rectangle(0.27, 0.29, 0.31, 0.3), shade(cab, 0.5)),
        Patch(ellipse(0.485, 0.35, 0.02, 0.026), (255, 244, 190)),
        Patch(rectangle(0.42, 0.42, 0.515, 0.46, 0.01), (80, 82, 86)),
    ]
    for i, x in enumerate((-0.32, 0.34)):
        patches += _wheel(x, 0.445, 0.098, f'Wheel:{i}')
    return patches


def draw_cabin(rng: np.random.Generator) -> list[Patch]:
    """Draw a car from the inside, over the unit square: pillars, roof and dashboard."""
    dark = vary(rng, (48, 46, 50), 8)
    dial = [(x, 0.87) for x in (0.22, 0.36)]
    patches = [
        Patch(polygon((0, 0), (1, 0), (1, 0.1), (0.84, 0.09), (0.16, 0.09), (0, 0.1)), dark),
        Patch(polygon((0, 0), (0.12, 0), (0.17, 0.09), (0.05, 0.8), (0, 0.8)), shade(dark, 0.8)),
        Patch(polygon((1, 0), (0.88, 0), (0.83, 0.09), (0.95, 0.8), (1, 0.8)), shade(dark, 0.8)),
        Patch(
            smooth(
                [(-0.05, 0.76), (0.3, 0.74), (0.7, 0.76), (1.05, 0.77), (1.05, 1.03), (-0.05, 1.03)]
            ),
            dark,
        ),
        Patch(rectangle(0.42, 0.07, 0.62, 0.14, 0.03), shade(dark, 0.6)),
        Patch(rectangle(0.435, 0.08, 0.605, 0.13, 0.02), (170, 190, 200)),
        Patch(rectangle(0.6, 0.84, 0.9, 0.95, 0.02), shade(dark, 0.7)),
    ]
    for x, y in dial:
        patches += [
            Patch(ellipse(x, y, 0.055, 0.06), (220, 224, 228)),
            Patch(ellipse(x, y, 0.045, 0.05), (30, 32, 36)),
            Patch(limb((x, y), (x + 0.025, y - 0.03), 0.004, 0.003), (240, 90, 60)),
        ]
    for patch in patches:
        np.clip(patch.points, 0, 1, out=patch.points)
    return patches


def _shadow(width: float, y: float) -> Patch:
    return Patch(ellipse(0, y, width, 0.03), (15, 15, 25), alpha=0.4, solid=False)


def _wheel(x: float, y: float, r: float, part: str, hub: Colour = (200, 204, 210)) -> list[Patch]:
    tag = (part,)
    patches = [
        Patch(ellipse(x, y, r, r), (34, 34, 38), tag),
        Patch(ellipse(x, y, r * 0.62, r * 0.62), hub, tag),
    ]
    patches += [
        Patch(
            ellipse(x + r * 0.4 * np.cos(t), y + r * 0.4 * np.sin(t), r * 0.11, r * 0.11, n=8),
            (60, 60, 66),
            tag,
        )
        for t in np.linspace(0.3, 0.3 + 2 * np.pi, 5, endpoint=False)
    ]
    return patches + [Patch(ellipse(x, y, r * 0.18, r * 0.18, n=12), (90, 92, 96), tag)]
