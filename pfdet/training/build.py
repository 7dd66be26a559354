"""Build the network, loss and sampler of a recipe."""

from functools import partial

import chainer
import numpy as np

from pfdet.cpu.install import install as install_cpu_functions
from pfdet.errors import InputError
from pfdet.functions.effective_number import effective_number_weights
from pfdet.functions.losses import LOSSES, SCORES, loss_function, score_function
from pfdet.gpu.install import install as install_gpu_functions
from pfdet.iterators.balanced import ClassAwareSampler, SoftBalanceSampler
from pfdet.iterators.class_images import shared_class_images
from pfdet.iterators.samplers import SequentialSampler, aspect_groups
from pfdet.links.backbone import Backbone
from pfdet.links.backbones import BACKBONES, backbone_name
from pfdet.links.bbox_head import BboxHead
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.links.fpn import FPN
from pfdet.links.mixed_precision import use_half_precision
from pfdet.links.rpn import RPN
from pfdet.openimages.classes import Classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.known import MIXED
from pfdet.recipes.recipe import Recipe
from pfdet.targets import rules, sampling
from pfdet.training.train_chain import TrainChain


def needs_rates(recipe: Recipe) -> bool:
    """Whether the recipe's loss or score uses concurrent rates.

    Raises:
        InputError: The recipe names an unknown loss or score.
    """
    loss = _choose(LOSSES, recipe.loss, 'loss')
    return loss.rates or _choose(SCORES, recipe.score or loss.score, 'score').rates


def detector(
    recipe: Recipe,
    n_class: int,
    seed: int = 0,
    rates: np.ndarray | None = None,
    descendants: np.ndarray | None = None,
    backbone: Backbone | None = None,
) -> FasterRCNN:
    """Build the network of a recipe with random weights.

    Args:
        recipe (Recipe): What to build.
        n_class (int): Number of foreground classes :math:`C`.
        seed (int): Seed of the weights; the same on all ranks.
        rates (array): Concurrent rates :math:`(C, C)`, for scores that use them. By default zeros,
            which turn concurrent softmax into softmax.
        descendants (bool array): :math:`(C, C)`, for recipes that expand scores. By default scores
            are not expanded.
        backbone (Backbone): Replaces the recipe's backbone.

    Raises:
        InputError: The recipe names an unknown backbone, loss or score, or a score that does not
            fit the loss.
    """
    install_cpu_functions()
    install_gpu_functions()
    # Chainer's initializers use NumPy's global generator.
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        with chainer.using_config('dtype', np.dtype(recipe.parameter_dtype)):
            network = _detector(recipe, n_class, rates, descendants, backbone)
    finally:
        np.random.set_state(state)
    if recipe.dtype == MIXED:
        use_half_precision(network)
    return network


def _detector(
    recipe: Recipe,
    n_class: int,
    rates: np.ndarray | None,
    descendants: np.ndarray | None,
    backbone: Backbone | None,
) -> FasterRCNN:
    loss = _choose(LOSSES, recipe.loss, 'loss')
    score = recipe.score or loss.score
    if _choose(SCORES, score, 'score').background != loss.background:
        raise InputError(f'score={score}: does not go with loss={recipe.loss}')
    if rates is None:
        rates = np.zeros((n_class, n_class), np.float32)
    activation = score_function(score, rates)
    if backbone is None:
        backbone = BACKBONES[backbone_name(recipe.backbone)]()
    extractor = FPN(backbone, recipe.fpn_channel, recipe.fpn_scale, recipe.fpn_bn, recipe.psp)
    rpn = RPN(
        extractor.scales,
        recipe.anchor_ratios,
        recipe.anchor_size,
        recipe.fpn_channel,
        recipe.rpn_nms,
        train_limits=recipe.train_proposals,
        test_limits=recipe.test_proposals,
    )
    head = BboxHead(
        n_class,
        extractor.scales[: recipe.fpn_scale],
        recipe.fpn_channel,
        loss.background,
        activation,
        recipe.head_unit,
        recipe.head_bn,
        recipe.context,
        recipe.class_agnostic,
        recipe.canonical_size,
        recipe.roi_size,
        recipe.roi_sampling,
        recipe.prior,
        recipe.head_conv,
        recipe.head_fc,
        recipe.fpn_channel,
    )
    return FasterRCNN(extractor, rpn, head, descendants if recipe.expand_scores else None)


