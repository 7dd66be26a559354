"""Augmentations against plain formulas, pixel by pixel and box by box."""

import colorsys
import itertools
import math

import cv2
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.training.augmentation import (
    FILL,
    Augmentation,
    color_matrix,
    crop_boxes,
    jitter_color,
    random_crop,
    rotate,
    rotated_size,
)

# Colors.


def luma(pixel):
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def chroma_of(pixel):
    """The chroma as a complex number I + jQ."""
    r, g, b = map(float, pixel)
    return complex(0.5959 * r - 0.2746 * g - 0.3213 * b, 0.2115 * r - 0.5227 * g + 0.3112 * b)


def turned(pixel, hue):
    """Turn the chroma of a pixel; the luma stays."""
    chroma = chroma_of(pixel) * complex(math.cos(2 * math.pi * hue), -math.sin(2 * math.pi * hue))
    # The inverse of the conversion to YIQ.
    return [
        luma(pixel) + k * chroma.real + m * chroma.imag
        for k, m in ((0.9561, 0.6208), (-0.2721, -0.6472), (-1.1067, 1.7044))
    ]


def plain_jitter(img, order, brightness, contrast, saturation, hue):
    """The operations of torchvision's ColorJitter one after the other, without clipping."""
    pixels = [[float(c) for c in pixel] for pixel in img.reshape(-1, 3)]
    for name in order:
        if name == 'brightness':
            pixels = [[brightness * c for c in p] for p in pixels]
        elif name == 'contrast':
            mean = sum(map(luma, pixels)) / len(pixels)
            pixels = [[contrast * c + (1 - contrast) * mean for c in p] for p in pixels]
        elif name == 'saturation':
            pixels = [[saturation * c + (1 - saturation) * luma(p) for c in p] for p in pixels]
        else:
            pixels = [turned(p, hue) for p in pixels]
    return np.array(pixels).reshape(img.shape)


OPERATIONS = 'brightness', 'contrast', 'saturation', 'hue'
FACTORS = [
    (1, 1, 1, 0),
    (1.4, 1, 1, 0),
    (0.3, 1, 1, 0),
    (1, 1.7, 1, 0),
    (1, 0.2, 1, 0),
    (1, 1, 0, 0),
    (1, 1, 1.9, 0),
    (1, 1, 1, 0.1),
    (1, 1, 1, -0.25),
    (0.8, 1.3, 0.6, 0.07),
    (1.5, 0.6, 1.4, -0.12),
]


@pytest.mark.parametrize('factors', FACTORS)
def test_one_matrix_does_all_operations_in_any_order(factors):
    img = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    matrix = color_matrix(img.reshape(-1, 3).mean(axis=0), *factors)
    exact = img @ matrix[:, :3].T + matrix[:, 3]
    for order in itertools.permutations(OPERATIONS):
        expected = plain_jitter(img, order, *factors)
        # The constants of the inverse conversion have four digits.
        np.testing.assert_allclose(exact, expected, atol=0.1)
    # OpenCV computes with fixed-point numbers and rounds.
    drawn = cv2.transform(img, matrix).astype(float)
    assert abs(drawn - np.clip(exact, 0, 255)).max() <= 1.01


@pytest.mark.parametrize('hue', [-0.25, -0.1, 0.05, 0.15, 0.25])
def test_hue_turns_as_in_hsv(hue):
    """In the same direction and by almost the same angle."""
    matrix = color_matrix(np.zeros(3), 1, 1, 1, hue)[:, :3]
    turns = []
    for h in np.arange(0, 1, 1 / 48):
        r, g, b = 128 + 40 * matrix @ (np.array(colorsys.hsv_to_rgb(h, 1, 1)) - 0.5)
        turn = colorsys.rgb_to_hsv(r, g, b)[0] - h
        turns.append((turn - hue + 0.5) % 1 - 0.5)
    assert abs(np.mean(turns)) < 0.03 and max(map(abs, turns)) < 0.13


def test_strength_limits_the_factors():
    """On grey pixels only brightness acts, on grey images of two values also contrast."""
    s = 0.4
    rng = np.random.default_rng(0)
    flat = np.full((2, 2, 3), 100, np.uint8)
    values = np.array([jitter_color(rng, flat, s)[0, 0] for _ in range(400)]).astype(int)
    assert (np.ptp(values, axis=1) <= 1).all()
    assert 60 <= values.min() <= 63 and 137 <= values.max() <= 140
    two = np.stack([flat, flat + 20])
    ratios = []
    for _ in range(400):
        low, high = (jitter_color(rng, two.reshape(4, 2, 3), s).astype(float))[[0, 2], 0, 0]
        ratios.append((high - low) / (high + low) * 11)
    assert 0.55 < min(ratios) < 0.7 and 1.3 < max(ratios) < 1.45
    # The angle of the chroma depends on the hue alone, its length also on the saturation.
    red = np.zeros((2, 2, 3), np.uint8) + np.array([120, 80, 95], np.uint8)
    jittered = [jitter_color(rng, red, s)[0, 0] for _ in range(400)]
    chroma = np.array([chroma_of(pixel) for pixel in jittered]) / chroma_of([120, 80, 95])
    degrees = np.degrees(np.angle(chroma))
    assert -37 < degrees.min() < -34 and 34 < degrees.max() < 37
    assert 0.2 < abs(chroma).min() < 0.4 and 2.2 < abs(chroma).max() < 2.8


