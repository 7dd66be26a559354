"""Place figures in an image, and compute what is visible of each."""

from typing import NamedTuple

import cv2
import numpy as np

from pfdet.boxes.iou import area, matched_intersection
from pfdet.openimages.mini.body_parts import crop_at_waist
from pfdet.openimages.mini.knobs import Knobs
from pfdet.openimages.mini.shapes import Patch, extent, rectangle, rotate, transform, vary
from pfdet.openimages.mini.world import FIGURES, Plan

OCCLUDED, TRUNCATED, GROUP_OF, DEPICTION, INSIDE = 1, 2, 4, 8, 16
_HORIZON = {
    'street': (0.5, 0.62),
    'meadow': (0.42, 0.62),
    'room': (0.62, 0.78),
    'table': (0.35, 0.55),
    'beach': (0.3, 0.45),
}
# Relative size of the objects by their number in the image.
_CROWD_SCALE = (1.05, 1.05, 1.0, 0.93, 0.86, 0.8)


class Placed(NamedTuple):
    """A figure in an image.

    Attributes:
        figure (str): Key of :data:`~pfdet.openimages.mini.world.FIGURES`.
        patches (list of Patch): Patches in pixels.
        flags (int): Bits :data:`OCCLUDED` to :data:`INSIDE`.
        depth (float): Figures are drawn in ascending order of this value.
        around (array): float64 ``(4,)``, ``(x_min, y_min, x_max, y_max)`` in pixels of the whole
            figure, including what is outside of the image.
    """

    figure: str
    patches: list[Patch]
    flags: int
    depth: float
    around: np.ndarray


class VisiblePart(NamedTuple):
    """The ground truth of a visible part.

    Attributes:
        name (str): Class name.
        bbox (tuple of float): As in :class:`VisibleObject`.
        flags (int): As in :class:`VisibleObject`.
    """

    name: str
    bbox: tuple[float, float, float, float]
    flags: int


class VisibleObject(NamedTuple):
    """The ground truth of a visible object, without annotation errors.

    Attributes:
        figure (str): Key of :data:`~pfdet.openimages.mini.world.FIGURES`.
        bbox (tuple of float): ``(x_min, y_min, x_max, y_max)`` of the visible part, in
            :math:`[0, 1]`.
        flags (int): Bits :data:`OCCLUDED` to :data:`INSIDE`.
        parts (tuple of VisiblePart): Its visible parts and possessions.
    """

    figure: str
    bbox: tuple[float, float, float, float]
    flags: int
    parts: tuple[VisiblePart, ...]


class Scene(NamedTuple):
    """A composed image that is not rendered yet.

    Attributes:
        plan (Plan): The plan of the image.
        height (int): Height in pixels.
        width (int): Width in pixels.
        horizon (float): Distance of the horizon from the top in pixels.
        placed (list of Placed): The figures, from back to front.
        owner (array): uint8 :math:`(H, W)`, 1 + position in ``placed`` of the frontmost figure, 0
            for the background.
        objects (list of VisibleObject): The ground truth.
    """

    plan: Plan
    height: int
    width: int
    horizon: float
    placed: list[Placed]
    owner: np.ndarray
    objects: list[VisibleObject]


def compose(plan: Plan, knobs: Knobs, min_visible: float = 0.3) -> Scene:
    """Compose the scene of a plan.

    Args:
        plan (Plan): The figures of the image.
        knobs (Knobs): The options.
        min_visible (float): Figures with a smaller visible share are removed.

    Returns:
        Scene: The scene with the ground truth of its objects.
    """
    rng = np.random.default_rng(knobs.rng_seed(plan.split, 1, plan.number))
    short = round(knobs.long_side * rng.choice([3 / 4, 2 / 3, 1], p=[0.55, 0.25, 0.2]))
    height, width = (short, knobs.long_side) if rng.random() < 0.65 else (knobs.long_side, short)
    horizon = height * rng.uniform(*_HORIZON[plan.setting])
    crowd_scale = _CROWD_SCALE[min(len(plan.figures), len(_CROWD_SCALE) - 1)]
    limit = rng.uniform(0, knobs.overlap)

    models = []
    for i, name in enumerate(plan.figures):
        patches = _heap(rng, name) if i == plan.heap else FIGURES[name].draw(rng)
        low, high = (0.6, 0.95) if i == plan.heap else FIGURES[name].size
        size = max(low * 0.9, rng.uniform(low, high) * crowd_scale) * short
        flags = GROUP_OF if i == plan.heap else 0
        if not flags and rng.random() < knobs.depictions:
            flags, size = DEPICTION, size * 0.8
        if FIGURES[name].subject == 'Person' and rng.random() < knobs.portraits:
            patches = crop_at_waist(patches)
            flags |= TRUNCATED
        models.append((name, _pose(rng, patches, FIGURES[name].tilt, size), flags))
    models.sort(key=lambda model: -np.ptp(extent(model[1]).reshape(2, 2), axis=0).prod())

    placed: list[Placed] = []
    for name, patches, flags in models:
        placed.append(
            _place(rng, knobs, name, patches, flags, placed, limit, (height, width, horizon))
        )
    placed.sort(key=lambda p: p.depth)
    if plan.inside:
        view = transform(FIGURES['cabin'].draw(rng), np.diag([width, height]))
        placed.append(Placed('cabin', view, INSIDE | TRUNCATED, np.inf, extent(view)))
    while True:
        owner, objects, visible = _visible_objects(placed, height, width)
        if min(visible, default=1) >= min_visible:
            return Scene(plan, height, width, horizon, placed, owner, objects)
        del placed[int(np.argmin(visible))]


