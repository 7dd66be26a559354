"""A training run of a recipe on all ranks, from the index to the weights."""

import time
from pathlib import Path

import chainer
import numpy as np

from pfdet.errors import InputError
from pfdet.iterators.sharded import ShardedIterator
from pfdet.links.multi_node_batch_normalization import group_of_ranks
from pfdet.openimages.corrupt_images import CorruptImages
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.recipe import Recipe
from pfdet.training import build, run_output
from pfdet.training.checkpoints import Snapshot
from pfdet.training.communicators import communicator  # noqa: F401
from pfdet.training.count_corrupt_images import CountCorruptImages
from pfdet.training.data_wait import DataWait
from pfdet.training.finite_loss import FiniteLoss, RememberBatch
from pfdet.training.network import network_to_train
from pfdet.training.optimizer import multi_node_optimizer
from pfdet.training.preemption import AgreeToStop, StopRequest, end_with_launcher
from pfdet.training.reports import MeanOverRanks
from pfdet.training.resume import (
    refuse_existing_snapshots,
    resume_from_newest,
    run_identity,
)
from pfdet.training.run_length import RunLength, Stop
from pfdet.training.running_statistics import AverageRunningStatistics
from pfdet.training.transforms import Converter, TrainLoader
from pfdet.training.updater import Updater