def test_colors_keep_shape_and_type():
    img = np.random.default_rng(0).integers(0, 256, (5, 9, 3), np.uint8)
    out = jitter_color(np.random.default_rng(1), img[:, 2:8], 1.0)
    assert out.shape == (5, 6, 3) and out.dtype == np.uint8


# Crops.


def plain_crop(box, part, min_visibility):
    y_min, x_min = max(box[0], part[0]), max(box[1], part[1])
    y_max, x_max = min(box[2], part[2]), min(box[3], part[3])
    if y_max <= y_min or x_max <= x_min:
        return None
    area = (box[2] - box[0]) * (box[3] - box[1])
    if (y_max - y_min) * (x_max - x_min) < min_visibility * area:
        return None
    return y_min - part[0], x_min - part[1], y_max - part[0], x_max - part[1]


@pytest.mark.parametrize('min_visibility', [0, 0.1, 0.25, 0.5, 1])
def test_cropped_boxes(min_visibility):
    part = (8, 16, 40, 80)
    boxes = [
        (8, 16, 40, 80),  # the part
        (10, 20, 30, 40),  # inside
        (0, 0, 100, 100),  # around
        (0, 0, 8, 16),  # touches a corner
        (40, 20, 60, 40),  # touches an edge
        (0, 16, 16, 32),  # half
        (0, 0, 16, 32),  # a quarter
        (36, 20, 76, 30),  # a tenth
        (36, 20, 77, 30),  # less than a tenth
        (90, 90, 99, 99),  # outside
    ]
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 90, (200, 2))
    boxes += [tuple(b) for b in np.concatenate([low, low + rng.uniform(1, 60, (200, 2))], axis=1)]
    found, kept = crop_boxes(np.array(boxes, float), part, min_visibility)
    expected = [plain_crop(box, part, min_visibility) for box in boxes]
    assert kept.tolist() == [e is not None for e in expected]
    assert 5 < kept.sum() < len(boxes) - 5
    np.testing.assert_allclose(found[kept], [e for e in expected if e is not None])
    # Rounding must not drop a box that is not cut.
    inside = np.random.default_rng(1).uniform([8, 16, 20, 40], [20, 40, 40, 80], (500, 4))
    assert crop_boxes(inside, part, 1)[1].all()
    assert crop_boxes(np.zeros((0, 4), np.float32), part, 0.1)[0].shape == (0, 4)


@pytest.mark.parametrize('size', [(480, 640), (333, 1001), (97, 61), (7, 5)])
@pytest.mark.parametrize('min_share', [0.1, 0.5, 0.9])
def test_random_crops(size, min_share):
    H, W = size
    rng = np.random.default_rng(0)
    box = np.array([[0.4 * H, 0.4 * W, 0.6 * H, 0.6 * W]])
    shares, ratios = [], []
    for _ in range(300):
        y_min, x_min, y_max, x_max = part = random_crop(rng, size, box, min_share, 0.1)
        assert 0 <= y_min < y_max <= H and 0 <= x_min < x_max <= W
        assert y_min % 8 == x_min % 8 == 0
        assert (y_max % 8 == 0 or y_max == H) and (x_max % 8 == 0 or x_max == W)
        h, w = y_max - y_min, x_max - x_min
        shares.append(h * w / (H * W))
        ratios.append((h / H) / (w / W))
        assert crop_boxes(box, part, 0.1)[1].all()
    assert min(shares) >= min_share
    if H >= 300:
        # The grid makes parts somewhat larger.
        assert min(shares) < min_share + 0.12 and max(shares) > 0.97
        assert abs(np.mean(shares) - (1 + min_share) / 2) < 0.08
        assert min(ratios) >= 0.7 and max(ratios) <= 1.4
        assert min_share > 0.5 or (min(ratios) < 0.8 and max(ratios) > 1.25)


def test_a_crop_keeps_a_box():
    rng = np.random.default_rng(0)
    corner = np.array([[0, 0, 40, 40]], float)
    parts = [random_crop(rng, (800, 800), corner, 0.3, 0.5) for _ in range(200)]
    assert all(crop_boxes(corner, part, 0.5)[1].all() for part in parts)
    assert len(set(parts)) > 20
    # Only the whole image has all of this box.
    whole = np.array([[0, 0, 800, 800]], float)
    assert random_crop(rng, (800, 800), whole, 0.3, 1) == (0, 0, 800, 800)
    # Without boxes any part is as good.
    nothing = {random_crop(rng, (800, 800), np.zeros((0, 4)), 0.3, 0.5) for _ in range(50)}
    assert len(nothing) > 40