def _heap(rng: np.random.Generator, name: str) -> list[Patch]:
    """A heap of five to nine objects of a kind, without shadows and other loose patches."""
    patches: list[Patch] = []
    for row, n in enumerate(((2, 3, 2), (3, 3, 3), (2, 3))[int(rng.integers(3))]):
        for x in np.arange(n) - (n - 1) / 2 + rng.uniform(-0.2, 0.2):
            single = [p for p in FIGURES[name].draw(rng) if p.solid]
            x0, y0, x1, y1 = extent(single)
            offset = (
                x * 0.62 * (x1 - x0) + rng.uniform(-0.06, 0.06),
                row * 0.5 * (y1 - y0) + rng.uniform(-0.05, 0.05),
            )
            patches += transform(single, np.eye(2) * rng.uniform(0.9, 1.1), offset)
    return patches


def _pose(rng: np.random.Generator, patches: list[Patch], tilt: float, size: float) -> list[Patch]:
    """Rotate, maybe mirror, and scale patches so that the longer side is ``size`` pixels."""
    matrix = rotate(np.eye(2), rng.uniform(-tilt, tilt))
    stretch = rng.uniform(0.93, 1.07)
    matrix = matrix @ np.diag([stretch * rng.choice([-1, 1]), 1 / stretch])
    patches = transform(patches, matrix)
    x0, y0, x1, y1 = extent(patches)
    return transform(patches, np.eye(2) * size / max(x1 - x0, y1 - y0))


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
    """Place a figure so that its overlap with each other figure is at most ``limit``.

    After ``tries`` random places, the one with the smallest overlap is taken.
    """
    height, width, horizon = frame
    position = FIGURES[name].position
    if flags & DEPICTION:
        position = 'air'
    elif flags & TRUNCATED:
        position = 'border'
    others = np.array([one.around for one in placed]).reshape(-1, 4)
    truncate = rng.random() < knobs.truncated and not flags
    x0, y0, x1, y1 = extent(patches)
    scale = min(1.0, 0.97 * width / (x1 - x0), 0.97 * height / (y1 - y0))
    box, best, lowest = np.zeros(4), np.zeros(4), np.inf
    for i in range(tries):
        if i and i % 8 == 0:
            scale *= 0.9
        w, h = (x1 - x0) * scale, (y1 - y0) * scale
        left = rng.uniform(0.01 * width, max(0.01 * width, 0.99 * width - w))
        bottom = _bottom(rng, position, h, height, horizon)
        if truncate:
            share = rng.uniform(0.12, 0.4)
            side = rng.integers(4 if position == 'air' else 3)
            left = (-share * w, width - (1 - share) * w, left, left)[side]
            bottom = (bottom, bottom, height + share * h, (1 - share) * h)[side]
        box = np.array([left, bottom - h, left + w, bottom])
        cover = _cover(box, others)
        if cover < lowest:
            best, lowest = box, cover
        if cover <= limit:
            break
    scale = (best[2] - best[0]) / (x1 - x0)
    patches = transform(patches, np.eye(2) * scale, best[:2] - (x0 * scale, y0 * scale))
    depth = {'wall': -1.0, 'air': rng.uniform(0, height)}.get(position, float(best[3]))
    if flags & DEPICTION:
        patches, depth = _picture_frame(rng, patches) + patches, -2.0
    return Placed(name, patches, flags, depth, best)


