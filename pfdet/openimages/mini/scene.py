"""Putting figures together in one picture, and what then can be seen of each."""

from typing import NamedTuple

import cv2
import numpy as np

from pfdet.boxes.iou import area, matched_intersection
from pfdet.openimages.mini.knobs import Knobs
from pfdet.openimages.mini.people import half_length
from pfdet.openimages.mini.shapes import Patch, extent, moved, rectangle, turned, vary
from pfdet.openimages.mini.world import FIGURES, Plan

OCCLUDED, TRUNCATED, GROUP_OF, DEPICTION, INSIDE = 1, 2, 4, 8, 16
_HORIZON = {
    'street': (0.5, 0.62),
    'meadow': (0.42, 0.62),
    'room': (0.62, 0.78),
    'table': (0.35, 0.55),
    'beach': (0.3, 0.45),
}
# The more there is in a picture, the smaller it all is.
_CROWD = (1.05, 1.05, 1.0, 0.93, 0.86, 0.8)


class Placed(NamedTuple):
    """A figure at its place; patches are in pixels."""

    figure: str
    patches: list[Patch]
    flags: int
    depth: float  # painted in rising order
    around: np.ndarray  # (x_min, y_min, x_max, y_max) of all of it, also beyond the picture


class SeenPart(NamedTuple):
    """A part as it is seen: its class, box as in :class:`SeenObject`, flags."""

    name: str
    bbox: tuple[float, float, float, float]
    flags: int


class SeenObject(NamedTuple):
    """The truth about an object, before any annotator.

    Attributes:
        figure (str): Key of :data:`~pfdet.openimages.mini.world.FIGURES`.
        bbox (tuple of float): ``(x_min, y_min, x_max, y_max)`` of what is visible, in
            :math:`[0, 1]`.
        flags (int): Bits :data:`OCCLUDED` to :data:`INSIDE`.
        parts (tuple of SeenPart): Its visible parts and possessions.
    """

    figure: str
    bbox: tuple[float, float, float, float]
    flags: int
    parts: tuple[SeenPart, ...]


class Scene(NamedTuple):
    """A composed picture, back to front, not yet painted."""

    plan: Plan
    height: int
    width: int
    horizon: float
    placed: list[Placed]
    owner: np.ndarray  # (H, W) uint8: 1 + index into placed of the object on top, 0 none
    seen: list[SeenObject]


def compose(plan: Plan, knobs: Knobs, least_visible: float = 0.3) -> Scene:
    """Compose the scene of a plan.

    Args:
        plan (Plan): What is to be seen.
        knobs (Knobs): How it is to be seen.
        least_visible (float): An object of which less is visible is taken out.

    Returns:
        Scene: The scene, with the truth about every object in it.
    """
    rng = np.random.default_rng(knobs.stream(plan.split, 1, plan.number))
    short = round(knobs.long_side * rng.choice([3 / 4, 2 / 3, 1], p=[0.55, 0.25, 0.2]))
    height, width = (short, knobs.long_side) if rng.random() < 0.65 else (knobs.long_side, short)
    horizon = height * rng.uniform(*_HORIZON[plan.setting])
    crowd = _CROWD[min(len(plan.figures), len(_CROWD) - 1)]
    limit = rng.uniform(0, knobs.overlap)

    models = []
    for i, name in enumerate(plan.figures):
        patches = _heap(rng, name) if i == plan.heap else FIGURES[name].draw(rng)
        low, high = (0.6, 0.95) if i == plan.heap else FIGURES[name].size
        size = max(low * 0.9, rng.uniform(low, high) * crowd) * short
        flags = GROUP_OF if i == plan.heap else 0
        if not flags and rng.random() < knobs.depictions:
            flags, size = DEPICTION, size * 0.8
        if FIGURES[name].subject == 'Person' and rng.random() < knobs.portraits:
            patches = half_length(patches)
            flags |= TRUNCATED
        models.append((name, _posed(rng, patches, FIGURES[name].tilt, size), flags))
    models.sort(key=lambda model: -np.ptp(extent(model[1]).reshape(2, 2), axis=0).prod())

    placed: list[Placed] = []
    for name, patches, flags in models:
        placed.append(
            _place(rng, knobs, name, patches, flags, placed, limit, (height, width, horizon))
        )
    placed.sort(key=lambda p: p.depth)
    if plan.inside:
        view = moved(FIGURES['cabin'].draw(rng), np.diag([width, height]))
        placed.append(Placed('cabin', view, INSIDE | TRUNCATED, np.inf, extent(view)))
    while True:
        owner, seen, visible = _look(placed, height, width)
        if min(visible, default=1) >= least_visible:
            return Scene(plan, height, width, horizon, placed, owner, seen)
        del placed[int(np.argmin(visible))]


