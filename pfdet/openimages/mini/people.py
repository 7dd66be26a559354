"""Men, women, boys and girls, one unit tall without the hat, seen from the front or the back.

Each ``draw_*`` function takes a random generator and the probability of a hat, and returns patches.
"""

import numpy as np

from pfdet.openimages.mini.body_parts import (
    draw_arms,
    draw_brimmed_hat,
    draw_ground_shadow,
    draw_head,
    draw_legs,
)
from pfdet.openimages.mini.shapes import (
    Patch,
    ellipse,
    pick,
    polygon,
    rectangle,
    shade,
    smooth,
    vary,
)

SKINS = ((255, 219, 190), (240, 194, 155), (214, 162, 120), (163, 110, 74), (110, 72, 50))
DARK_HAIR = ((40, 28, 22), (70, 44, 26), (24, 22, 26), (110, 104, 100))
FAIR_HAIR = ((214, 164, 72), (184, 92, 40), (120, 70, 34))
SUITS = ((58, 68, 96), (74, 82, 74), (96, 84, 72), (56, 56, 62))
JERSEYS = ((236, 124, 40), (60, 150, 84), (232, 196, 50), (70, 150, 210))
GOWNS = ((200, 40, 72), (120, 50, 140), (30, 130, 130), (206, 90, 50))
FROCKS = ((250, 140, 190), (250, 176, 214), (200, 140, 240))


def draw_man(rng: np.random.Generator, hat_rate: float = 0.3) -> list[Patch]:
    """Draw a tall and broad man in a jacket and long trousers, often with a beard."""
    skin, hair, suit = pick(rng, SKINS, 8), pick(rng, DARK_HAIR, 8), pick(rng, SUITS, 10)
    trousers = shade(suit, rng.uniform(0.6, 0.85))
    shirt = vary(rng, (236, 238, 240), 12)
    tie = pick(rng, ((190, 40, 40), (40, 80, 170), (220, 170, 40)))
    patches = [draw_ground_shadow(0.2)]
    patches += draw_legs(rng, 0.06, 0.56, 0.95, 0.055, 0.042, trousers, (40, 30, 26), 0.052)
    patches += draw_arms(rng, 0.135, 0.25, 0.3, 0.04, suit, skin)
    patches += [
        Patch(
            smooth(
                [
                    (-0.06, 0.19),
                    (-0.155, 0.225),
                    (-0.13, 0.42),
                    (-0.125, 0.6),
                    (0, 0.615),
                    (0.125, 0.6),
                    (0.13, 0.42),
                    (0.155, 0.225),
                    (0.06, 0.19),
                ]
            ),
            suit,
        ),
        Patch(polygon((-0.045, 0.195), (0.045, 0.195), (0, 0.36)), shirt),
        Patch(
            polygon((-0.014, 0.205), (0.014, 0.205), (0.02, 0.32), (0, 0.35), (-0.02, 0.32)), tie
        ),
        Patch(
            polygon((-0.004, 0.36), (0.004, 0.36), (0.004, 0.6), (-0.004, 0.6)), shade(suit, 0.7)
        ),
    ]
    away = rng.random() < 0.1
    beard = hair if rng.random() < 0.65 else None
    patches += draw_head(rng, 0.1, 0.078, 0.1, skin, hair, away=away, beard=beard)
    if rng.random() < hat_rate:
        felt = pick(rng, ((60, 44, 36), (44, 44, 50), (120, 90, 60)))
        patches += draw_brimmed_hat(0.052, 0.14, 0.085, 0.11, felt, (170, 40, 40))
    return patches


def draw_woman(rng: np.random.Generator, hat_rate: float = 0.3) -> list[Patch]:
    """Draw a slender woman with long hair, in a long dress or a blouse and a skirt."""
    skin, hair = pick(rng, SKINS, 8), pick(rng, DARK_HAIR + FAIR_HAIR, 10)
    gown = pick(rng, GOWNS)
    dress = ('Dress',) if rng.random() < 0.8 else ()
    patches = [draw_ground_shadow(0.18)]
    patches += draw_legs(rng, 0.045, 0.7, 0.96, 0.032, 0.024, skin, shade(gown, 0.6), 0.04)
    flow = rng.uniform(-0.02, 0.02)
    patches.append(
        Patch(
            smooth(
                [  # the hair behind the shoulders
                    (0, 0.0),
                    (0.095, 0.06),
                    (0.105, 0.2),
                    (0.12 + flow, 0.34),
                    (0.05, 0.36),
                    (-0.05, 0.36),
                    (-0.12 + flow, 0.34),
                    (-0.105, 0.2),
                    (-0.095, 0.06),
                ]
            ),
            hair,
        )
    )
    patches += draw_arms(rng, 0.1, 0.25, 0.29, 0.028, skin, skin)
    upper = gown if dress else vary(rng, (240, 236, 226), 10)
    hem = rng.uniform(0.78, 0.86)
    patches += [
        Patch(
            smooth(
                [
                    (-0.05, 0.205),
                    (-0.11, 0.235),
                    (-0.07, 0.42),
                    (-0.16, hem),
                    (0, hem + 0.02),
                    (0.16, hem),
                    (0.07, 0.42),
                    (0.11, 0.235),
                    (0.05, 0.205),
                ]
            ),
            gown,
            dress,
        ),
        Patch(rectangle(-0.075, 0.4, 0.075, 0.43), shade(gown, 0.55), dress),
    ]
    if not dress:
        patches.append(
            Patch(
                smooth(
                    [
                        (-0.05, 0.205),
                        (-0.11, 0.235),
                        (-0.075, 0.41),
                        (0, 0.415),
                        (0.075, 0.41),
                        (0.11, 0.235),
                        (0.05, 0.205),
                    ]
                ),
                upper,
            )
        )
    else:
        patches += [
            Patch(ellipse(x, y, 0.012, 0.012, n=8), shade(gown, 1.6), dress)
            for y in (0.52, 0.62, 0.72)
            for x in (-0.07, 0.0, 0.07)
        ]
    away = rng.random() < 0.1
    patches += draw_head(rng, 0.105, 0.074, 0.095, skin, hair, away=away, lips=(200, 40, 60))
    if rng.random() < hat_rate:
        patches += draw_brimmed_hat(0.055, 0.17, 0.05, 0.1, vary(rng, (240, 214, 140)), gown)
    return patches


