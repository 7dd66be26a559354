"""Fruit, plants and animals, about one unit in size.

Each function takes a random generator and returns patches.
"""

import numpy as np

from pfdet.openimages.mini.shapes import (
    Patch,
    blob,
    ellipse,
    limb,
    pick,
    polygon,
    rectangle,
    shade,
    smooth,
    vary,
)


def draw_apple(rng: np.random.Generator) -> list[Patch]:
    """Draw a red or green apple with a leaf."""
    skin = pick(rng, ((204, 30, 40), (190, 24, 44), (214, 50, 36), (140, 190, 50)), 10)
    return [
        _shadow(0.4),
        Patch(limb((0, 0.2), (rng.uniform(-0.05, 0.08), 0.02), 0.025, 0.02), (96, 62, 34)),
        Patch(
            smooth(
                [
                    (0, 0.2),
                    (0.22, 0.12),
                    (0.43, 0.25),
                    (0.46, 0.52),
                    (0.32, 0.86),
                    (0.13, 1),
                    (0, 0.95),
                    (-0.13, 1),
                    (-0.32, 0.86),
                    (-0.46, 0.52),
                    (-0.43, 0.25),
                    (-0.22, 0.12),
                ]
            ),
            skin,
        ),
        Patch(
            smooth([(0.1, 0.95), (0.3, 0.8), (0.42, 0.5), (0.36, 0.72), (0.22, 0.92)]),
            shade(skin, 0.72),
        ),
        Patch(smooth([(0.03, 0.12), (0.16, -0.02), (0.34, 0.02), (0.2, 0.13)]), (70, 150, 50)),
        Patch(ellipse(-0.2, 0.38, 0.07, 0.13, 25), shade(skin, 1.6), alpha=0.75),
    ]


def draw_orange(rng: np.random.Generator) -> list[Patch]:
    """Draw an orange with a pitted skin."""
    skin = vary(rng, (248, 146, 20), 10)
    patches = [
        _shadow(0.4),
        Patch(ellipse(0, 0.5, 0.48, 0.48), skin),
        Patch(
            smooth([(0.08, 0.95), (0.34, 0.8), (0.45, 0.52), (0.4, 0.8), (0.2, 0.95)]),
            shade(skin, 0.78),
        ),
    ]
    for _ in range(14):
        r, t = 0.4 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        patches.append(
            Patch(ellipse(r * np.cos(t), 0.5 + r * np.sin(t), 0.014, 0.014, n=6), shade(skin, 0.82))
        )
    return patches + [
        Patch(ellipse(0.02, 0.12, 0.07, 0.035), (90, 130, 40)),
        Patch(ellipse(-0.18, 0.33, 0.08, 0.1), shade(skin, 1.55), alpha=0.7),
    ]


def draw_banana(rng: np.random.Generator) -> list[Patch]:
    """Draw one banana, or two that are joined."""
    skin = vary(rng, (250, 218, 50), 10)
    patches = [_shadow(0.4, 0.62)]
    for i in range(int(rng.integers(1, 3))):
        y = i * 0.1
        patches += [
            Patch(
                smooth(
                    [
                        (-0.5, 0.1 + y),
                        (-0.42, 0.07 + y),
                        (-0.25, 0.28 + y),
                        (0, 0.36 + y),
                        (0.25, 0.28 + y),
                        (0.42, 0.04 + y),
                        (0.48, -0.02 + y),
                        (0.5, 0.05 + y),
                        (0.38, 0.36 + y),
                        (0.05, 0.58 + y),
                        (-0.3, 0.46 + y),
                    ]
                ),
                shade(skin, 1 - 0.12 * i),
            ),
            Patch(
                smooth(
                    [
                        (-0.42, 0.18 + y),
                        (-0.2, 0.42 + y),
                        (0.06, 0.49 + y),
                        (0.34, 0.3 + y),
                        (0.06, 0.45 + y),
                        (-0.2, 0.38 + y),
                    ]
                ),
                shade(skin, 0.8),
            ),
            Patch(ellipse(-0.48, 0.095 + y, 0.035, 0.03), (70, 54, 24)),
            Patch(limb((0.46, 0.03 + y), (0.5, -0.06 + y), 0.035, 0.03), (150, 150, 50)),
        ]
    return patches


