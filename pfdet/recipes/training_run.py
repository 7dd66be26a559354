"""A training run of a recipe on all ranks, from the index to the weights."""

import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import chainer
import numpy as np
from chainer.training import extensions

from pfdet.errors import InputError, end_all_ranks_on_exception
from pfdet.files import replace_when_done
from pfdet.inference.predict import predict
from pfdet.iterators.sharded import ShardedIterator
from pfdet.links.backbone_file import is_backbone_file, load_backbone
from pfdet.links.multi_node_batch_normalization import use_multi_node_batch_normalization
from pfdet.openimages.corrupt_images import CorruptImages
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import build, model_directory
from pfdet.recipes.recipe import Recipe
from pfdet.training import checkpoints
from pfdet.training.corrupt_images import CountCorruptImages
from pfdet.training.evaluator import ValidationAP
from pfdet.training.loading import Converter, TrainLoader
from pfdet.training.optimizer import multi_node_optimizer
from pfdet.training.reports import MeanOverRanks, PrintLog
from pfdet.training.schedules import SetLearningRate, learning_rate, linear_scaling


def train(recipe: Recipe, train_index: AnnotationIndex, out: Path, comm, *,
          val_index: AnnotationIndex | None = None, init: Path | None = None,
          resume: bool = False, seed: int = 0, device: int = -1, n_thread: int = 1,
          iterations: int | None = None, log_interval: int = 10,
          val_interval: float | None = None, snapshot_interval: int | None = None,
          corrupt: CorruptImages | None = None, pick: np.ndarray | None = None) -> None:
    """Train a recipe; every rank calls this.

    Args:
        recipe (Recipe): What to train.
        train_index (AnnotationIndex): The training set.
        out (path): Where ``model.npz``, ``recipe.json``, ``log``, ``score.json`` and
            ``snapshots/`` go.
        comm (ChainerMN communicator): The ranks.
        val_index (AnnotationIndex): The validation set.
        init (path): Weights to start from: a whole detector's, or a backbone's as
            ``python -m pfdet.links.convert`` writes them.
        resume (bool): Continue from the newest snapshot in ``out``, if there is one.
        seed (int): Of the weights, the order of images, augmentation and sampling.
        device (int): GPU of this rank, or -1.
        n_thread (int): Threads of this rank that load images.
        iterations (int): Stop after so many instead of the recipe's epochs; the schedule is
            that of the recipe's epochs all the same. With 0, nothing is learnt: what is written is
            the untrained network.
        log_interval (int): Iterations between lines of the log.
        val_interval (float): Epochs between validations; by default an eighth of the run.
        snapshot_interval (int): Iterations between snapshots; by default an epoch.
        corrupt (CorruptImages): Other images take the place of training images that cannot be
            read, unless they are too many; validation images that cannot be read have no
            detections. With :obj:`None`, the first one ends the run.
        pick (int array): Train an expert of these classes, :math:`(K,)` (see
            :mod:`pfdet.recipes.experts`); ``init`` is then a model of all classes. By default the
            model is of all classes.

    Raises:
        InputError: A file or a setting cannot be used.
    """
    n_image, classes, hierarchy = len(train_index), train_index.classes, train_index.hierarchy
    if n_image == 0:
        raise InputError(f'{train_index.path}: holds no image to train on')
    if val_index is not None and val_index.classes.mids != classes.mids:
        raise InputError(f'{val_index.path}: built with other classes than {train_index.path}')

    rates = _concurrent_rates(recipe, train_index, comm) if build.needs_rates(recipe) else None
    counts = _object_counts(train_index) if recipe.effective_beta > 0 else None
    own_classes, own_hierarchy = classes, hierarchy
    if pick is not None:
        own_classes, own_hierarchy = classes.pick(pick), hierarchy.pick(pick)
        rates = None if rates is None else rates[np.ix_(pick, pick)]
        counts = None if counts is None else counts[pick]
    network = build.detector(recipe, len(own_classes), seed, rates, own_hierarchy.descendants)
    if init is not None:
        if is_backbone_file(init):
            load_backbone(network.extractor.base, init)
        else:
            model_directory.load_weights(network, init, pick, len(classes))
    if comm.size > 1:
        use_multi_node_batch_normalization(network, comm)
    chain = build.train_chain(recipe, network, classes, hierarchy, seed, rates, counts, pick)
    if device >= 0:
        chainer.backends.cuda.get_device_from_id(device).use()
        chain.to_gpu()

    load = TrainLoader(OpenImagesDataset(train_index), recipe.min_size, recipe.max_size,
                       recipe.flip, seed)
    sampler = build.sampler(recipe, train_index, seed, comm)
    iterator = ShardedIterator(
        sampler, load, recipe.batch_size, comm.rank, comm.size, n_thread, corrupt=corrupt)
    global_batch = iterator.global_batch_size
    n_epoch_iteration = n_image / global_batch
    n_iteration = math.ceil(recipe.epochs * n_epoch_iteration)

    optimizer = multi_node_optimizer(chain, comm, recipe.momentum, recipe.weight_decay)
    updater = chainer.training.StandardUpdater(
        iterator, optimizer, converter=Converter(hierarchy, comm, recipe.join_iou), device=None)
    last = n_iteration if iterations is None else iterations
    trainer = chainer.training.Trainer(updater, (max(1, last), 'iteration'), out=str(out))
    trainer.extend(SetLearningRate(partial(
        learning_rate, n_iteration=n_iteration,
        lr=linear_scaling(recipe.base_lr, recipe.lr_batch_size, global_batch),
        schedule=recipe.schedule, steps=recipe.steps,
        n_warmup=round(recipe.warmup_epochs * n_epoch_iteration))))
    trainer.extend(MeanOverRanks(comm))
    counting = None
    if corrupt is not None:
        counting = CountCorruptImages(corrupt, comm, every(log_interval, last))
        trainer.extend(counting)

    validation = None
    if val_index is not None:
        validation = ValidationAP(partial(
            predict, network, OpenImagesDataset(val_index),
            settings=model_directory.predict_settings(recipe),
            corrupt=corrupt and CorruptImages(corrupt.max_share)), val_index, comm)
        each = max(1, round((val_interval or recipe.epochs / 8) * n_epoch_iteration))
        trainer.extend(validation, trigger=every(each, last))
    if comm.rank == 0:
        _extend_first_rank(trainer, every(log_interval, last), log_interval)
        model_directory.write_recipe(out, recipe, own_classes, own_hierarchy, {
            'ranks': comm.size, 'global_batch_size': global_batch, 'images': n_image,
            'iterations': last, 'seed': seed,
            'init': str(init) if init else None})
        if rates is not None:
            model_directory.write_rates(out, rates)
        trainer.extend(
            checkpoints.Snapshot(out / 'snapshots'),
            trigger=(snapshot_interval or max(1, round(n_epoch_iteration)), 'iteration'))
    if resume:
        path = comm.mpi_comm.bcast(
            checkpoints.newest(out / 'snapshots') if comm.rank == 0 else None)
        if path is not None:
            checkpoints.resume(trainer, path)
    started = time.perf_counter()
    try:
        if updater.iteration < last:
            trainer.run(show_loop_exception_msg=False)
    finally:
        iterator.finalize()

    if comm.rank == 0:
        if counting is not None and counting.total.n_corrupt:
            print(f'{counting.total}; others took their place', flush=True)
        model_directory.write_weights(out, network)
        if validation is not None and validation.score is not None:
            with replace_when_done(out / 'score.json') as path:
                path.write_text(json.dumps(validation.score, indent=1) + '\n')
        print(f'trained {updater.iteration} iterations of {global_batch} images in '
              f'{time.perf_counter() - started:.0f} s: {out / "model.npz"}', flush=True)


