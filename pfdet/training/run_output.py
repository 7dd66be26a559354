"""Parts of a training run, each from the fields of the recipe that it takes."""

import json
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chainer
from chainer.training import extensions

from pfdet.atomic_write import remove_unfinished, replace_when_done
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.openimages.corrupt_images import CorruptImages
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.recipe import Recipe
from pfdet.training import model_directory
from pfdet.training.network import NetworkToTrain
from pfdet.training.reports import PrintLog, WriteLog
from pfdet.training.run_length import RunLength
from pfdet.training.schedules import SetLearningRate, learning_rate, linear_scaling

if TYPE_CHECKING:
    from pfdet.training.evaluator import ValidationAP


def set_learning_rate(recipe: Recipe, length: RunLength) -> SetLearningRate:
    """The recipe's schedule, scaled to the batch of all ranks."""
    rate = partial(
        learning_rate,
        n_iteration=length.n_iteration,
        lr=linear_scaling(recipe.base_lr, recipe.lr_batch_size, length.global_batch),
        schedule=recipe.schedule,
        steps=recipe.steps,
        n_warmup=round(recipe.warmup_epochs * length.n_epoch_iteration),
    )
    return SetLearningRate(rate, length.schedule_iteration)


def validation(
    recipe: Recipe, network: FasterRCNN, index: AnnotationIndex, comm, corrupt: CorruptImages | None
) -> 'ValidationAP':
    """Scoring the network as the recipe predicts; images that cannot be read are counted anew."""
    # Only where there is a validation set: scoring loads Arrow.
    from pfdet.inference.predict import predict
    from pfdet.training.evaluator import ValidationAP

    return ValidationAP(
        partial(
            predict,
            network,
            OpenImagesDataset(index),
            settings=model_directory.predict_settings(recipe),
            corrupt=corrupt and CorruptImages(corrupt.max_share),
        ),
        index,
        comm,
    )


def extend_first_rank(
    trainer: chainer.training.Trainer, out: Path, log_trigger: Callable, log_interval: int
) -> None:
    """What the first rank alone writes and prints."""
    trainer.extend(extensions.observe_lr(), trigger=(1, 'iteration'))
    trainer.extend(extensions.LogReport(trigger=log_trigger, filename=None))
    trainer.extend(WriteLog(out / 'log'), trigger=log_trigger)
    trainer.extend(PrintLog(), trigger=log_trigger)
    if sys.stdout.isatty():
        trainer.extend(extensions.ProgressBar(update_interval=max(1, log_interval // 2)))


def write_description(out: Path, recipe: Recipe, net: NetworkToTrain, run: dict[str, Any]) -> None:
    """Write what is trained, and remove what killed runs left unfinished."""
    remove_unfinished(out, 'model.npz', 'recipe.json', 'log', 'score.json', 'rates.npy')
    model_directory.write_recipe(out, recipe, net.classes, net.hierarchy, run)
    if net.rates is not None:
        model_directory.write_rates(out, net.rates)


def write_results(out: Path, network: FasterRCNN, validation: 'ValidationAP | None') -> None:
    """Write what has been learnt, and the last validation's score."""
    model_directory.write_weights(out, network)
    if validation is not None and validation.score is not None:
        with replace_when_done(out / 'score.json') as path:
            path.write_text(json.dumps(validation.score, indent=1) + '\n')


def last_words(
    iteration: int, began: int, global_batch: int, seconds: float, out: Path, stopped_by: int | None
) -> str:
    """What the first rank says at the end.

    Args:
        iteration, began (int): After which iteration the run ends, and began.
        global_batch (int): Images an iteration.
        seconds (float): What training took.
        out (path): Of the run.
        stopped_by (int): A signal, where the run is not finished.
    """
    if stopped_by is not None:
        return (
            f'stopped by {signal.Signals(stopped_by).name} after iteration {iteration}, its '
            f'snapshot is in {out / "snapshots"}; give --resume to go on'
        )
    if began == iteration > 0:
        return f'trained already, {iteration} iterations: {out / "model.npz"}'
    return (
        f'trained {iteration} iterations of {global_batch} images in {seconds:.0f} s: '
        f'{out / "model.npz"}'
    )