def draw_pineapple(rng: np.random.Generator) -> list[Patch]:
    """Draw a pineapple with a diamond pattern and a green crown."""
    skin, leaf = vary(rng, (206, 140, 40), 10), vary(rng, (40, 130, 70), 10)
    patches = [_shadow(0.26)]
    for x in np.linspace(-0.26, 0.26, 7):
        patches.append(
            Patch(
                polygon(
                    (x * 0.35 - 0.05, 0.42), (x * 1.15, 0.02 + 0.6 * x * x), (x * 0.35 + 0.05, 0.42)
                ),
                shade(leaf, 1 - abs(x)),
            )
        )
    patches.append(Patch(ellipse(0, 0.68, 0.27, 0.32), skin))
    for row, y in enumerate(np.linspace(0.42, 0.92, 6)):
        half = 0.25 * np.sqrt(max(0.1, 1 - ((y - 0.68) / 0.32) ** 2))
        for x in np.linspace(-half, half, 4 + row % 2):
            patches.append(
                Patch(
                    polygon((x, y - 0.045), (x + 0.04, y), (x, y + 0.045), (x - 0.04, y)),
                    shade(skin, 0.68),
                )
            )
    return patches


def draw_tree(rng: np.random.Generator) -> list[Patch]:
    """Draw a tree with a crown of several round shapes."""
    leaf, bark = (
        pick(rng, ((60, 130, 50), (40, 110, 60), (110, 150, 40)), 12),
        vary(rng, (110, 76, 46), 8),
    )
    patches = [
        Patch(ellipse(0, 0.99, 0.28, 0.025), (20, 30, 20), alpha=0.4, solid=False),
        Patch(
            smooth(
                [(-0.05, 0.5), (0.05, 0.5), (0.055, 0.8), (0.1, 1.0), (-0.1, 1.0), (-0.055, 0.8)]
            ),
            bark,
        ),
        Patch(limb((0.02, 0.68), (0.17, 0.5), 0.025, 0.015), bark),
    ]
    for x, y, r in (
        (-0.2, 0.4, 0.19),
        (0.2, 0.42, 0.19),
        (0, 0.44, 0.2),
        (-0.12, 0.23, 0.2),
        (0.13, 0.23, 0.2),
        (0, 0.16, 0.17),
    ):
        x, y = x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.03)
        patches += [
            Patch(blob(rng, x, y, r, r * 0.95), shade(leaf, rng.uniform(0.8, 1.05))),
            Patch(blob(rng, x - r * 0.25, y - r * 0.3, r * 0.4, r * 0.35), shade(leaf, 1.18)),
        ]
    return patches


def draw_sunflower(rng: np.random.Generator) -> list[Patch]:
    """Draw a sunflower on a stem with two leaves."""
    ray, stem = vary(rng, (252, 200, 20), 8), vary(rng, (70, 140, 50), 8)
    y, turn = 0.3, rng.uniform(0, 20)
    patches = [Patch(limb((0, y), (rng.uniform(-0.06, 0.06), 0.98), 0.026, 0.03), stem)]
    for side in (-1, 1):
        at = rng.uniform(0.68, 0.8)
        patches.append(
            Patch(
                smooth(
                    [
                        (0, at + 0.06),
                        (side * 0.16, at - 0.06),
                        (side * 0.3, at - 0.05),
                        (side * 0.16, at + 0.06),
                    ]
                ),
                shade(stem, 0.9),
            )
        )
    for ring, colour in ((0.0, shade(ray, 0.85)), (11.25, ray)):
        for angle in np.arange(0, 360, 22.5) + ring + turn:
            t = np.radians(angle)
            patches.append(
                Patch(ellipse(0.2 * np.cos(t), y + 0.2 * np.sin(t), 0.1, 0.04, angle, n=12), colour)
            )
    return patches + [
        Patch(ellipse(0, y, 0.14, 0.14), (92, 54, 24)),
        Patch(ellipse(-0.02, y - 0.02, 0.085, 0.085), (124, 78, 36)),
    ]


