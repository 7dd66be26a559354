"""Recipes at mini size: the same switches on a network and images for two CPU cores."""

import dataclasses

from pfdet.recipes.recipe import Recipe

# What mini size replaces: numbers, never switches.
_MINI = {
    'size': 'mini',
    'backbone': 'mini_se_resnext',
    'fpn_channel': 32,
    'head_unit': 256,
    'canonical_size': 56,
    'n_anchor': 128,
    'n_roi': 128,
    'train_proposals': (300, 300),
    'test_proposals': (300, 300),
    'aspect_chunk': 8,
    'batch_size': 4,
}
# By the scales of the pyramid. Anchors double from level to level, and those of the coarsest may
# not be so large that no object of an image this small is matched to one.
_ANCHOR_SIZE = {4: 16, 5: 10}
_MAX_PER_IMAGE = 100
# Proportions of lengths: of the shorter edge, and of the limit of the longer one.
_EDGE = 160 / 800
_LIMIT = 256 / 1333
# Small networks tolerate a higher learning rate, and with so few iterations they need it.
_LR = 4
# A run of 1,000 images has far fewer iterations than one of 1.7 million.
_WARMUP = 1 / 10


def at_size(recipe: Recipe, size: str) -> Recipe:
    """The same switches at another size.

    Args:
        recipe (Recipe): At full size.
        size (str): ``'full'`` or ``'mini'``.

    Returns:
        Recipe: With edge lengths in training and prediction in the same proportions to each other.

    Raises:
        ValueError: ``size`` is neither.
    """
    if size == recipe.size:
        return recipe
    if size != 'mini':
        raise ValueError(f'size must be full or mini, not {size!r}')
    return dataclasses.replace(
        recipe,
        **_MINI,
        anchor_size=_ANCHOR_SIZE[recipe.fpn_scale],
        min_size=_scaled(recipe.min_size),
        max_size=round(recipe.max_size * _LIMIT),
        test_sizes=_scaled(recipe.test_sizes),
        max_per_image=min(recipe.max_per_image, _MAX_PER_IMAGE),
        base_lr=recipe.base_lr * _LR,
        warmup_iterations=round(recipe.warmup_iterations * _WARMUP),
    )


def _scaled(edges: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(round(edge * _EDGE) for edge in edges)