def _bottom(
    rng: np.random.Generator, position: str, h: float, height: int, horizon: float
) -> float:
    lowest = 0.985 * height
    if position == 'air':
        return rng.uniform(h + 0.01 * height, max(h + 0.01 * height, lowest))
    if position == 'border':
        return height
    if position == 'wall':
        return min(lowest, max(h, horizon + 0.01 * height))
    return rng.uniform(min(lowest, max(h, horizon + 0.2 * (height - horizon))), lowest)


def _cover(box: np.ndarray, others: np.ndarray) -> float:
    """Maximum over ``others`` of the intersection divided by the smaller of the two areas."""
    if len(others) == 0:
        return 0.0
    return float((matched_intersection(box, others) / np.minimum(area(others), area(box))).max())


def _picture_frame(rng: np.random.Generator, patches: list[Patch]) -> list[Patch]:
    """A frame and paper behind a depicted figure."""
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


def _visible_objects(
    placed: list[Placed], height: int, width: int
) -> tuple[np.ndarray, list[VisibleObject], list[float]]:
    """Compute visibility from an id buffer.

    Each combination of an object and its parts is a slot. Its number is drawn without
    anti-aliasing.

    Returns:
        tuple: ``owner`` and ``objects`` of :class:`Scene`, and the visible share of each figure.
    """
    buffer = np.zeros((height, width), np.uint8)
    slots: list[tuple[int, tuple[str, ...]]] = [(-1, ())]
    n_unoccluded = []  # per object, the pixels of each slot before another object covers it
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
        n_unoccluded.append(np.bincount(buffer.ravel(), minlength=256))
    owner = np.array([i + 1 for i, _ in slots], np.uint8)
    n_visible = np.bincount(buffer.ravel(), minlength=256)
    objects, visible = [], []
    for i, one in enumerate(placed):
        of_object = [s for s, (j, _) in enumerate(slots) if j == i]
        bbox, flags, share = _visible_box(
            buffer, of_object, n_unoccluded[i], n_visible, one.around, height, width
        )
        visible.append(share)
        names = sorted({name for s in of_object for name in slots[s][1]})
        parts = []
        for name in names:
            if bbox is None or one.flags & GROUP_OF:
                break
            of_part = [s for s in of_object if name in slots[s][1]]
            around = extent([p for p in one.patches if name in p.parts])
            part_bbox, part_flags, part_share = _visible_box(
                buffer, of_part, n_unoccluded[i], n_visible, around, height, width
            )
            if part_bbox is not None and part_share >= 0.25:
                parts.append(
                    VisiblePart(name.split(':')[0], part_bbox, part_flags | one.flags & DEPICTION)
                )
        if bbox is not None:
            objects.append(VisibleObject(one.figure, bbox, flags | one.flags, tuple(parts)))
    return owner[buffer], objects, visible


def _visible_box(
    buffer: np.ndarray,
    slots: list[int],
    n_unoccluded: np.ndarray,
    n_visible: np.ndarray,
    around: np.ndarray,
    height: int,
    width: int,
    min_side: int = 4,
) -> tuple[tuple[float, ...] | None, int, float]:
    """Return the visible box of some slots, its flags, and the visible share.

    The box is :obj:`None` if it is narrower than ``min_side`` pixels.
    """
    in_view = n_unoccluded[slots].sum()
    share = float(n_visible[slots].sum() / in_view) if in_view else 0.0
    clipped, whole_area = np.clip(around, 0, [width, height] * 2), (around[2:] - around[:2]).prod()
    outside = 1 - (clipped[2:] - clipped[:2]).prod() / whole_area
    share *= 1 - outside
    lookup = np.zeros(256, bool)
    lookup[slots] = True
    mask = lookup[buffer]
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(xs) < min_side or len(ys) < min_side:
        return None, 0, 0.0
    # The outline gives edges with subpixel accuracy, the pixels account for occlusion.
    x0, y0 = max(xs[0], clipped[0]), max(ys[0], clipped[1])
    x1, y1 = min(xs[-1] + 1, clipped[2]), min(ys[-1] + 1, clipped[3])
    flags = (OCCLUDED if n_visible[slots].sum() < 0.95 * in_view else 0) | (
        TRUNCATED if outside > 0.01 else 0
    )
    return (
        (float(x0 / width), float(y0 / height), float(x1 / width), float(y1 / height)),
        flags,
        share,
    )
