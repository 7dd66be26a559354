"""The network and loss of a recipe for a training set, set up on all ranks."""

from pathlib import Path
from typing import NamedTuple

import chainer
import numpy as np

from pfdet.links.backbone_file import is_backbone_file, load_backbone
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.links.freezing import freeze
from pfdet.links.multi_node_batch_normalization import use_multi_node_batch_normalization
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.recipe import Recipe
from pfdet.training import build
from pfdet.training.detector_weights import load_detector
from pfdet.training.train_chain import TrainChain


class NetworkToTrain(NamedTuple):
    """A network, its loss and its label space.

    Attributes:
        network (FasterRCNN): The detector.
        chain (TrainChain): Computes the loss of a batch.
        classes (Classes): The network's classes; for an expert, a subset of the training set's.
        hierarchy (Hierarchy): The hierarchy of these classes.
        rates (array): Concurrent rates of these classes :math:`(K, K)`, or :obj:`None`.
    """

    network: FasterRCNN
    chain: TrainChain
    classes: Classes
    hierarchy: Hierarchy
    rates: np.ndarray | None


def network_to_train(
    recipe: Recipe,
    index: AnnotationIndex,
    comm,
    seed: int = 0,
    init: Path | None = None,
    pick: np.ndarray | None = None,
    device: int = -1,
    bn_comm=None,
) -> NetworkToTrain:
    """Build the initial network of a run; all ranks must call this.

    Args:
        recipe (Recipe): What to train.
        index (AnnotationIndex): The training set. Some losses use its class counts.
        comm (ChainerMN communicator): The ranks.
        seed (int): Seed of the weights and of the sampling of anchors and regions.
        init (path): Weights to start from: a ``model.npz``, a snapshot or a backbone. The classes
            of a detector are matched by machine id.
        pick, device: See :func:`pfdet.training.train.train`.
        bn_comm (ChainerMN communicator): The ranks that share batch statistics; by default all.

    Raises:
        InputError: A setting or a weights file cannot be used.
    """
    classes, hierarchy = index.classes, index.hierarchy
    rates = _concurrent_rates(recipe, index, comm) if build.needs_rates(recipe) else None
    counts = _object_counts(index) if recipe.effective_beta > 0 else None
    if pick is not None:
        classes, hierarchy = classes.pick(pick), hierarchy.pick(pick)
        rates = None if rates is None else rates[np.ix_(pick, pick)]
        counts = None if counts is None else counts[pick]
    network = build.detector(recipe, len(classes), seed, rates, hierarchy.descendants)
    if init is not None:
        if is_backbone_file(init):
            load_backbone(network.extractor.base, init)
        else:
            new = load_detector(network, init, classes.mids)
            if new and comm.rank == 0:
                print(_about_new_classes(init, new, classes), flush=True)
    freeze(network, recipe.frozen_bn, recipe.frozen_stages)
    bn_comm = bn_comm or comm
    if bn_comm.size > 1:
        use_multi_node_batch_normalization(network, bn_comm)
    chain = build.train_chain(
        recipe, network, index.classes, index.hierarchy, seed, rates, counts, pick
    )
    if device >= 0:
        chainer.backends.cuda.get_device_from_id(device).use()
        chain.to_gpu()
    return NetworkToTrain(network, chain, classes, hierarchy, rates)


def _about_new_classes(init: Path, new: list[str], classes: Classes) -> str:
    names = [classes.names[classes.mids.index(mid)] for mid in new]
    shown = ', '.join(names[:10]) + (', ...' if len(names) > 10 else '')
    return (
        f'{init}: has {len(classes) - len(new)} of the {len(classes)} classes; the outputs of the '
        f'others start from random weights: {shown}'
    )


def _concurrent_rates(recipe: Recipe, index: AnnotationIndex, comm) -> np.ndarray:
    """Concurrent rates of the training set, counted on the first rank."""
    from pfdet.openimages.concurrent_rates import concurrent_rates, with_hierarchy

    rates = concurrent_rates(index).rates if comm.rank == 0 else None
    rates = comm.mpi_comm.bcast(rates)
    return with_hierarchy(rates, index.hierarchy, recipe.hierarchy_rate)


def _object_counts(index: AnnotationIndex) -> np.ndarray:
    """Number of objects per class, including its descendants, :math:`(C,)`."""
    n_class = len(index.classes)
    return np.bincount(index.columns['label'], minlength=n_class) @ index.hierarchy.closure
