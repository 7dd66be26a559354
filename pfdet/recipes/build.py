"""From a recipe to its parts."""

from functools import partial

import chainer
import numpy as np

from pfdet.errors import InputError
from pfdet.functions.class_weights import effective_number_weights
from pfdet.functions.losses import LOSSES, SCORES, loss_function, score_function
from pfdet.iterators.samplers import SequentialSampler, aspect_groups
from pfdet.links.backbones import BACKBONES, backbone_name
from pfdet.links.bbox_head import BboxHead
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.links.fpn import FPN
from pfdet.links.rpn import RPN
from pfdet.openimages.classes import Classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.recipes.recipe import Recipe
from pfdet.targets import rules
from pfdet.training.train_chain import TrainChain

SAMPLERS = {'sequential': SequentialSampler}


def needs_rates(recipe: Recipe) -> bool:
    """Whether the recipe's loss or score takes concurrent rates.

    Raises:
        InputError: The recipe names a loss or a score that does not exist.
    """
    loss = _choose(LOSSES, recipe.loss, 'loss')
    return loss.rates or _choose(SCORES, recipe.score or loss.score, 'score').rates


def detector(recipe: Recipe, n_class: int, seed: int = 0, rates: np.ndarray | None = None
             ) -> FasterRCNN:
    """The network of a recipe, with random weights.

    Args:
        recipe (Recipe): What to build.
        n_class (int): Number of foreground classes.
        seed (int): Of the weights; the same on all ranks.
        rates (array): Concurrent rates :math:`(C, C)`, where the score needs them. Without, it
            gets zeros, which makes it softmax.

    Raises:
        InputError: The recipe names a backbone, a loss or a score that does not exist, or a score
            that does not fit the loss.
    """
    if recipe.dtype not in ('float32', 'float64'):
        raise InputError(f'dtype={recipe.dtype}: expected float32 or float64')
    # Chainer's initializers draw from NumPy's global generator.
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        with chainer.using_config('dtype', np.dtype(recipe.dtype)):
            return _detector(recipe, n_class, rates)
    finally:
        np.random.set_state(state)


def _detector(recipe: Recipe, n_class: int, rates: np.ndarray | None) -> FasterRCNN:
    loss = _choose(LOSSES, recipe.loss, 'loss')
    score = recipe.score or loss.score
    if _choose(SCORES, score, 'score').background != loss.background:
        raise InputError(f'score={score}: does not go with loss={recipe.loss}')
    if rates is None:
        rates = np.zeros((n_class, n_class), np.float32)
    backbone = BACKBONES[backbone_name(recipe.backbone)]()
    extractor = FPN(
        backbone, recipe.fpn_channel, recipe.fpn_scale, recipe.fpn_bn, recipe.psp)
    rpn = RPN(extractor.scales, recipe.anchor_ratios, recipe.anchor_size, recipe.fpn_channel,
              train_limits=recipe.train_proposals, test_limits=recipe.test_proposals)
    head = BboxHead(
        n_class, extractor.scales[:recipe.fpn_scale], recipe.fpn_channel, loss.background,
        score_function(score, rates), recipe.head_unit, recipe.head_bn, recipe.context,
        recipe.class_agnostic, recipe.canonical_size)
    return FasterRCNN(extractor, rpn, head)


def train_chain(recipe: Recipe, network: FasterRCNN, classes: Classes, hierarchy: Hierarchy,
                seed: int, rates: np.ndarray | None = None, counts: np.ndarray | None = None
                ) -> TrainChain:
    """The loss of a recipe.

    Args:
        recipe (Recipe): Which loss and rules.
        network (FasterRCNN): What it trains.
        classes (Classes): The label space.
        hierarchy (Hierarchy): The classes' relation.
        seed (int): Of the choice of anchors and regions.
        rates (array): Concurrent rates :math:`(C, C)`, where the loss needs them.
        counts (array): Training objects of each class :math:`(C,)`, for weights by their effective
            number.

    Raises:
        InputError: The recipe names a loss that does not exist.
    """
    form = _choose(LOSSES, recipe.loss, 'loss')
    weight = None
    if recipe.effective_beta > 0:
        weight = effective_number_weights(counts, recipe.effective_beta)
    target_rules = [
        partial(rules.ignore_descendants, descendants=hierarchy.descendants),
        rules.ignore_group_of]
    if recipe.cooccurrence:
        pairs = rules.CooccurrencePairs(*read_pairs(classes))
        target_rules.append(partial(rules.ignore_cooccurring, pairs=pairs))
    if form.one_label:
        # The most specific class; the paper does not say which.
        target_rules.append(partial(rules.keep_one_label, priority=hierarchy.depth))
    loss = loss_function(recipe.loss, rates, weight)
    return TrainChain(network, loss, tuple(target_rules), seed, recipe.n_anchor, recipe.n_roi)


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
