"""Backgrounds without objects: streets, meadows, rooms, tables and beaches."""

import numpy as np

from pfdet.openimages.mini.shapes import (
    Colour,
    Patch,
    blob,
    ellipse,
    limb,
    pick,
    polygon,
    rectangle,
    shade,
    vary,
)

# Colours at the top and at the bottom of a gradient, and patches in front of it.
_Backdrop = tuple[Colour, Colour, list[Patch]]

SETTINGS = ('street', 'meadow', 'room', 'table', 'beach')
SKIES = ((130, 180, 230), (170, 200, 226), (240, 190, 150), (120, 130, 170), (190, 196, 204))


def gradient(height: int, width: int, top: Colour, bottom: Colour, sideways: float) -> np.ndarray:
    """Return a colour gradient from top to bottom, float32 :math:`(H, W, 3)`.

    Args:
        height (int): Height in pixels.
        width (int): Width in pixels.
        top (tuple of float): RGB colour at the top.
        bottom (tuple of float): RGB colour at the bottom.
        sideways (float): Slant of the gradient.
    """
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    t = np.clip(y + sideways * x, 0, 1)[..., None]
    return np.float32(top) * (1 - t) + np.float32(bottom) * t


def draw_backdrop(
    rng: np.random.Generator, setting: str, height: int, width: int, horizon: float
) -> tuple[np.ndarray, list[Patch]]:
    """Draw the background of a scene.

    Args:
        rng (numpy.random.Generator): The random generator.
        setting (str): One of :data:`SETTINGS`.
        height (int): Height of the image in pixels.
        width (int): Width of the image in pixels.
        horizon (float): Top of the ground or floor, in pixels from the top of the image.

    Returns:
        tuple: A gradient image, float32 :math:`(H, W, 3)`, and patches in pixels to draw over it.
    """
    draw = {'street': _street, 'meadow': _meadow, 'room': _room, 'table': _table, 'beach': _beach}[
        setting
    ]
    top, bottom, patches = draw(rng, height, width, horizon)
    image = gradient(height, width, top, bottom, rng.uniform(-0.5, 0.5))
    return image, patches + _clutter(rng, height, width)


def _ground(height: int, width: int, horizon: float, colour: Colour) -> list[Patch]:
    """Draw the ground as bands that are darker at the bottom."""
    edges = horizon + (height - horizon) * np.array([0, 0.15, 0.4, 0.7, 1.01])
    return [
        Patch(rectangle(-1, y0, width + 1, y1), shade(colour, factor))
        for y0, y1, factor in zip(edges[:-1], edges[1:], (1.1, 1.04, 0.98, 0.92), strict=True)
    ]


def _street(rng: np.random.Generator, height: int, width: int, horizon: float) -> _Backdrop:
    sky = pick(rng, SKIES)
    patches = []
    x = -0.1 * width
    while x < width:
        w, top = rng.uniform(0.12, 0.3) * width, horizon * rng.uniform(0.1, 0.75)
        wall = pick(rng, ((170, 150, 136), (140, 146, 156), (190, 172, 140), (150, 110, 96)))
        patches.append(Patch(rectangle(x, top, x + w, horizon), wall))
        step = max(width * 0.035, 5)
        pane = shade(wall, rng.choice([0.6, 1.4]))
        patches += [
            Patch(rectangle(px, py, px + step * 0.5, py + step * 0.7), pane)
            for py in np.arange(top + step * 0.5, horizon - step, step * 1.5)
            for px in np.arange(x + step * 0.4, x + w - step * 0.6, step)
        ]
        x += w
    road = vary(rng, (110, 112, 118), 8)
    patches += _ground(height, width, horizon, road)
    kerb = horizon + (height - horizon) * 0.12
    patches.append(Patch(rectangle(-1, horizon, width + 1, kerb), shade(road, 1.35)))
    y = horizon + (height - horizon) * 0.55
    dash = width * rng.uniform(0.1, 0.16)
    patches += [
        Patch(
            polygon(
                (px, y),
                (px + dash * 0.6, y),
                (px + dash * 0.55, y + dash * 0.08),
                (px - dash * 0.05, y + dash * 0.08),
            ),
            (226, 224, 210),
        )
        for px in np.arange(-dash, width, dash)
    ]
    return shade(sky, 0.95), shade(sky, 1.4), patches


def _meadow(rng: np.random.Generator, height: int, width: int, horizon: float) -> _Backdrop:
    sky = pick(rng, SKIES)
    grass = pick(rng, ((120, 170, 80), (150, 180, 90), (100, 150, 90), (190, 180, 100)))
    patches = _clouds(rng, width, horizon)
    for level in (0.22, 0.1):
        hill = shade(grass, 0.75 + level)
        patches.append(
            Patch(blob(rng, rng.uniform(0, width), horizon, width * 0.8, height * level), hill)
        )
    patches += _ground(height, width, horizon, grass)
    for _ in range(int(rng.integers(25, 60))):
        x, y = rng.uniform(0, width), rng.uniform(horizon, height)
        h = height * rng.uniform(0.02, 0.05)
        patches.append(
            Patch(
                polygon((x - 1, y), (x + rng.uniform(-3, 3), y - h), (x + 1, y)),
                shade(grass, rng.choice([0.75, 1.2])),
            )
        )
    return shade(sky, 0.95), shade(sky, 1.45), patches


