"""From a recipe to its parts."""

from functools import partial

import chainer
import numpy as np

from pfdet.errors import InputError
from pfdet.functions.sigmoid import sigmoid_cross_entropy
from pfdet.iterators.samplers import SequentialSampler, aspect_groups
from pfdet.links.backbones import BACKBONES, backbone_name
from pfdet.links.bbox_head import SigmoidBboxHead
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.links.fpn import FPN
from pfdet.links.rpn import RPN
from pfdet.openimages.classes import Classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.recipes.recipe import Recipe
from pfdet.targets import rules
from pfdet.training.train_chain import TrainChain

LOSSES = {'sigmoid': sigmoid_cross_entropy}
SAMPLERS = {'sequential': SequentialSampler}


def detector(recipe: Recipe, n_class: int, seed: int = 0) -> FasterRCNN:
    """The network of a recipe, with random weights.

    Args:
        recipe (Recipe): What to build.
        n_class (int): Number of foreground classes.
        seed (int): Of the weights; the same on all ranks.

    Raises:
        InputError: The recipe names a backbone that does not exist.
    """
    if recipe.dtype not in ('float32', 'float64'):
        raise InputError(f'dtype={recipe.dtype}: expected float32 or float64')
    # Chainer's initializers draw from NumPy's global generator.
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        with chainer.using_config('dtype', np.dtype(recipe.dtype)):
            return _detector(recipe, n_class)
    finally:
        np.random.set_state(state)


def _detector(recipe: Recipe, n_class: int) -> FasterRCNN:
    backbone = BACKBONES[backbone_name(recipe.backbone)]()
    extractor = FPN(
        backbone, recipe.fpn_channel, recipe.fpn_scale, recipe.fpn_bn, recipe.psp)
    rpn = RPN(extractor.scales, recipe.anchor_ratios, recipe.anchor_size, recipe.fpn_channel,
              train_limits=recipe.train_proposals, test_limits=recipe.test_proposals)
    head = SigmoidBboxHead(
        n_class, extractor.scales[:recipe.fpn_scale], recipe.fpn_channel, recipe.head_unit,
        recipe.head_bn, recipe.context, recipe.class_agnostic, recipe.canonical_size)
    # ChainerCV's backbones learn their input channels from a first image.
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        extractor(np.zeros((1, 3, 128, 128), recipe.dtype))
    return FasterRCNN(extractor, rpn, head)


def train_chain(recipe: Recipe, network: FasterRCNN, classes: Classes, hierarchy: Hierarchy,
                seed: int) -> TrainChain:
    """The loss of a recipe.

    Args:
        recipe (Recipe): Which loss and rules.
        network (FasterRCNN): What it trains.
        classes (Classes): The label space.
        hierarchy (Hierarchy): The classes' relation.
        seed (int): Of the choice of anchors and regions.

    Raises:
        InputError: The recipe names a loss that does not exist.
    """
    target_rules = [
        partial(rules.ignore_descendants, descendants=hierarchy.descendants),
        rules.ignore_group_of]
    if recipe.cooccurrence:
        pairs = rules.CooccurrencePairs(*read_pairs(classes))
        target_rules.append(partial(rules.ignore_cooccurring, pairs=pairs))
    return TrainChain(network, _choose(LOSSES, recipe.loss, 'loss'), tuple(target_rules), seed,
                      recipe.n_anchor, recipe.n_roi)


def sampler(recipe: Recipe, sizes: np.ndarray, seed: int) -> SequentialSampler:
    """The global order of a recipe.

    Args:
        recipe (Recipe): Which sampler.
        sizes (int array): Heights and widths of the images, :math:`(n, 2)`.
        seed (int): Of the order.

    Raises:
        InputError: The recipe names a sampler that does not exist.
    """
    group = aspect_groups(sizes) if recipe.aspect_chunk > 1 else None
    return _choose(SAMPLERS, recipe.sampler, 'sampler')(
        len(sizes), seed, group, recipe.aspect_chunk)


def _choose(known: dict, name: str, what: str):
    if name not in known:
        raise InputError(f'{what}={name}: no such {what}; expected one of {", ".join(known)}')
    return known[name]