def _heap(rng: np.random.Generator, name: str) -> list[Patch]:
    """Six to ten of a kind, one over the other, without what is behind and below them."""
    patches: list[Patch] = []
    for row, n in enumerate(((2, 3, 2), (3, 3, 3), (2, 3))[int(rng.integers(3))]):
        for x in np.arange(n) - (n - 1) / 2 + rng.uniform(-0.2, 0.2):
            single = [p for p in FIGURES[name].draw(rng) if p.solid]
            x0, y0, x1, y1 = extent(single)
            offset = (
                x * 0.62 * (x1 - x0) + rng.uniform(-0.06, 0.06),
                row * 0.5 * (y1 - y0) + rng.uniform(-0.05, 0.05),
            )
            patches += moved(single, np.eye(2) * rng.uniform(0.9, 1.1), offset)
    return patches


def _posed(rng: np.random.Generator, patches: list[Patch], tilt: float, size: float) -> list[Patch]:
    """Turned, perhaps mirrored, and scaled so that its longer side is ``size`` pixels."""
    matrix = turned(np.eye(2), rng.uniform(-tilt, tilt))
    stretch = rng.uniform(0.93, 1.07)
    matrix = matrix @ np.diag([stretch * rng.choice([-1, 1]), 1 / stretch])
    patches = moved(patches, matrix)
    x0, y0, x1, y1 = extent(patches)
    return moved(patches, np.eye(2) * size / max(x1 - x0, y1 - y0))


def _place(
    rng: np.random.Generator,
    knobs: Knobs,
    name: str,
    patches: list[Patch],
    flags: int,
    placed: list[Placed],
    limit: float,
    frame: tuple[int, int, float],
    tries: int = 30,
) -> Placed:
    """Find a place where it covers, or is covered by, no more than ``limit``."""
    height, width, horizon = frame
    stands = FIGURES[name].stands
    if flags & DEPICTION:
        stands = 'air'
    elif flags & TRUNCATED:
        stands = 'border'
    others = np.array([one.around for one in placed]).reshape(-1, 4)
    cut = rng.random() < knobs.truncated and not flags
    x0, y0, x1, y1 = extent(patches)
    scale = min(1.0, 0.97 * width / (x1 - x0), 0.97 * height / (y1 - y0))
    box, best, least = np.zeros(4), np.zeros(4), np.inf
    for i in range(tries):
        if i and i % 8 == 0:
            scale *= 0.9
        w, h = (x1 - x0) * scale, (y1 - y0) * scale
        left = rng.uniform(0.01 * width, max(0.01 * width, 0.99 * width - w))
        bottom = _bottom(rng, stands, h, height, horizon)
        if cut:
            share = rng.uniform(0.12, 0.4)
            side = rng.integers(4 if stands == 'air' else 3)
            left = (-share * w, width - (1 - share) * w, left, left)[side]
            bottom = (bottom, bottom, height + share * h, (1 - share) * h)[side]
        box = np.array([left, bottom - h, left + w, bottom])
        cover = _cover(box, others)
        if cover < least:
            best, least = box, cover
        if cover <= limit:
            break
    scale = (best[2] - best[0]) / (x1 - x0)
    patches = moved(patches, np.eye(2) * scale, best[:2] - (x0 * scale, y0 * scale))
    depth = {'wall': -1.0, 'air': rng.uniform(0, height)}.get(stands, float(best[3]))
    if flags & DEPICTION:
        patches, depth = _picture(rng, patches) + patches, -2.0
    return Placed(name, patches, flags, depth, best)


def _bottom(rng: np.random.Generator, stands: str, h: float, height: int, horizon: float) -> float:
    lowest = 0.985 * height
    if stands == 'air':
        return rng.uniform(h + 0.01 * height, max(h + 0.01 * height, lowest))
    if stands == 'border':
        return height
    if stands == 'wall':
        return min(lowest, max(h, horizon + 0.01 * height))
    return rng.uniform(min(lowest, max(h, horizon + 0.2 * (height - horizon))), lowest)


