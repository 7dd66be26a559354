"""Tests of the length of a run, on any number of ranks."""

import math
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet import recipes
from pfdet.training.run_length import RunLength, Stop, n_epoch
from pfdet.training.trainer_extensions import set_learning_rate


class Trainer:
    """Counts updates and images like the updater and the iterator."""

    def __init__(self, iteration=0, position=0):
        self.iterator = SimpleNamespace(position=position)
        self.updater = SimpleNamespace(iteration=iteration, get_iterator=lambda name: self.iterator)

    def train(self, length, until=math.inf):
        """Run updates; return the schedule's iteration of each."""
        iterations = []
        while not length.ended(self) and self.updater.iteration < until:
            iterations.append(length.schedule_iteration(self))
            self.updater.iteration += 1
            self.iterator.position += length.global_batch
        return iterations


@pytest.mark.parametrize(
    'n_image, epochs, batch', [(24, 2, 4), (25, 2, 4), (25, 0.5, 8), (7, 3, 8)]
)
def test_counts_agree_without_a_change_of_ranks(n_image, epochs, batch):
    length = RunLength(n_image, epochs, batch)
    n = math.ceil(n_image * epochs / batch)
    trainer = Trainer()
    assert length.n_iteration == length.last_iteration(trainer) == n
    assert trainer.train(length) == list(range(n))
    assert length.last_iteration(trainer) == n


def test_run_ends_at_the_same_image_on_another_number_of_ranks():
    trainer = Trainer()
    trainer.train(RunLength(1000, 1, 4), until=100)
    eight = RunLength(1000, 1, 8)
    assert eight.last_iteration(trainer) == 100 + 75
    # As if all 400 images had been drawn in batches of 8.
    assert trainer.train(eight) == list(np.arange(50.0, 125))
    assert trainer.updater.iteration == 175 and trainer.iterator.position == 1000
    # The position is not a multiple of the new batch size.
    trainer = Trainer(1, 4)
    assert trainer.train(RunLength(20, 1, 8)) == [0.5, 1.5, 2.5]


def test_iterations_are_updates():
    length = RunLength(100, 1, 4, iterations=3)
    assert len(Trainer().train(length)) == 3
    assert Trainer(5, 20).train(length) == [] and length.last_iteration(Trainer(5, 20)) == 5
    # The number of iterations counts, not the number of epochs.
    assert len(Trainer().train(RunLength(8, 1, 4, iterations=5))) == 5
    assert Trainer().train(RunLength(8, 1, 4, iterations=0)) == []


def test_triggers_at_the_interval_and_at_the_end():
    length = RunLength(1000, 1, 100)
    trainer, fired = Trainer(), []
    for _ in range(10):
        trainer.train(length, until=trainer.updater.iteration + 1)
        if length.every(4)(trainer):
            fired.append(trainer.updater.iteration)
    assert fired == [4, 8, 10]


def fired(length, trigger):
    trainer, iterations = Trainer(), []
    while not length.ended(trainer):
        trainer.train(length, until=trainer.updater.iteration + 1)
        if trigger(trainer):
            iterations.append(trainer.updater.iteration)
    return iterations


@pytest.mark.parametrize(
    'n_iteration, n, expected',
    [
        (690, 86, [86, 172, 258, 344, 430, 516, 602, 690]),
        (690, 345, [345, 690]),
        (10, 4, [4, 8, 10]),
        (11, 4, [4, 8, 11]),
        (9, 4, [4, 9]),
        (12, 4, [4, 8, 12]),
        (3, 4, [3]),
        (5, 4, [5]),
        (4, 1, [1, 2, 3, 4]),
        (1, 1, [1]),
    ],
)
def test_spaced_trigger_fires_once_near_the_end(n_iteration, n, expected):
    epochs = RunLength(100 * n_iteration, 1, 100)
    assert fired(epochs, epochs.spaced(n)) == expected
    iterations = RunLength(10**6, 5, 100, n_iteration)
    assert fired(iterations, iterations.spaced(n)) == expected


def test_stops_on_request():
    requests = []
    stop = Stop(RunLength(8, 1.5, 4), lambda: len(requests))
    assert not stop(Trainer()) and stop(Trainer(3, 12))
    assert stop.get_training_length() == (1.5, 'epoch')
    assert Stop(RunLength(8, 1, 4, 7)).get_training_length() == (7, 'iteration')
    requests.append(15)
    assert stop(Trainer())


@pytest.mark.parametrize(
    'settings, expected',
    [
        (['warmup_epochs=0.5'], 50),
        (['warmup_epochs=0'], 0),
        # Iterations come in place of epochs.
        (['warmup_epochs=0.5', 'warmup_iterations=7'], 7),
        (['warmup_epochs=0', 'warmup_iterations=7'], 7),
    ],
)
def test_warmup(settings, expected):
    recipe = recipes.override(recipes.find('mini'), settings)
    assert RunLength(1000, 3, 10).warmup(recipe) == expected


def test_the_learning_rate_starts_from_the_share_of_the_recipe():
    recipe = recipes.override(
        recipes.find('mini'), ['warmup_iterations=10', 'warmup_start=0.3', 'schedule=step']
    )
    length = RunLength(1000, 3, recipe.lr_batch_size)
    rate = set_learning_rate(recipe, length).rate
    assert rate(0) == pytest.approx(0.3 * recipe.base_lr)
    assert rate(5) == pytest.approx(0.65 * recipe.base_lr)
    assert rate(10) == pytest.approx(recipe.base_lr)


@pytest.mark.parametrize('n_rank', [1, 2, 3, 4])
@pytest.mark.parametrize('n_image', [1, 7, 24, 690, 863, 1_743_042])
def test_length_in_iterations_of_the_reference_batch(n_image, n_rank):
    """As many images on any number of ranks and any training set."""
    recipe = recipes.override(recipes.find('mini'), ['iterations=300', 'epochs=5'])
    length = RunLength(n_image, n_epoch(recipe, n_image), recipe.batch_size * n_rank)
    assert length.n_iteration == math.ceil(300 * 8 / (4 * n_rank))
    in_epochs = recipes.override(recipe, ['iterations=0'])
    assert n_epoch(in_epochs, n_image) == 5