def _room(rng: np.random.Generator, height: int, width: int, horizon: float) -> _Backdrop:
    wall = pick(
        rng, ((226, 214, 190), (190, 206, 214), (214, 190, 196), (196, 210, 184), (150, 160, 180))
    )
    floor = pick(rng, ((170, 124, 84), (140, 104, 80), (180, 170, 160), (120, 110, 110)))
    patches = []
    paper = rng.integers(3)
    step = width * rng.uniform(0.05, 0.12)
    other = shade(wall, rng.choice([0.92, 1.2]))
    if paper == 0:
        patches += [
            Patch(rectangle(x, 0, x + step * 0.4, horizon), other)
            for x in np.arange(0, width, step)
        ]
    elif paper == 1:
        patches += [
            Patch(ellipse(x + (i % 2) * step / 2, y, step * 0.1, step * 0.1, n=10), other)
            for i, y in enumerate(np.arange(step / 2, horizon, step))
            for x in np.arange(0, width, step)
        ]
    patches += _ground(height, width, horizon, floor)
    vanish = rng.uniform(0.2, 0.8) * width
    for x in np.linspace(-width, 2 * width, 18):
        top = vanish + (x - vanish) * 0.45
        patches.append(
            Patch(
                polygon(
                    (top - 0.5, horizon), (top + 0.5, horizon), (x + 1, height), (x - 1, height)
                ),
                shade(floor, 0.82),
            )
        )
    patches.append(
        Patch(rectangle(-1, horizon - height * 0.03, width + 1, horizon), shade(wall, 1.5))
    )
    return shade(wall, 1.1), shade(wall, 0.9), patches


def _table(rng: np.random.Generator, height: int, width: int, horizon: float) -> _Backdrop:
    wall = pick(
        rng, ((90, 110, 130), (190, 180, 170), (150, 170, 150), (120, 90, 110), (60, 70, 80))
    )
    top = pick(rng, ((190, 140, 90), (220, 214, 204), (110, 74, 52), (150, 170, 190)))
    patches = []
    for _ in range(int(rng.integers(4, 10))):  # lights out of focus
        r = width * rng.uniform(0.03, 0.09)
        patches.append(
            Patch(
                ellipse(rng.uniform(0, width), rng.uniform(0, horizon), r, r),
                shade(wall, rng.uniform(1.1, 1.4)),
                alpha=0.4,
            )
        )
    patches += _ground(height, width, horizon, top)
    for _ in range(int(rng.integers(6, 14))):  # grain
        x, y = rng.uniform(0, width), rng.uniform(horizon, height)
        patches.append(
            Patch(
                ellipse(x, y, width * rng.uniform(0.1, 0.3), 1.0, n=14), shade(top, 0.85), alpha=0.6
            )
        )
    return shade(wall, 0.8), shade(wall, 1.15), patches


def _beach(rng: np.random.Generator, height: int, width: int, horizon: float) -> _Backdrop:
    sky = pick(rng, SKIES[:3])
    sea, sand = vary(rng, (60, 130, 170), 16), vary(rng, (226, 200, 150), 14)
    shore = horizon + (height - horizon) * rng.uniform(0.2, 0.45)
    patches = _clouds(rng, width, horizon)
    patches.append(Patch(rectangle(-1, horizon, width + 1, shore + 2), sea))
    for _ in range(10):
        x, y = rng.uniform(0, width), rng.uniform(horizon, shore)
        patches.append(
            Patch(
                ellipse(x, y, width * rng.uniform(0.03, 0.1), 1.0, n=12), shade(sea, 1.4), alpha=0.7
            )
        )
    patches += _ground(height, width, shore, sand)
    patches.append(Patch(ellipse(width / 2, shore, width * 0.7, height * 0.02), (244, 246, 244)))
    for _ in range(int(rng.integers(20, 40))):
        x, y = rng.uniform(0, width), rng.uniform(shore + 4, height)
        patches.append(Patch(ellipse(x, y, rng.uniform(0.8, 2), 0.8, n=8), shade(sand, 0.75)))
    return shade(sky, 0.95), shade(sky, 1.5), patches


def _clouds(rng: np.random.Generator, width: int, horizon: float) -> list[Patch]:
    patches = []
    for _ in range(int(rng.integers(0, 4))):
        x, y, r = rng.uniform(0, width), rng.uniform(0.05, 0.7) * horizon, width * 0.06
        patches += [
            Patch(ellipse(x + dx * r, y, r * s, r * s * 0.55), (252, 252, 252), alpha=0.8)
            for dx, s in ((-1, 0.7), (0, 1.0), (1.1, 0.8), (2, 0.5))
        ]
    return patches


def _clutter(rng: np.random.Generator, height: int, width: int) -> list[Patch]:
    """Draw random strokes and shapes, so that not all edges belong to objects."""
    patches = []
    for _ in range(int(rng.integers(1, 6))):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), width * rng.uniform(0.02, 0.08)
        colour = tuple(rng.uniform(40, 220, 3))
        kind = rng.integers(4)
        if kind == 0:
            end = (x + rng.uniform(-2, 2) * r, y + rng.uniform(-2, 2) * r)
            patches.append(Patch(limb((x, y), end, r * 0.1, r * 0.05), colour))
        elif kind == 1:
            patches.append(Patch(polygon(*(rng.uniform(-r, r, (3, 2)) + (x, y))), colour))
        elif kind == 2:
            patches.append(Patch(blob(rng, x, y, r, r * 0.5, 0.4, 7), colour, alpha=0.6))
        else:
            patches.append(Patch(rectangle(x - r, y - r * 0.2, x + r, y + r * 0.2), colour))
    return patches