def draw_mushroom(rng: np.random.Generator) -> list[Patch]:
    """Draw a mushroom with a red cap and white spots."""
    cap = vary(rng, (216, 30, 36), 8)
    patches = [
        _shadow(0.25),
        Patch(
            smooth(
                [(-0.1, 0.45), (0.1, 0.45), (0.13, 0.75), (0.18, 1.0), (-0.18, 1.0), (-0.13, 0.75)]
            ),
            (244, 236, 220),
        ),
        Patch(smooth([(-0.12, 0.56), (0.12, 0.56), (0.17, 0.68), (-0.17, 0.68)]), (226, 214, 192)),
        Patch(
            smooth(
                [
                    (-0.48, 0.48),
                    (-0.4, 0.2),
                    (0, 0.0),
                    (0.4, 0.2),
                    (0.48, 0.48),
                    (0.2, 0.54),
                    (-0.2, 0.54),
                ]
            ),
            cap,
        ),
    ]
    for x, y, r in (
        (-0.28, 0.32, 0.06),
        (-0.05, 0.15, 0.07),
        (0.2, 0.24, 0.06),
        (0.02, 0.38, 0.075),
        (0.33, 0.42, 0.05),
        (-0.2, 0.46, 0.04),
    ):
        patches.append(Patch(ellipse(x, y, r, r * 0.8), (252, 250, 244)))
    return patches


def draw_spotted_cat(rng: np.random.Generator) -> list[Patch]:
    """Draw a walking spotted cat that may be a leopard or a cheetah."""
    coat = vary(rng, (228, 172, 84), 10)
    belly, spot = shade(coat, 1.5), (58, 38, 22)
    lift = rng.uniform(-0.08, 0.08)
    patches = [Patch(ellipse(0, 0.665, 0.42, 0.03), (20, 20, 20), alpha=0.4, solid=False)]
    patches.append(
        Patch(
            smooth(
                [
                    (-0.32, 0.2),
                    (-0.45, 0.12 + lift),
                    (-0.55, 0.18 + lift),
                    (-0.6, 0.04 + lift),
                    (-0.63, 0.06 + lift),
                    (-0.57, 0.24 + lift),
                    (-0.44, 0.19 + lift),
                    (-0.34, 0.27),
                ]
            ),
            coat,
        )
    )
    for x, colour in ((-0.2, 0.82), (0.22, 0.82), (-0.3, 1.0), (0.14, 1.0)):
        step = rng.uniform(-0.05, 0.05)
        patches += [
            Patch(limb((x, 0.36), (x + step, 0.64), 0.065, 0.038), shade(coat, colour)),
            Patch(ellipse(x + step + 0.02, 0.65, 0.055, 0.025), shade(coat, colour)),
        ]
    patches += [
        Patch(
            smooth(
                [
                    (-0.38, 0.25),
                    (-0.28, 0.15),
                    (0, 0.18),
                    (0.22, 0.12),
                    (0.33, 0.2),
                    (0.3, 0.4),
                    (0.1, 0.46),
                    (-0.15, 0.42),
                    (-0.36, 0.42),
                ]
            ),
            coat,
        ),
        Patch(smooth([(-0.15, 0.4), (0.1, 0.42), (0.26, 0.38), (0.1, 0.46)]), belly),
    ]
    for x in np.linspace(-0.34, 0.24, 8):
        for y in (0.2, 0.27, 0.34):
            px, py = x + rng.uniform(-0.02, 0.02), y + rng.uniform(-0.015, 0.015) + 0.02
            patches.append(Patch(ellipse(px, py, 0.021, 0.018, n=9), spot))
    hx, hy = 0.38, 0.13
    patches += [
        Patch(ellipse(hx + side * 0.085, hy - 0.09, 0.04, 0.045), shade(coat, 0.8))
        for side in (-1, 1)
    ]
    patches += [
        Patch(ellipse(hx, hy, 0.135, 0.12), coat),
        Patch(ellipse(hx + 0.02, hy + 0.055, 0.075, 0.055), belly),
    ]
    patches += [
        Patch(ellipse(hx + dx, hy + dy, 0.014, 0.012, n=8), spot)
        for dx, dy in (
            (-0.09, 0.0),
            (-0.05, -0.08),
            (0.02, -0.09),
            (0.08, -0.06),
            (0.11, 0.01),
            (-0.08, 0.05),
        )
    ]
    for side in (-1, 1):
        patches += [
            Patch(ellipse(hx + 0.02 + side * 0.05, hy - 0.015, 0.022, 0.024, n=12), (240, 220, 80)),
            Patch(ellipse(hx + 0.022 + side * 0.05, hy - 0.015, 0.01, 0.018, n=10), (20, 20, 20)),
        ]
    return patches + [Patch(ellipse(hx + 0.02, hy + 0.035, 0.024, 0.017, n=12), (60, 30, 30))]