# Rotations.

ANGLES = [0, 90, -90, 180, 7.5, -30, 45, 133]


def smooth_image(H, W):
    y, x = np.mgrid[:H, :W]
    return np.stack([4 * y, 3 * x, 60 + 2 * x + y], axis=2).astype(np.uint8)


def plain_rotation(img, angle, size):
    """Bilinear interpolation at each pixel's place before the rotation."""
    H, W = img.shape[:2]
    padded = np.empty((H + 2, W + 2, 3))
    padded[:] = FILL
    padded[1:-1, 1:-1] = img
    out = np.empty((*size, 3))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    for i in range(size[0]):
        for j in range(size[1]):
            # Upwards and to the right of the centre.
            up, right = size[0] / 2 - (i + 0.5), j + 0.5 - size[1] / 2
            up, right = up * cos - right * sin, up * sin + right * cos
            y, x = H / 2 - up - 0.5, W / 2 + right - 0.5
            if not (-1 < y < H and -1 < x < W):
                out[i, j] = FILL
                continue
            a, b = math.floor(y), math.floor(x)
            v, u = y - a, x - b
            four = padded[a + 1 : a + 3, b + 1 : b + 3]
            out[i, j] = np.einsum('ijk,i,j->k', four, [1 - v, v], [1 - u, u])
    return out


@pytest.mark.parametrize('angle', ANGLES)
@pytest.mark.parametrize('img_size', [(31, 44), (40, 27)])
def test_rotated_pixels(angle, img_size):
    img = smooth_image(*img_size)
    size = tuple(math.ceil(n - 1e-9) + 2 for n in rotated_size(img_size, angle))
    ours, _ = rotate(img, np.zeros((0, 4)), angle, size)
    expected = plain_rotation(img, angle, size)
    assert ours.shape == (*size, 3) and ours.dtype == np.uint8
    difference = abs(ours - expected)
    # OpenCV rounds places to 1/32 of a pixel. A difference of half a pixel would be 2 or more.
    assert np.percentile(difference, 80) < 0.6 and difference.mean() < 0.8


@pytest.mark.parametrize('quarter', [1, 2, 3])
def test_quarter_turns_are_exact(quarter):
    img = np.random.default_rng(0).integers(0, 256, (13, 18, 3), np.uint8)
    expected = np.rot90(img, quarter)
    bbox = np.array([[2, 3, 7, 9]], float)
    mask = np.zeros(img.shape[:2])
    mask[2:7, 3:9] = 1
    ours, box = rotate(img, bbox, 90 * quarter, expected.shape[:2])
    np.testing.assert_array_equal(ours, expected)
    rows, columns = np.nonzero(np.rot90(mask, quarter))
    np.testing.assert_allclose(
        box, [[rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]], atol=1e-9
    )


@pytest.mark.parametrize('angle', ANGLES)
def test_rotated_boxes_and_size(angle):
    H, W = 31, 44
    low = np.random.default_rng(0).uniform(0, 25, (20, 2))
    bbox = np.concatenate([low, np.minimum(low + 9, [H, W])], axis=1)
    bbox = np.concatenate([bbox, [[0, 0, H, W]]])
    turn = complex(math.cos(math.radians(angle)), math.sin(math.radians(angle)))

    def around(box):
        places = [complex(x - W / 2, H / 2 - y) * turn for y in box[::2] for x in box[1::2]]
        right, up = [p.real for p in places], [p.imag for p in places]
        return min(right), max(right), min(up), max(up)

    left, right, bottom, top = around((0, 0, H, W))
    size = rotated_size((H, W), angle)
    np.testing.assert_allclose(size, (top - bottom, right - left))
    # Larger than necessary, so that nothing is clipped.
    _, found = rotate(smooth_image(H, W), bbox, angle, (70, 80))
    for ours, box in zip(found, bbox, strict=True):
        left, right, bottom, top = around(box)
        np.testing.assert_allclose(ours, [35 - top, 40 + left, 35 - bottom, 40 + right], atol=1e-9)
    # Smaller: clipped to the result.
    _, found = rotate(smooth_image(H, W), bbox, angle, (20, 20))
    assert (found >= 0).all() and (found <= 20).all()


@pytest.mark.parametrize(
    'field, value, expected',
    [
        ('color_jitter', -0.1, '0 to 1'),
        ('color_jitter', 1.5, '0 to 1'),
        ('color_jitter', math.nan, '0 to 1'),
        ('crop', 0, 'more than 0, and at most 1'),
        ('crop', 1.01, 'more than 0, and at most 1'),
        ('rotation', -1, '0 to 180'),
        ('rotation', 181, '0 to 180'),
        ('min_visibility', 2, '0 to 1'),
    ],
)
def test_values_out_of_range(field, value, expected):
    with pytest.raises(InputError, match=f'{field}={value}: expected {expected}'):
        Augmentation(**{field: value})