def train_chain(
    recipe: Recipe,
    network: FasterRCNN,
    classes: Classes,
    hierarchy: Hierarchy,
    seed: int,
    rates: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    pick: np.ndarray | None = None,
) -> TrainChain:
    """Build the training chain of a recipe, which computes its loss.

    Args:
        recipe (Recipe): Selects the loss and the target rules.
        network (FasterRCNN): The network to train.
        classes (Classes): The label space.
        hierarchy (Hierarchy): The hierarchy of the classes.
        seed (int): Seed of the sampling of anchors and regions.
        rates (array): Concurrent rates :math:`(K, K)` of the network's classes, for losses that
            use them.
        counts (array): Number of training objects per class of the network :math:`(K,)`, for
            effective-number weights.
        pick (int array): Ids of the network's classes :math:`(K,)`, if it has only some of
            ``classes``.

    Raises:
        InputError: The recipe names an unknown loss.
    """
    entry = _choose(LOSSES, recipe.loss, 'loss')
    weight = None
    if recipe.effective_beta > 0:
        weight = effective_number_weights(counts, recipe.effective_beta)
    target_rules = []
    descendants = {'descendants': hierarchy.descendants, 'also_absent': recipe.ignore_absent}
    if recipe.ignore_descendants:
        target_rules.append(partial(rules.ignore_descendants, **descendants))
    if recipe.ignore_group_of:
        target_rules.append(
            partial(rules.ignore_group_of, **descendants if recipe.ignore_descendants else {})
        )
    if recipe.cooccurrence:
        pairs = rules.CooccurrencePairs(*read_pairs(classes, recipe.cooccurrence_pairs or None))
        target_rules.append(
            partial(
                rules.ignore_cooccurring,
                pairs=pairs,
                share=recipe.inside_share,
                also_verified=recipe.ignore_verified,
            )
        )
    if entry.one_label:
        # Keep the most specific class; Peng et al. (2020) do not specify which.
        target_rules.append(partial(rules.keep_one_label, priority=hierarchy.depth, seed=seed))
    return TrainChain(
        network,
        _loss(recipe, rates, weight),
        tuple(target_rules),
        seed,
        partial(
            sampling.sample_anchors,
            n_sample=recipe.n_anchor,
            positive_share=recipe.rpn_positive_share,
            positive_iou=recipe.rpn_positive_iou,
            negative_iou=recipe.rpn_negative_iou,
            border=recipe.anchor_border,
        ),
        partial(
            sampling.sample_rois,
            n_sample=recipe.n_roi,
            foreground_share=recipe.roi_foreground_share,
            foreground_iou=recipe.roi_foreground_iou,
        ),
        expand_ancestors=recipe.expand_ancestors,
        pick=pick,
        only_picked=pick is not None and recipe.expert_head == 'cut',
    )


def _loss(recipe: Recipe, rates: np.ndarray | None, weight: np.ndarray | None):
    options = {}
    if recipe.normalize:
        options['normalize'] = recipe.normalize
    if recipe.loss == 'focal':
        options.update(alpha=recipe.focal_alpha, gamma=recipe.focal_gamma)
    return loss_function(recipe.loss, rates, weight, **options)


def sampler(
    recipe: Recipe, index: AnnotationIndex, seed: int, comm=None
) -> SequentialSampler | SoftBalanceSampler:
    """Build the sampler of a recipe, which defines the global order of the images.

    Args:
        recipe (Recipe): Selects the sampler.
        index (AnnotationIndex): The training set.
        seed (int): Seed of the order.
        comm (ChainerMN communicator): The ranks, or :obj:`None`. All ranks must call this.

    Raises:
        InputError: The recipe names an unknown sampler, or a class-based sampler for a training
            set without boxes.
    """
    group = None
    if recipe.aspect_chunk > 1:
        group = aspect_groups(index.columns['image_size'])
    if recipe.sampler == 'sequential':
        return SequentialSampler(len(index), seed, group, recipe.aspect_chunk)
    # The first rank writes the file that the others then map.
    if comm is not None and comm.rank > 0:
        comm.mpi_comm.Barrier()
    classes = shared_class_images(index)
    if comm is not None and comm.rank == 0:
        comm.mpi_comm.Barrier()
    if recipe.sampler == 'class_aware':
        return ClassAwareSampler(classes, seed, group, recipe.aspect_chunk)
    return SoftBalanceSampler(classes, recipe.soft_balance_lambda, seed, group, recipe.aspect_chunk)


def _choose(known: dict, name: str, what: str):
    if name not in known:
        raise InputError(f'{what}={name}: no such {what}; expected one of {", ".join(known)}')
    return known[name]
