"""Registry of classification losses and scores by name."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from pfdet.boxes.arrays import Array
from pfdet.functions.concurrent_softmax import (
    concurrent_softmax_cross_entropy,
    concurrent_softmax_score,
)
from pfdet.functions.focal import focal_loss
from pfdet.functions.sigmoid import sigmoid_cross_entropy, sigmoid_score
from pfdet.functions.softmax import dist_cross_entropy, softmax_cross_entropy, softmax_score


class LossForm(NamedTuple):
    """A loss and its requirements.

    Attributes:
        function (callable): ``function(x, t, normalize=..., weight=...)``.
        background (bool): Whether the last column of the logits is a background class.
        one_label (bool): Whether the target matrix must have one positive per row, see
            :func:`pfdet.targets.rules.keep_one_label`.
        rates (bool): Whether the function takes concurrent rates, as keyword ``rates``.
        score (str): The default score for networks trained with it, a key of :data:`SCORES`.
        normalize (str): The divisor used by the authors of the loss, see
            :func:`pfdet.functions.closed_form.divisor`.
    """

    function: Callable
    background: bool
    one_label: bool = False
    rates: bool = False
    score: str = 'sigmoid'
    normalize: str = 'roi'


class ScoreForm(NamedTuple):
    """A score and its requirements.

    Attributes:
        function (callable): Maps logits to scores :math:`(R, C)` in [0, 1].
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
    # Concurrent softmax in training only is scored by softmax (Peng et al. (2020), Tables 1
    # and 2). The score of equation 5 must be selected by name.
    'concurrent_softmax': LossForm(
        concurrent_softmax_cross_entropy, True, rates=True, score='softmax'
    ),
}

SCORES = {
    'sigmoid': ScoreForm(sigmoid_score, False),
    'softmax': ScoreForm(softmax_score, True),
    'concurrent_softmax': ScoreForm(concurrent_softmax_score, True, rates=True),
}


def loss_function(
    name: str, rates: Array | None = None, weight: Array | None = None, **options: Any
) -> Callable:
    """Make a loss function of logits and target matrix.

    Args:
        name (str): A key of :data:`LOSSES`.
        rates (array): Concurrent rates :math:`(C, C)`. Losses that do not need them ignore them.
        weight (array): Weights of the classes, :math:`(C,)`.
        options: Further arguments of the loss. ``normalize`` defaults to that of its authors.

    Returns:
        callable: ``loss(x, t)``, a scalar :class:`chainer.Variable`.

    Raises:
        ValueError: The name is unknown, or required rates are missing.
    """
    form = _find(LOSSES, name, 'loss')
    options = {'normalize': form.normalize, **options}
    return partial(form.function, weight=weight, **_rates(form, rates, name), **options)


def score_function(name: str, rates: Array | None = None) -> Callable:
    """Make a score function of logits.

    Args:
        name (str): A key of :data:`SCORES`.
        rates (array): As in :func:`loss_function`.

    Returns:
        callable: ``score(x)``, which maps an array of logits to scores :math:`(R, C)` in [0, 1].

    Raises:
        ValueError: The name is unknown, or required rates are missing.
    """
    form = _find(SCORES, name, 'score')
    return partial(form.function, **_rates(form, rates, name))


def _find(forms: dict[str, Any], name: str, kind: str) -> Any:
    if name not in forms:
        raise ValueError(f'no {kind} {name!r}; expected one of {", ".join(forms)}')
    return forms[name]


def _rates(form: LossForm | ScoreForm, rates: Array | None, name: str) -> dict[str, Array]:
    if not form.rates:
        return {}
    if rates is None:
        raise ValueError(f'{name} needs concurrent rates')
    return {'rates': rates}