def train(
    recipe: Recipe,
    train_index: AnnotationIndex,
    out: Path,
    comm,
    *,
    val_index: AnnotationIndex | None = None,
    init: Path | None = None,
    resume: bool = False,
    seed: int = 0,
    device: int = -1,
    n_thread: int = 1,
    iterations: int | None = None,
    log_interval: int = 10,
    val_interval: float | None = None,
    snapshot_interval: int | None = None,
    keep_snapshots: int = 3,
    corrupt: CorruptImages | None = None,
    pick: np.ndarray | None = None,
    stop_request: StopRequest | None = None,
    accumulate: int = 1,
    bn_group_size: int = 0,
    double_buffering: bool = False,
) -> bool:
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
        resume (bool): Continue from the newest whole snapshot in ``out``, if there is one. The
            number of ranks, and what :data:`pfdet.training.resume.MAY_CHANGE` names, may be
            another (see :class:`~pfdet.training.run_length.RunLength`). Where the run is finished,
            nothing is left to train.
        seed (int): Of the weights, the order of images, augmentation and sampling.
        device (int): GPU of this rank, or -1.
        n_thread (int): Threads of this rank that load images.
        iterations (int): Stop after so many instead of the recipe's epochs; the schedule is
            that of the recipe's epochs all the same. With 0, nothing is learnt: what is written is
            the untrained network.
        log_interval (int): Iterations between lines of the log.
        val_interval (float): Epochs between validations; by default an eighth of the run.
        snapshot_interval (int): Iterations between snapshots; by default an epoch. The last
            iteration has one, too.
        keep_snapshots (int): The newest so many stay.
        corrupt (CorruptImages): Other images take the place of training images that cannot be
            read, unless they are too many; validation images that cannot be read have no
            detections. With :obj:`None`, the first one ends the run.
        pick (int array): Train an expert of these classes, :math:`(K,)` (see
            :mod:`pfdet.training.experts`); ``init`` is then a model of all classes. By default the
            model is of all classes.
        stop_request (StopRequest): When a rank has one, all ranks finish the iteration, write a
            snapshot and stop.
        accumulate (int): Batches of the recipe's size that each rank goes through in an iteration,
            one after the other (see :class:`~pfdet.training.updater.Updater`).
        bn_group_size (int): Ranks that share batch statistics; 0 for all (see
            :func:`~pfdet.links.multi_node_batch_normalization.group_of_ranks`).
        double_buffering (bool): All-reduce during the next batch (see
            :func:`~pfdet.training.optimizer.multi_node_optimizer`).

    Returns:
        bool: Whether the run is finished; not so when it was stopped on request.

    Raises:
        InputError: A file or a setting cannot be used, the disk is full, ``out`` has snapshots of
            another run, or the loss is not finite (see
            :class:`~pfdet.training.finite_loss.FiniteLoss`).
    """
    _check(train_index, val_index)
    n_image = len(train_index)
    if not resume:
        refuse_existing_snapshots(out / 'snapshots', comm)
    if comm.size > 1:
        end_with_launcher()

    bn_comm = group_of_ranks(comm, bn_group_size)
    net = network_to_train(recipe, train_index, comm, seed, init, pick, device, bn_comm)
    load = TrainLoader(
        OpenImagesDataset(train_index), recipe.min_size, recipe.max_size, recipe.flip, seed
    )
    sampler = build.sampler(recipe, train_index, seed, comm)
    iterator = ShardedIterator(
        sampler,
        load,
        recipe.batch_size * accumulate,
        comm.rank,
        comm.size,
        n_thread,
        corrupt=corrupt,
    )
    length = RunLength(n_image, recipe.epochs, iterator.global_batch_size, iterations)

    optimizer = multi_node_optimizer(
        net.chain, comm, recipe.momentum, recipe.weight_decay, double_buffering
    )
    convert = RememberBatch(Converter(train_index.hierarchy, comm, recipe.join_iou))
    updater = Updater(iterator, optimizer, convert, accumulate)
    agreed = AgreeToStop(stop_request or StopRequest(), comm)
    trainer = chainer.training.Trainer(updater, Stop(length, lambda: agreed.signal), out=str(out))
    trainer.extend(agreed)
    trainer.extend(run_output.set_learning_rate(recipe, length))
    mean = MeanOverRanks(comm)
    trainer.extend(mean)
    trainer.extend(FiniteLoss(mean, convert, out))
    if bn_comm.size < comm.size:
        trainer.extend(AverageRunningStatistics(net.network, comm))
    waiting = DataWait(comm, length.every(log_interval))
    trainer.extend(waiting)
    counting = None
    if corrupt is not None:
        counting = CountCorruptImages(corrupt, comm, length.every(log_interval))
        trainer.extend(counting)
    validation = None
    if val_index is not None:
        validation = run_output.validation(recipe, net.network, val_index, comm, corrupt)
        each = max(1, round((val_interval or recipe.epochs / 8) * length.n_epoch_iteration))
        trainer.extend(validation, trigger=length.every(each))
    snapshot = Snapshot(
        out / 'snapshots',
        keep=keep_snapshots,
        run=run_identity(recipe, seed, train_index, net.classes, comm.size, length.global_batch),
    )
    if comm.rank == 0:
        run_output.extend_first_rank(trainer, out, length.every(log_interval), log_interval)
        at_interval = length.every(snapshot_interval or max(1, round(length.n_epoch_iteration)))
        trainer.extend(snapshot, trigger=lambda t: at_interval(t) or agreed.signal)

    if resume:
        resume_from_newest(trainer, snapshot, comm)
    if comm.rank == 0:
        run_output.write_description(
            out,
            recipe,
            net,
            {
                'ranks': comm.size,
                'global_batch_size': length.global_batch,
                'images': n_image,
                'iterations': length.last(trainer),
                'seed': seed,
                'init': str(init) if init else None,
            },
        )
    began, started = updater.iteration, time.perf_counter()
    try:
        if not length.ended(trainer):
            trainer.run(show_loop_exception_msg=False)
    finally:
        iterator.finalize()

    finished = length.ended(trainer)
    if comm.rank == 0:
        if updater.iteration > began:
            print(f'waiting for data: {waiting.share:.1%} of the time', flush=True)
        if counting is not None and counting.total.n_corrupt:
            print(f'{counting.total}; others took their place', flush=True)
        if finished:
            run_output.write_results(out, net.network, validation)
        seconds = time.perf_counter() - started
        print(
            run_output.last_words(
                updater.iteration,
                began,
                length.global_batch,
                seconds,
                out,
                None if finished else agreed.signal,
            ),
            flush=True,
        )
    return finished


def _check(train_index: AnnotationIndex, val_index: AnnotationIndex | None) -> None:
    if len(train_index) == 0:
        raise InputError(f'{train_index.path}: holds no image to train on')
    if val_index is not None and val_index.classes.mids != train_index.classes.mids:
        raise InputError(f'{val_index.path}: built with other classes than {train_index.path}')
