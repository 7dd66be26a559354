"""Render a composed scene as an image, with lighting, blur, noise and a JPEG quality."""

import cv2
import numpy as np

from pfdet.openimages.mini.backdrops import draw_backdrop
from pfdet.openimages.mini.knobs import Knobs
from pfdet.openimages.mini.scene import Scene
from pfdet.openimages.mini.shapes import Patch


def paint(scene: Scene, knobs: Knobs, supersample: int = 2) -> tuple[np.ndarray, int]:
    """Render a scene.

    Args:
        scene (Scene): The scene.
        knobs (Knobs): For the seed.
        supersample (int): Factor by which the canvas is larger than the image.

    Returns:
        tuple: An image, uint8 :math:`(H, W, 3)`, BGR as for OpenCV, and its JPEG quality.
    """
    plan = scene.plan
    rng = np.random.default_rng(knobs.rng_seed(plan.split, 2, plan.number))
    backdrop, patches = draw_backdrop(rng, plan.setting, scene.height, scene.width, scene.horizon)
    size = (scene.width * supersample, scene.height * supersample)
    canvas = cv2.resize(np.clip(backdrop, 0, 255).astype(np.uint8), size)
    if rng.random() < 0.5:  # out-of-focus background
        fill(canvas, patches, supersample)
        canvas = cv2.GaussianBlur(canvas, (0, 0), supersample * rng.uniform(0.6, 2.0))
    else:
        fill(canvas, patches, supersample)
    for one in scene.placed:
        fill(canvas, one.patches, supersample)
    image = cv2.resize(canvas, (scene.width, scene.height), interpolation=cv2.INTER_AREA)
    return _simulate_camera(rng, image.astype(np.float32) * _shading(rng, scene)[..., None])


def fill(canvas: np.ndarray, patches: list[Patch], scale: float) -> None:
    """Draw patches, in order, on an RGB canvas.

    Args:
        canvas (array): uint8 :math:`(H, W, 3)`. Modified.
        patches (list of Patch): The patches.
        scale (float): Factor from the coordinates of the patches to pixels of the canvas.
    """
    for patch in patches:
        points = np.round((patch.points * scale - 0.5) * 16).astype(np.int32)
        if patch.alpha >= 1:
            cv2.fillPoly(canvas, [points], patch.colour, cv2.LINE_AA, 4)
            continue
        # Blend within the bounding box of the patch only.
        x0, y0 = np.maximum(points.min(axis=0) // 16 - 1, 0)
        x1, y1 = points.max(axis=0) // 16 + 2
        below = canvas[y0:y1, x0:x1]
        if below.size:
            above = below.copy()
            cv2.fillPoly(
                above, [points - np.int32([x0 * 16, y0 * 16])], patch.colour, cv2.LINE_AA, 4
            )
            canvas[y0:y1, x0:x1] = cv2.addWeighted(above, patch.alpha, below, 1 - patch.alpha, 0)


def _shading(rng: np.random.Generator, scene: Scene, strength: float = 0.3) -> np.ndarray:
    """Factors :math:`(H, W)` for light on each object from above and from one side."""
    light = np.ones((scene.height, scene.width), np.float32)
    side = rng.uniform(-1, 1)
    for i in range(len(scene.placed)):
        mask = scene.owner == i + 1
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(ys) == 0:
            continue
        y0, y1, x0, x1 = ys[0], ys[-1] + 1, xs[0], xs[-1] + 1
        y = np.linspace(0.5, -0.5, y1 - y0, dtype=np.float32)[:, None]
        x = np.linspace(-0.5, 0.5, x1 - x0, dtype=np.float32)[None, :]
        factor = 1 + strength * (0.7 * y + 0.6 * side * x)
        inside = mask[y0:y1, x0:x1]
        light[y0:y1, x0:x1][inside] = factor[inside]
    return cv2.blur(light, (3, 3))


def _simulate_camera(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, int]:
    """Apply exposure, contrast, a colour cast, a vignette, blur and noise."""
    height, width = image.shape[:2]
    contrast, exposure = rng.uniform(0.75, 1.15), rng.uniform(0.72, 1.18)
    cast = 1 + rng.uniform(-0.09, 0.09, 3).astype(np.float32)
    image = ((image - 128) * np.float32(contrast) + 128) * (np.float32(exposure) * cast)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    image *= (1 - np.float32(rng.uniform(0, 0.22)) * (x * x + y * y))[..., None]
    blur = rng.uniform(0, 0.9)
    if blur > 0.35:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 6))
    image = np.clip(image, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image[..., ::-1]), int(rng.integers(70, 96))