def _concurrent_rates(recipe: Recipe, index: AnnotationIndex, comm) -> np.ndarray:
    """Concurrent rates of the training set, counted on the first rank."""
    from pfdet.openimages.concurrent_rates import concurrent_rates, with_hierarchy

    rates = concurrent_rates(index).rates if comm.rank == 0 else None
    rates = comm.mpi_comm.bcast(rates)
    return with_hierarchy(rates, index.hierarchy, recipe.hierarchy_rate)


def _object_counts(index: AnnotationIndex) -> np.ndarray:
    """Objects of each class, its descendants' among them, :math:`(C,)`."""
    n_class = len(index.classes)
    return np.bincount(index.columns['label'], minlength=n_class) @ index.hierarchy.closure


def every(n: int, last: int) -> Callable:
    """A trigger of every ``n`` iterations, and of the last one."""
    return lambda trainer: (
        trainer.updater.iteration % n == 0 or trainer.updater.iteration == last)


def _extend_first_rank(trainer, log_trigger: Callable, log_interval: int) -> None:
    """What the first rank alone writes and prints."""
    trainer.extend(extensions.observe_lr(), trigger=(1, 'iteration'))
    trainer.extend(extensions.LogReport(trigger=log_trigger, filename='log'))
    trainer.extend(PrintLog(), trigger=log_trigger)
    if sys.stdout.isatty():
        trainer.extend(extensions.ProgressBar(update_interval=max(1, log_interval // 2)))


def communicator(name: str | None = None):
    """The communicator of all ranks.

    Args:
        name (str): ChainerMN's name of it; by default ``'pure_nccl'`` where there is a GPU and
            ``'naive'``, which is the one for CPUs, where there is none.

    Returns:
        pair: The communicator, and the GPU of this rank or -1.
    """
    import chainermn

    end_all_ranks_on_exception()
    gpu = chainer.backends.cuda.available
    comm = chainermn.create_communicator(name or ('pure_nccl' if gpu else 'naive'))
    return comm, comm.intra_rank if gpu else -1
