"""The extensions of a run's trainer, in the order in which they are added."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chainer.training import Trainer, extensions

from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.recipe import Recipe
from pfdet.training import model_directory
from pfdet.training.finite_loss import FiniteLoss
from pfdet.training.reports import Log, MeanOverRanks, PrintLog
from pfdet.training.run_length import RunLength
from pfdet.training.run_options import RunOptions
from pfdet.training.running_statistics import AverageRunningStatistics
from pfdet.training.schedules import SetLearningRate, learning_rate, linear_scaling
from pfdet.training.tensorboard import TensorBoard

if TYPE_CHECKING:
    from pfdet.training.evaluator import ValidationAP


def set_learning_rate(recipe: Recipe, length: RunLength) -> SetLearningRate:
    """Create the learning rate schedule of a recipe, scaled to the global batch size."""
    rate = partial(
        learning_rate,
        n_iteration=length.n_iteration,
        lr=linear_scaling(recipe.base_lr, recipe.lr_batch_size, length.global_batch),
        schedule=recipe.schedule,
        steps=recipe.steps,
        n_warmup=length.warmup(recipe),
        warmup_start=recipe.warmup_start,
    )
    return SetLearningRate(rate, length.schedule_iteration)


def extend_all_ranks(
    trainer: Trainer,
    recipe: Recipe,
    network: FasterRCNN,
    length: RunLength,
    comm,
    bn_comm,
    out: Path,
) -> None:
    """Add the learning rate, the mean of the losses, and the check that they are finite.

    Args:
        trainer (chainer.training.Trainer): Trainer of the run.
        recipe (Recipe): The recipe to train.
        network (FasterRCNN): Its running statistics are averaged over groups of ranks.
        length (RunLength): Length of the run.
        comm (ChainerMN communicator): All ranks.
        bn_comm (ChainerMN communicator): The ranks that share batch statistics.
        out (path): Directory for ``bad_batch.json``.
    """
    trainer.extend(set_learning_rate(recipe, length))
    mean = MeanOverRanks(comm)
    trainer.extend(mean)
    trainer.extend(FiniteLoss(mean, out))
    if bn_comm.size < comm.size:
        trainer.extend(AverageRunningStatistics(network, comm))


def validation_ap(
    recipe: Recipe, network: FasterRCNN, index: AnnotationIndex, comm, options: RunOptions
) -> 'ValidationAP':
    """Create the validation of a network with the prediction settings of the recipe."""
    # Imported here because scoring loads Arrow, which runs without validation do not need.
    from pfdet.inference.predict import predict
    from pfdet.training.evaluator import ValidationAP

    return ValidationAP(
        partial(
            predict,
            network,
            OpenImagesDataset(index),
            settings=model_directory.predict_settings(recipe),
            corrupt=options.corrupt_images,
        ),
        index,
        comm,
    )


def extend_first_rank(
    trainer: Trainer, out: Path, log_trigger: Callable, log_interval: int, tensorboard: bool = False
) -> None:
    """Add the extensions of the first rank: the log, also for TensorBoard, and the progress bar."""
    trainer.extend(extensions.observe_lr(), trigger=(1, 'iteration'))
    trainer.extend(Log(out / 'log', log_trigger))
    trainer.extend(PrintLog(), trigger=log_trigger)
    if tensorboard:
        trainer.extend(TensorBoard(out))
    if sys.stdout.isatty():
        trainer.extend(extensions.ProgressBar(update_interval=max(1, log_interval // 2)))