def draw_duck(rng: np.random.Generator) -> list[Patch]:
    """Draw a drake with a green head, a white collar, a grey body and an orange bill."""
    body = vary(rng, (176, 170, 164), 8)
    head = vary(rng, (20, 120, 80), 8)
    return [
        _shadow(0.36, 0.86),
        Patch(limb((-0.05, 0.7), (-0.07, 0.84), 0.02, 0.02), (240, 130, 20)),
        Patch(limb((0.1, 0.7), (0.1, 0.84), 0.02, 0.02), (230, 120, 20)),
        Patch(ellipse(-0.03, 0.85, 0.07, 0.022), (240, 130, 20)),
        Patch(ellipse(0.14, 0.85, 0.07, 0.022), (230, 120, 20)),
        Patch(
            smooth(
                [
                    (-0.5, 0.36),
                    (-0.3, 0.42),
                    (0, 0.4),
                    (0.25, 0.36),
                    (0.36, 0.52),
                    (0.2, 0.72),
                    (-0.15, 0.74),
                    (-0.38, 0.6),
                ]
            ),
            body,
        ),
        Patch(smooth([(0.12, 0.4), (0.3, 0.36), (0.37, 0.52), (0.25, 0.68)]), (120, 70, 50)),
        Patch(limb((0.24, 0.44), (0.28, 0.2), 0.1, 0.085), head),
        Patch(rectangle(0.145, 0.35, 0.37, 0.39, 0.015), (246, 246, 240)),
        Patch(smooth([(0.38, 0.12), (0.54, 0.19), (0.56, 0.23), (0.38, 0.25)]), (246, 180, 30)),
        Patch(ellipse(0.28, 0.16, 0.125, 0.12), head),
        Patch(ellipse(0.32, 0.13, 0.022, 0.024, n=12), (250, 250, 250)),
        Patch(ellipse(0.325, 0.13, 0.012, 0.014, n=10), (10, 10, 10)),
        Patch(
            smooth([(-0.34, 0.5), (-0.05, 0.45), (0.14, 0.5), (0, 0.63), (-0.2, 0.63)]),
            shade(body, 0.8),
        ),
        Patch(polygon((-0.22, 0.56), (-0.04, 0.53), (-0.02, 0.58), (-0.18, 0.61)), (50, 80, 190)),
    ]


def _shadow(width: float, y: float = 0.98) -> Patch:
    return Patch(ellipse(0.04, y, width, 0.05), (20, 20, 25), alpha=0.35, solid=False)
