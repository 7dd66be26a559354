"""Coloured polygons, from which all figures are drawn.

Points are ``(x, y)`` with y downwards, as in OpenCV. A figure is a list of patches that are drawn
in order. Since figures are outlines, their boxes are known without rendering.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Colour = tuple[float, float, float]


class Patch(NamedTuple):
    """A filled polygon.

    Attributes:
        points (array): float64 :math:`(N, 2)`, ``(x, y)``.
        colour (tuple of float): RGB in :math:`[0, 255]`.
        parts (tuple of str): The annotated parts that the patch belongs to, such as
            ``'Human face'``, or ``'Wheel:1'`` if an object has several of a class.
        alpha (float): Opacity in :math:`[0, 1]`.
        solid (bool): :obj:`False` for shadows, light and frames, which are not part of the object.
    """

    points: np.ndarray
    colour: Colour
    parts: tuple[str, ...] = ()
    alpha: float = 1.0
    solid: bool = True


def polygon(*points: Sequence[float]) -> np.ndarray:
    """Return ``(x, y)`` points as a float64 array :math:`(N, 2)`."""
    return np.array(points, dtype=np.float64)


def ellipse(
    x: float,
    y: float,
    rx: float,
    ry: float,
    angle: float = 0.0,
    start: float = 0.0,
    end: float = 360.0,
    n: int = 36,
) -> np.ndarray:
    """Return ``n`` points of an ellipse or an elliptic arc.

    Args:
        x, y (float): The centre.
        rx, ry (float): The radii.
        angle (float): Rotation of the ellipse, in degrees, clockwise.
        start, end (float): Ends of the arc, in degrees, clockwise from the right.
        n (int): Number of points.

    Returns:
        array: float64 :math:`(n, 2)`.
    """
    return rotate(_arc(start, end, n) * (rx, ry), angle) + (x, y)


@functools.lru_cache(maxsize=256)
def _arc(start: float, end: float, n: int) -> np.ndarray:
    """Points on the unit circle."""
    t = np.radians(np.linspace(start, end, n, endpoint=end - start < 360))
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def rectangle(x0: float, y0: float, x1: float, y1: float, corner: float = 0.0) -> np.ndarray:
    """Return the rectangle from ``(x0, y0)`` to ``(x1, y1)`` with corners of radius ``corner``."""
    if corner <= 0:
        return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    corner = min(corner, (x1 - x0) / 2, (y1 - y0) / 2)
    arcs = [
        ellipse(x, y, corner, corner, 0, start, start + 90, 6)
        for x, y, start in (
            (x1 - corner, y1 - corner, 0),
            (x0 + corner, y1 - corner, 90),
            (x0 + corner, y0 + corner, 180),
            (x1 - corner, y0 + corner, 270),
        )
    ]
    return np.concatenate(arcs)


def limb(p: Sequence[float], q: Sequence[float], r0: float, r1: float) -> np.ndarray:
    """Return a capsule from ``p``, with radius ``r0``, to ``q``, with radius ``r1``."""
    angle = np.degrees(np.arctan2(q[1] - p[1], q[0] - p[0]))
    first = ellipse(p[0], p[1], r0, r0, 0, angle + 90, angle + 270, 8)
    last = ellipse(q[0], q[1], r1, r1, 0, angle - 90, angle + 90, 8)
    return np.concatenate([first, last])


def smooth(points: Iterable[Sequence[float]], n: int = 6) -> np.ndarray:
    """Return a closed Catmull-Rom curve through ``points``, with ``n`` points per segment."""
    p = np.array(list(points), dtype=np.float64)
    before, after, then = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = (np.arange(n) / n)[None, :, None]
    p0, p1, p2, p3 = (a[:, None] for a in (before, p, after, then))
    curve = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return curve.reshape(-1, 2)


def blob(
    rng: np.random.Generator,
    x: float,
    y: float,
    rx: float,
    ry: float,
    wobble: float = 0.12,
    n: int = 9,
) -> np.ndarray:
    """Return a smooth, irregular, round outline.

    Args:
        rng (numpy.random.Generator): The random generator.
        x, y (float): The centre.
        rx, ry (float): The mean radii.
        wobble (float): Maximum relative deviation of the radii.
        n (int): Number of random radii.

    Returns:
        array: float64 :math:`(4 n, 2)`.
    """
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    r = 1 + rng.uniform(-wobble, wobble, n)
    return smooth(np.stack([x + rx * r * np.cos(t), y + ry * r * np.sin(t)], axis=1), 4)


def rotate(points: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate points :math:`(N, 2)` clockwise about the origin by an angle in degrees."""
    if not degrees:
        return points
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[c, s], [-s, c]])


def transform(
    patches: Iterable[Patch], matrix: np.ndarray | None = None, offset: Sequence[float] = (0.0, 0.0)
) -> list[Patch]:
    """Apply the affine map ``points @ matrix + offset`` to patches."""
    patches = list(patches)
    points = np.concatenate([patch.points for patch in patches])
    points = (points if matrix is None else points @ matrix) + np.asarray(offset)
    ends = np.cumsum([len(patch.points) for patch in patches])[:-1]
    return [
        Patch(some, *patch[1:]) for some, patch in zip(np.split(points, ends), patches, strict=True)
    ]


def extent(patches: Iterable[Patch]) -> np.ndarray:
    """Return the bounding box ``(x_min, y_min, x_max, y_max)`` of the solid patches."""
    points = np.concatenate([patch.points for patch in patches if patch.solid])
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def shade(colour: Colour, factor: float) -> Colour:
    """Return a darker colour (``factor`` below 1) or a lighter one (above 1)."""
    c = np.asarray(colour, dtype=np.float64)
    c = c * factor if factor <= 1 else c + (255 - c) * (factor - 1)
    r, g, b = np.clip(c, 0, 255).tolist()
    return (r, g, b)


def vary(rng: np.random.Generator, colour: Colour, amount: float = 14.0) -> Colour:
    """Return a random variation of a colour, by up to ``amount`` per channel and in brightness."""
    c = np.asarray(colour) * rng.uniform(0.88, 1.1) + rng.uniform(-amount, amount, 3)
    r, g, b = np.clip(c, 0, 255).tolist()
    return (r, g, b)


def pick(rng: np.random.Generator, colours: Sequence[Colour], amount: float = 14.0) -> Colour:
    """Return a random variation of one of several colours, see :func:`vary`."""
    return vary(rng, colours[int(rng.integers(len(colours)))], amount)