def _cover(box: np.ndarray, others: np.ndarray) -> float:
    """The largest share of the smaller box of a pair that is inside the other."""
    if len(others) == 0:
        return 0.0
    return float((matched_intersection(box, others) / np.minimum(area(others), area(box))).max())


def _picture(rng: np.random.Generator, patches: list[Patch]) -> list[Patch]:
    """A framed sheet of paper behind a figure."""
    x0, y0, x1, y1 = extent(patches)
    pad = 0.1 * max(x1 - x0, y1 - y0)
    frames = (
        (p, colour)
        for p, colour in (
            (pad * 1.5, vary(rng, (120, 84, 50))),
            (pad * 1.3, vary(rng, (190, 150, 90))),
            (pad, vary(rng, (238, 232, 216), 8)),
        )
    )
    return [
        Patch(rectangle(x0 - p, y0 - p, x1 + p, y1 + p), colour, solid=False)
        for p, colour in frames
    ]


def _look(
    placed: list[Placed], height: int, width: int
) -> tuple[np.ndarray, list[SeenObject], list[float]]:
    """See what is on top: each object and part gets a number, painted without smoothing."""
    buffer = np.zeros((height, width), np.uint8)
    slots: list[tuple[int, tuple[str, ...]]] = [(-1, ())]
    whole = []  # pixels of each slot of an object before anything covers it
    for i, one in enumerate(placed):
        numbers = {}
        for patch in one.patches:
            if patch.solid and patch.parts not in numbers:
                numbers[patch.parts] = len(slots)
                slots.append((i, patch.parts))
            if patch.solid or patch.alpha == 1:
                points = np.round(patch.points * 16 - 8).astype(np.int32)
                cv2.fillPoly(
                    buffer,
                    [points],
                    numbers.get(patch.parts, 0) if patch.solid else 0,
                    cv2.LINE_8,
                    4,
                )
        whole.append(np.bincount(buffer.ravel(), minlength=256))
    owner = np.array([i + 1 for i, _ in slots], np.uint8)
    left = np.bincount(buffer.ravel(), minlength=256)
    seen, visible = [], []
    for i, one in enumerate(placed):
        mine = [s for s, (j, _) in enumerate(slots) if j == i]
        bbox, flags, share = _seen(buffer, mine, whole[i], left, one.around, height, width)
        visible.append(share)
        names = sorted({name for s in mine for name in slots[s][1]})
        parts = []
        for name in names:
            if bbox is None or one.flags & GROUP_OF:
                break
            of_part = [s for s in mine if name in slots[s][1]]
            around = extent([p for p in one.patches if name in p.parts])
            part_bbox, part_flags, part_share = _seen(
                buffer, of_part, whole[i], left, around, height, width
            )
            if part_bbox is not None and part_share >= 0.25:
                parts.append(
                    SeenPart(name.split(':')[0], part_bbox, part_flags | one.flags & DEPICTION)
                )
        if bbox is not None:
            seen.append(SeenObject(one.figure, bbox, flags | one.flags, tuple(parts)))
    return owner[buffer], seen, visible


def _seen(
    buffer: np.ndarray,
    mine: list[int],
    whole: np.ndarray,
    left: np.ndarray,
    around: np.ndarray,
    height: int,
    width: int,
    least_pixels: int = 4,
) -> tuple[tuple[float, ...] | None, int, float]:
    """Box of what is visible of some slots, flags, and the visible share of what is in view."""
    in_view = whole[mine].sum()
    share = float(left[mine].sum() / in_view) if in_view else 0.0
    full, inner = np.clip(around, 0, [width, height] * 2), (around[2:] - around[:2]).prod()
    cut = 1 - (full[2:] - full[:2]).prod() / inner
    share *= 1 - cut
    lookup = np.zeros(256, bool)
    lookup[mine] = True
    mask = lookup[buffer]
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(xs) < least_pixels or len(ys) < least_pixels:
        return None, 0, 0.0
    # Outlines are finer than pixels; pixels know what is covered.
    x0, y0 = max(xs[0], full[0]), max(ys[0], full[1])
    x1, y1 = min(xs[-1] + 1, full[2]), min(ys[-1] + 1, full[3])
    flags = (OCCLUDED if left[mine].sum() < 0.95 * in_view else 0) | (
        TRUNCATED if cut > 0.01 else 0
    )
    return (
        (float(x0 / width), float(y0 / height), float(x1 / width), float(y1 / height)),
        flags,
        share,
    )