def draw_boy(rng: np.random.Generator, hat_rate: float = 0.35) -> list[Patch]:
    """Draw a boy with a big head, in a striped jersey and shorts."""
    skin, hair, jersey = (
        pick(rng, SKINS, 8),
        pick(rng, FAIR_HAIR + DARK_HAIR[:2]),
        pick(rng, JERSEYS),
    )
    shorts = pick(rng, ((50, 84, 150), (120, 96, 60), (60, 60, 66)))
    patches = [draw_ground_shadow(0.22)]
    patches += draw_legs(
        rng,
        0.07,
        0.62,
        0.94,
        0.042,
        0.036,
        skin,
        pick(rng, ((230, 60, 50), (240, 240, 240), (40, 90, 180))),
        0.06,
    )
    patches += [
        Patch(
            polygon(
                (-0.14, 0.58),
                (0.14, 0.58),
                (0.155, 0.76),
                (0.02, 0.76),
                (0, 0.68),
                (-0.02, 0.76),
                (-0.155, 0.76),
            ),
            shorts,
        )
    ]
    patches += draw_arms(rng, 0.135, 0.36, 0.24, 0.04, jersey, skin)
    body = smooth(
        [
            (-0.06, 0.31),
            (-0.15, 0.34),
            (-0.135, 0.5),
            (-0.14, 0.62),
            (0, 0.63),
            (0.14, 0.62),
            (0.135, 0.5),
            (0.15, 0.34),
            (0.06, 0.31),
        ]
    )
    patches.append(Patch(body, jersey))
    patches += [
        Patch(rectangle(-0.132, y, 0.132, y + 0.04), (246, 246, 240)) for y in (0.39, 0.47, 0.55)
    ]
    away = rng.random() < 0.1
    patches += draw_head(rng, 0.155, 0.135, 0.155, skin, hair, away=away, tuft=True)
    if rng.random() < hat_rate:
        cap = pick(rng, ((210, 40, 40), (40, 70, 180), (30, 130, 60)))
        patches += [
            Patch(
                smooth([(-0.145, 0.1), (-0.12, -0.01), (0, -0.05), (0.12, -0.01), (0.145, 0.1)]),
                cap,
                ('Hat',),
            ),
            Patch(
                smooth([(-0.02, 0.075), (0.15, 0.06), (0.24, 0.1), (0.14, 0.115)]),
                shade(cap, 0.7),
                ('Hat',),
            ),
            Patch(ellipse(0, -0.035, 0.02, 0.015), shade(cap, 1.5), ('Hat',)),
        ]
    return patches


def draw_girl(rng: np.random.Generator, hat_rate: float = 0.25) -> list[Patch]:
    """Draw a girl with a big head and two bunches of hair, in a short flared dress."""
    skin, hair = pick(rng, SKINS, 8), pick(rng, FAIR_HAIR + DARK_HAIR[:2])
    frock = pick(rng, FROCKS)
    dress = ('Dress',) if rng.random() < 0.85 else ()
    patches = [draw_ground_shadow(0.2)]
    patches += draw_legs(rng, 0.06, 0.68, 0.95, 0.034, 0.03, skin, (236, 70, 120), 0.052)
    for side in (-1, 1):
        patches += [
            Patch(
                smooth(
                    [
                        (side * 0.12, 0.1),
                        (side * 0.25, 0.08),
                        (side * 0.27, 0.24),
                        (side * 0.22, 0.36),
                        (side * 0.17, 0.22),
                    ]
                ),
                hair,
            ),
            Patch(ellipse(side * 0.15, 0.11, 0.035, 0.03), (240, 60, 90)),
        ]
    patches += draw_arms(rng, 0.105, 0.37, 0.22, 0.033, skin, skin)
    patches += [
        Patch(
            smooth(
                [
                    (-0.05, 0.32),
                    (-0.115, 0.35),
                    (-0.09, 0.5),
                    (-0.22, 0.77),
                    (0, 0.8),
                    (0.22, 0.77),
                    (0.09, 0.5),
                    (0.115, 0.35),
                    (0.05, 0.32),
                ]
            ),
            frock,
            dress,
        ),
        Patch(
            polygon((-0.2, 0.725), (0.2, 0.725), (0.217, 0.77), (-0.217, 0.77)),
            (255, 255, 255),
            dress,
        ),
    ]
    if not dress:
        patches.append(Patch(rectangle(-0.1, 0.33, 0.1, 0.52, 0.03), (120, 200, 230)))
    away = rng.random() < 0.1
    patches += draw_head(rng, 0.155, 0.135, 0.155, skin, hair, away=away, lips=(220, 70, 90))
    if rng.random() < hat_rate:
        patches += draw_brimmed_hat(
            0.085, 0.23, 0.07, 0.15, vary(rng, (250, 226, 150)), (230, 70, 120)
        )
    return patches
