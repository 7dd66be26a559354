"""What the recipes' image sizes mean for the RPN's levels and for the limit of the longer edge."""

import numpy as np
import pytest

from pfdet import recipes
from pfdet.links.rpn import RPN
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.openimages.resizing import resized_size
from pfdet.targets.batch_truth import collate
from pfdet.targets.sampling import priorities, sample_anchors

SIZES = 'full', 'mini'
# Height, width and share of photographs, about those of Open Images.
PHOTOGRAPHS = (
    (768, 1024, 0.45),
    (1024, 768, 0.15),
    (683, 1024, 0.17),
    (1024, 683, 0.08),
    (576, 1024, 0.05),
    (1024, 1024, 0.05),
    (512, 1024, 0.05),
)


def rows(size):
    return [r if r.size == size else recipes.at_size(r, size) for r in of_size(size)]


def of_size(size):
    return [r for r in recipes.RECIPES.values() if size == 'mini' or r.size == 'full']


def proposals(recipe):
    """All that decides which anchors are positive."""
    return (
        recipe.fpn_scale,
        recipe.anchor_size,
        recipe.anchor_ratios,
        recipe.anchor_border,
        recipe.rpn_positive_iou,
        recipe.rpn_negative_iou,
        recipe.min_size,
        recipe.max_size,
    )


SETTINGS = sorted({proposals(r) for size in SIZES for r in rows(size)})


def positives_by_level(settings, n_image):
    """The positive anchors of each level on random objects in random photographs."""
    n_scale, anchor_size, ratios, border, positive_iou, negative_iou, min_size, max_size = settings
    scales = [1 / 2 ** (level + 2) for level in range(n_scale + 1)]
    rpn = RPN(scales, ratios, anchor_size, 4)
    rng = np.random.default_rng(0)
    counts = np.zeros(n_scale + 1, int)
    for image in range(n_image):
        height, width, _ = PHOTOGRAPHS[image % len(PHOTOGRAPHS)]
        size = resized_size((height, width), rng.integers(min_size[0], min_size[1] + 1), max_size)
        # From a pixel or two to the whole image, by area
        side = np.array(size) * np.exp(rng.uniform(-3.5, 0, (12, 1)))
        side[0] = size
        corner = rng.uniform(0, 1, (12, 2)) * (size - side)
        bbox = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
        none = np.zeros(2, bool)
        truth = collate(
            [bbox],
            [np.eye(2, dtype=bool)[np.zeros(12, int)]],
            [np.zeros(12, np.uint8)],
            [none],
            [none],
            flat_hierarchy(2),
        )
        stride = round(1 / scales[-1])
        padded = [-(-n // stride) * stride for n in size]
        maps = [(round(padded[0] * s), round(padded[1] * s)) for s in scales]
        anchors = rpn.anchors(maps)
        sampled = sample_anchors(
            anchors,
            truth,
            np.array([size], np.float32),
            priorities(0, [image], len(anchors)),
            len(anchors) * 4,
            positive_iou=positive_iou,
            negative_iou=negative_iou,
            border=border,
        )
        ends = np.cumsum([h * w * len(ratios) for h, w in maps])
        level = np.searchsorted(ends, sampled.anchor[sampled.positive], side='right')
        counts += np.bincount(level, minlength=n_scale + 1)
    return counts


@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_every_level_learns_from_positives(settings):
    assert (positives_by_level(settings, 7) > 0).all()


def test_with_no_anchor_across_the_border_the_coarsest_level_learns_nothing():
    scale = recipes.override(
        recipes.find('table1-scale'), ['anchor_border=0', 'min_size=(800, 800)', 'max_size=1333']
    )
    assert positives_by_level(proposals(scale), 7)[-1] == 0


@pytest.mark.parametrize('size', SIZES)
def test_the_limit_of_the_longer_edge_cuts_few_draws(size):
    share = [s for _, _, s in PHOTOGRAPHS]
    for recipe in rows(size):
        edges = np.arange(recipe.min_size[0], recipe.min_size[1] + 1)
        cut = [
            np.mean([min(resized_size((h, w), int(e), recipe.max_size)) < e for e in edges])
            for h, w, _ in PHOTOGRAPHS
        ]
        order = np.argsort(cut)
        median = np.array(cut)[order][np.searchsorted(np.cumsum(np.array(share)[order]), 0.5)]
        assert median < 0.02, recipe.name
        # Photographs of 3:2 are never cut.
        assert cut[2] == cut[3] == 0, recipe.name
