"""Train a recipe on all ranks."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import chainer
import numpy as np

from pfdet import progress
from pfdet.errors import InputError
from pfdet.files.locks import output_lock_of_ranks
from pfdet.functions.finite import checked
from pfdet.gpu.precision import allow_tf32
from pfdet.iterators.sharded import ShardedIterator
from pfdet.links.multi_node_batch_normalization import group_of_ranks
from pfdet.openimages.corrupt_images import CorruptImages
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.shared_images import describe_shared_images
from pfdet.optional_packages import check_installed
from pfdet.recipes import Recipe, to_dict
from pfdet.recipes.initial_weights import deviation_sentence
from pfdet.recipes.known import MIXED
from pfdet.training import build, run_output
from pfdet.training.augmentation import Augmentation
from pfdet.training.checkpoints import Snapshot
from pfdet.training.count_corrupt_images import CountCorruptImages
from pfdet.training.data_wait import DataWait
from pfdet.training.initial_weights_file import initial_weights_facts
from pfdet.training.keep_best import KeepBest
from pfdet.training.network import network_to_train
from pfdet.training.optimizer import multi_node_optimizer
from pfdet.training.preemption import AgreeToStop, StopRequest, end_with_launcher
from pfdet.training.resume import (
    refuse_existing_snapshots,
    resume_from_newest,
    run_identity,
)
from pfdet.training.run_length import RunLength, Stop, n_epoch
from pfdet.training.run_options import RunOptions
from pfdet.training.trainer_extensions import (
    extend_all_ranks,
    extend_first_rank,
    validation_ap,
)
from pfdet.training.transforms import Converter, TrainLoader
from pfdet.training.updater import Updater

_DEFAULTS = RunOptions()


def train(
    recipe: Recipe,
    train_index: AnnotationIndex,
    out: Path,
    comm,
    options: RunOptions = _DEFAULTS,
    *,
    val_index: AnnotationIndex | None = None,
    device: int = -1,
    pick: np.ndarray | None = None,
    stop_request: StopRequest | None = None,
    extensions: Sequence[Callable] = (),
) -> bool:
    """Train a recipe; all ranks must call this.

    Chainer's trainer does it. Further extensions see its losses as ``trainer.observation``, and on
    the first rank its log::

        from chainer.training import make_extension

        @make_extension(trigger=(100, 'iteration'))
        def report(trainer):
            print(trainer.updater.iteration, trainer.observation['main/loss'])

        train(recipe, index, out, comm, extensions=[report] if comm.rank == 0 else [])

    Args:
        recipe (Recipe): What to train.
        train_index (AnnotationIndex): The training set.
        out (path): Directory for ``model.npz``, ``recipe.json``, ``log``, ``score.json`` and
            ``snapshots/``.
        comm (ChainerMN communicator): The ranks.
        options (RunOptions): Options of the run. With ``resume``, the run resumes from the newest
            undamaged snapshot in ``out``, if there is one. The number of ranks may have changed
            (see :class:`~pfdet.training.run_length.RunLength`), and what
            :mod:`pfdet.training.resume` lists. A finished run is left unchanged.
        val_index (AnnotationIndex): The validation set.
        device (int): GPU of this rank, or -1.
        pick (int array): Class ids :math:`(K,)` of an expert to train (see
            :mod:`pfdet.training.experts`); ``options.init`` is then a model of all classes. By
            default the model has all classes.
        stop_request (StopRequest): If any rank receives a stop signal, all ranks finish the
            iteration, write a snapshot and stop.
        extensions (sequence of callables): Further extensions of this rank's trainer, such as
            :class:`chainer.training.Extension`. If they exchange messages, give them to all ranks.
            Those of the first rank are saved in snapshots. A run that is resumed may have others,
            unless these load a state.

    Returns:
        bool: Whether the run is finished; :obj:`False` if it was stopped by a signal.

    Raises:
        InputError: A file or a setting cannot be used, the disk is full, ``out`` has snapshots of
            another run or is in use by another process, or the loss is not finite (see
            :class:`~pfdet.training.finite_loss.FiniteLoss`).
    """
    if recipe.expert_size and pick is None:
        raise InputError(
            f'recipe {recipe.name}: expert_size={recipe.expert_size}, but no classes were picked; '
            'pfdet train-experts trains experts'
        )
    _check_indexes(train_index, val_index)
    if options.keep_best and val_index is None:
        raise InputError('--keep-best: needs a validation set; give --val-index INDEX')
    if options.tensorboard:
        check_installed('tensorboardX', '--tensorboard')
    with output_lock_of_ranks(out, comm, is_directory=True):
        return _train(
            recipe,
            train_index,
            out,
            comm,
            options,
            val_index,
            device,
            pick,
            stop_request,
            extensions,
        )


def _train(
    recipe: Recipe,
    train_index: AnnotationIndex,
    out: Path,
    comm,
    options: RunOptions,
    val_index: AnnotationIndex | None,
    device: int,
    pick: np.ndarray | None,
    stop_request: StopRequest | None,
    extensions: Sequence[Callable],
) -> bool:
    progress.report('set-up')
    if not options.resume:
        refuse_existing_snapshots(out / 'snapshots', comm)
    if comm.size > 1:
        end_with_launcher()

    allow_tf32(options.tf32)
    bn_comm = group_of_ranks(comm, options.bn_group_size)
    net = network_to_train(
        recipe, train_index, comm, options.seed, options.init, pick, device, bn_comm
    )
    corrupt = options.corrupt_images
    iterator = _iterator(recipe, train_index, comm, options, corrupt)
    length = RunLength(
        len(train_index),
        n_epoch(recipe, len(train_index)),
        iterator.global_batch_size,
        options.iterations,
    )
    optimizer = multi_node_optimizer(
        net.chain,
        comm,
        recipe.momentum,
        recipe.weight_decay,
        options.double_buffering,
        recipe.dtype == MIXED,
    )
    convert = Converter(train_index.hierarchy, comm, recipe.join_iou)
    updater = Updater(iterator, optimizer, convert, options.accumulate)
    stop = AgreeToStop(stop_request or StopRequest(), comm)
    trainer = chainer.training.Trainer(updater, Stop(length, lambda: stop.signal), out=str(out))
    trainer.extend(stop)
    extend_all_ranks(trainer, recipe, net.network, length, comm, bn_comm, out)
    data_wait = DataWait(comm, length.every(options.log_interval))
    trainer.extend(data_wait)
    counter = None
    if corrupt is not None:
        counter = CountCorruptImages(corrupt, comm, length.every(options.log_interval))
        trainer.extend(counter)
    validation = None
    if val_index is not None:
        validation = validation_ap(recipe, net.network, val_index, comm, options)
        interval = (options.val_interval or length.epochs / 8) * length.n_epoch_iteration
        trainer.extend(validation, trigger=length.spaced(max(1, round(interval))))
    start = initial_weights_facts(options.init) if comm.rank == 0 else {}
    identity = run_identity(
        recipe, options, train_index, net.classes, comm.size, length.global_batch, start
    )
    snapshot = Snapshot(out / 'snapshots', keep=options.keep_snapshots, run=identity)
    if comm.rank == 0:
        extend_first_rank(
            trainer,
            out,
            length.every(options.log_interval),
            options.log_interval,
            options.tensorboard,
        )
        if options.keep_best:
            trainer.extend(
                KeepBest(out, net.network, validation, options.resume), trigger=(1, 'iteration')
            )
        at_interval = length.every(
            options.snapshot_interval or max(1, round(length.n_epoch_iteration))
        )
        trainer.extend(snapshot, trigger=lambda t: at_interval(t) or stop.signal)
    # Of equal priority, they follow the log.
    for extension in extensions:
        trainer.extend(extension)

    if options.resume:
        resume_from_newest(trainer, snapshot, comm)
    if comm.rank == 0:
        facts = {
            'ranks': comm.size,
            'global_batch_size': length.global_batch,
            'images': len(train_index),
            'iterations': length.last_iteration(trainer),
            'seed': options.seed,
            **snapshot.run['initial_weights'],
        }
        run_output.write_description(out, recipe, net, facts)
        trainer.extend(run_output.StillThere(out))
        note = deviation_sentence(to_dict(recipe), facts)
        if note:
            print(f'note: {note}', file=sys.stderr, flush=True)
    start_iteration, start_time = updater.iteration, time.perf_counter()
    stop.request.defer()
    progress.report(f'iteration {updater.iteration + 1}')
    try:
        if not length.ended(trainer):
            with checked():
                trainer.run(show_loop_exception_msg=False)
    finally:
        iterator.finalize()

    finished = length.ended(trainer)
    progress.report('writing the results')
    if comm.rank == 0:
        if updater.iteration > start_iteration:
            print(f'waiting for data: {data_wait.share:.1%} of the time', flush=True)
        if counter is not None and counter.total.n_corrupt:
            print(f'{counter.total}; replaced by other images', flush=True)
        if finished:
            run_output.write_results(out, net.network, validation)
        seconds = time.perf_counter() - start_time
        print(
            run_output.closing_line(
                updater.iteration,
                start_iteration,
                length.global_batch,
                seconds,
                out,
                None if finished else stop.signal,
            ),
            flush=True,
        )
    return finished


def _iterator(
    recipe: Recipe,
    index: AnnotationIndex,
    comm,
    options: RunOptions,
    corrupt: CorruptImages | None,
) -> ShardedIterator:
    load = TrainLoader(
        OpenImagesDataset(index),
        recipe.min_size,
        recipe.max_size,
        recipe.flip,
        options.seed,
        Augmentation(recipe.color_jitter, recipe.crop, recipe.rotation),
    )
    return ShardedIterator(
        build.sampler(recipe, index, options.seed, comm),
        load,
        recipe.batch_size * options.accumulate,
        comm.rank,
        comm.size,
        options.threads,
        corrupt=corrupt,
    )


def _check_indexes(train_index: AnnotationIndex, val_index: AnnotationIndex | None) -> None:
    if len(train_index) == 0:
        raise InputError(f'{train_index.path}: has no images to train on')
    for index in train_index, val_index:
        if index is not None and not len(index.columns['bbox']):
            raise InputError(
                f'{index.path}: has no boxes; expected an index of annotated images, which pfdet '
                'index makes with --boxes'
            )
    if val_index is not None and val_index.classes.mids != train_index.classes.mids:
        raise InputError(f'{val_index.path}: built with other classes than {train_index.path}')
    if val_index is not None and (shared := describe_shared_images(train_index, val_index)):
        raise InputError(shared)
