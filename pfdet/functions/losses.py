"""The classification losses and the scores by name."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pfdet.functions.concurrent_softmax import (
    concurrent_softmax_cross_entropy,
    concurrent_softmax_score,
)
from pfdet.functions.focal import focal_loss
from pfdet.functions.sigmoid import sigmoid_cross_entropy, sigmoid_score
from pfdet.functions.softmax import dist_cross_entropy, softmax_cross_entropy, softmax_score


class LossForm(NamedTuple):
    """A loss and what it asks of the rest.

    Attributes:
        function (callable): ``function(x, t, normalize=..., weight=...)``.
        background (bool): Logits have a background class, as their last column.
        one_label (bool): The target matrix must go through
            :func:`pfdet.targets.rules.keep_one_label` first.
        rates (bool): It needs concurrent rates, ``function(x, t, rates, ...)``.
        score (str): The score that goes with it, a key of :data:`SCORES`.
        normalize (str): What its authors divide by, see
            :func:`pfdet.functions.closed_form.divisor`.
    """

    function: Callable
    background: bool
    one_label: bool = False
    rates: bool = False
    score: str = 'sigmoid'
    normalize: str = 'roi'


class ScoreForm(NamedTuple):
    """A score and what it asks of the rest.

    Attributes:
        function (callable): Maps logits to :math:`(R, C)` scores in [0, 1].
        background, rates (bool): As in :class:`LossForm`.
    """

    function: Callable
    background: bool
    rates: bool = False


LOSSES = {
    'sigmoid': LossForm(sigmoid_cross_entropy, False),
    'focal': LossForm(focal_loss, False, normalize='positive'),
    'softmax': LossForm(softmax_cross_entropy, True, one_label=True, score='softmax'),
    'multi_label_softmax': LossForm(softmax_cross_entropy, True, score='softmax'),
    'dist_ce': LossForm(dist_cross_entropy, True, score='softmax'),
    # In training alone it is scored by softmax (Concurrent softmax, Tables 1 and 2); the score of
    # its equation 5 is asked for by name.
    'concurrent_softmax': LossForm(
        concurrent_softmax_cross_entropy, True, rates=True, score='softmax'
    ),
}

SCORES = {
    'sigmoid': ScoreForm(sigmoid_score, False),
    'softmax': ScoreForm(softmax_score, True),
    'concurrent_softmax': ScoreForm(concurrent_softmax_score, True, rates=True),
}


def loss_function(name: str, rates=None, weight=None, **options) -> Callable:
    """A loss as a function of logits and target matrix alone.

    Args:
        name (str): A key of :data:`LOSSES`.
        rates (array): Concurrent rates :math:`(C, C)`; taken by all, used by those that need them.
        weight (array): Weights of the classes, :math:`(C,)`.
        options: ``normalize``, by default what goes with the loss, and what else it takes.

    Returns:
        callable: ``loss(x, t)``.

    Raises:
        ValueError: There is no such loss, or it needs rates and has none.
    """
    form = _find(LOSSES, name, 'loss')
    options = {'normalize': form.normalize, **options}
    return partial(form.function, weight=weight, **_rates(form, rates, name), **options)


def score_function(name: str, rates=None) -> Callable:
    """A score as a function of logits alone.

    Args:
        name (str): A key of :data:`SCORES`.
        rates (array): As for :func:`loss_function`.

    Returns:
        callable: ``score(x)`` of an array.

    Raises:
        ValueError: There is no such score, or it needs rates and has none.
    """
    form = _find(SCORES, name, 'score')
    return partial(form.function, **_rates(form, rates, name))


def _find(forms: dict, name: str, what: str):
    if name not in forms:
        raise ValueError(f'no {what} {name!r}; expected one of {", ".join(forms)}')
    return forms[name]


def _rates(form, rates, name: str) -> dict:
    if not form.rates:
        return {}
    if rates is None:
        raise ValueError(f'{name} needs concurrent rates')
    return {'rates': rates}
