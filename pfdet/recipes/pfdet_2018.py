"""The rows of PFDet's tables, and the recipe of the quickstart."""

from dataclasses import replace

from pfdet.recipes.recipe import Recipe, at_scale

BASELINE = Recipe(
    name='table1-baseline',
    about='PFDet Table 1: Baseline (FPN with SE-ResNeXt-101), sigmoid loss, 12 epochs, a tenth of '
          'the learning rate from epochs 8 and 11')

MULTISCALE = replace(
    BASELINE, name='table1-multiscale', about='PFDet Table 1: + multi-scale training',
    min_size=(640, 1056))

MINI = at_scale(replace(
    MULTISCALE, name='mini', head_bn=True, schedule='cosine', cooccurrence=True,
    about='The quickstart: multi-scale training, BN in the head, cosine annealing and '
          'co-occurrence loss at mini scale'), 'mini')

RECIPES = (BASELINE, MULTISCALE, MINI)
