"""Concurrent softmax (Peng et al. (2020), section 4.1): concurrent classes do not compete.

The concurrent rate :math:`r_{ij}` is the probability that an object of class :math:`i` is labelled
as class :math:`j`. In the softmax of class :math:`i`, class :math:`j` has weight
:math:`1 - r_{ij}`, so each class has its own denominator. The background is one more class with
:math:`r = 0`.
"""

from functools import partial
from types import ModuleType

import chainer
import numpy as np
from chainer.backends import cuda

from pfdet.boxes.arrays import Array
from pfdet.functions.closed_form import closed_form_loss, row_blocks, with_background


def concurrent_softmax_cross_entropy(
    x: chainer.Variable | Array,
    t: Array,
    rates: Array,
    normalize: str = 'roi',
    weight: Array | None = None,
) -> chainer.Variable:
    """Concurrent softmax loss (Peng et al. (2020), equation 3).

    .. math:: L = -\\sum_{t_{ri} = 1} \\log \\sigma^*_{ri}, \\quad
        \\sigma^*_{ri} = \\frac{e^{x_{ri}}}
        {\\sum_{t_{rj} = 0} (1 - r_{ij}) e^{x_{rj}} + e^{x_{ri}}}

    The labels of a row do not compete with each other. The gradient at a label is
    :math:`\\sigma^*_{ri} - 1`, which is never positive. At any other class it is
    :math:`\\sum_i (1 - r_{ij}) e^{x_{rj}} / D_{ri}` over the labels :math:`i` of the row, where
    :math:`D_{ri}` is the denominator of label :math:`i`. Equation 4 has :math:`i` and :math:`j`
    exchanged.

    Ignored classes are omitted from all denominators. A row without a positive class belongs to
    the background. A row whose classes are all ignored has no loss.

    Args:
        x (variable or array): Logits :math:`(R, C + 1)`, the background in the last column.
        t (int8 array): Target matrix :math:`(R, C)`: 1 positive, 0 negative, -1 ignored.
        rates (array): Concurrent rates in [0, 1], :math:`r_{ij}` in row :math:`i` and column
            :math:`j`, :math:`(C, C)`. The diagonal is not used.
        normalize (str): Divisor of the sum: ``'roi'``, ``'used'`` or ``'positive'``, see
            :func:`pfdet.functions.closed_form.divisor`.
        weight (array): Weights of the labels' terms, :math:`(C,)`. The background has weight 1.

    Returns:
        chainer.Variable: The loss, a scalar.

    Raises:
        ValueError: A shape does not fit or ``normalize`` is unknown.
    """
    _check(rates, t.shape[1])
    competition = _competition(cuda.get_array_module(x), rates, x.dtype)
    return closed_form_loss(
        x, t, partial(_cross_entropy, competition=competition), normalize, weight, background=True
    )


def concurrent_softmax_score(x: Array, rates: Array) -> Array:
    """Concurrent softmax at test time (Peng et al. (2020), equation 5).

    .. math:: \\sigma^\\dagger_{ri} = e^{x_{ri}} / \\sum_j (1 - r_{ij}) e^{x_{rj}}

    Args:
        x (array): Logits :math:`(R, C + 1)`, the background in the last column.
        rates (array): Concurrent rates :math:`(C, C)`, as in
            :func:`concurrent_softmax_cross_entropy`.

    Returns:
        array: Scores of the foreground classes, :math:`(R, C)`, in [0, 1]. They do not sum to 1.

    Raises:
        ValueError: A shape does not fit.
    """
    xp = cuda.get_array_module(x)
    C = x.shape[1] - 1
    _check(rates, C)
    competition = _competition(xp, rates, x.dtype)[:C]
    e = xp.exp(x - x.max(axis=1, keepdims=True))
    denominator = e @ competition.T
    e = e[:, :C]
    # If the largest logit has weight 0, the terms of the denominator may underflow.
    info = np.finfo(x.dtype)
    underflow = denominator < info.tiny / info.eps * (C + 1)
    score = e / xp.where(underflow, 1, denominator)
    row, label = xp.nonzero(underflow)
    for s in row_blocks(xp, len(row)):
        probability, _, _ = _weighted_softmax(x[row[s]], competition[label[s]])
        score[row[s], label[s]] = probability[xp.arange(len(probability)), label[s]]
    return score


def _check(rates: Array, n_class: int) -> None:
    if rates.shape != (n_class, n_class):
        raise ValueError(f'rates have shape {rates.shape}; expected {(n_class, n_class)}')


def _competition(xp: ModuleType, rates: Array, dtype: np.dtype) -> Array:
    """Weights of all classes in the softmax of each class, 1 - r, ``(C + 1, C + 1)``."""
    C = len(rates)
    competition = xp.ones((C + 1, C + 1), dtype)
    competition[:C, :C] -= xp.asarray(rates, dtype=dtype)
    competition[xp.arange(C), xp.arange(C)] = 1
    return competition


def _weighted_softmax(x: Array, competition: Array) -> tuple[Array, Array, Array]:
    """Softmax of rows in which each exponential has a weight.

    The largest logit is taken among those of positive weight, so that the denominator does not
    underflow because of a larger logit of weight 0.

    Args:
        x (array): Logits :math:`(K, D)`.
        competition (array): Weights in [0, 1], :math:`(K, D)`; in each row one is positive.

    Returns:
        tuple of arrays: ``competition * exp(x)`` divided by its sum, :math:`(K, D)`; the largest
        logit of positive weight, :math:`(K,)`; the logarithm of the sum minus that logit,
        :math:`(K,)`.
    """
    xp = cuda.get_array_module(x)
    probability = xp.where(competition > 0, x, -xp.inf)
    top = probability.max(axis=1, keepdims=True)
    probability -= top
    xp.exp(probability, out=probability)
    probability *= competition
    total = probability.sum(axis=1, keepdims=True)
    probability /= total
    return probability, top[:, 0], xp.log(total)[:, 0]


def _cross_entropy(
    x: Array, t: Array, weight: Array | None, competition: Array
) -> tuple[Array, Array]:
    xp = cuda.get_array_module(x)
    y = with_background(t)
    negative = y == 0
    row, label = xp.nonzero(y > 0)
    loss, gradient = xp.zeros((), x.dtype), xp.zeros_like(x)
    if len(row) == 0:
        return loss, gradient
    first = xp.searchsorted(row, xp.arange(len(x)))
    nth = xp.arange(len(row)) - first[row]
    # First labels of all rows, then second labels, and so on: no row occurs twice in a group, so
    # the gradients of a group can be added with one indexed assignment.
    order = xp.argsort(nth, **({'kind': 'stable'} if xp is np else {}))
    row, label = row[order], label[order]
    ends = np.cumsum(cuda.to_cpu(xp.bincount(nth))).tolist()
    for begin, end in zip([0, *ends], ends):
        r, i = row[begin:end], label[begin:end]
        own = xp.arange(len(r)), i
        c = competition[i] * negative[r]
        c[own] = 1
        probability, top, term = _weighted_softmax(x[r], c)
        probability[own] -= 1
        # The two large logits first: their difference may be small.
        term += top - x[r, i]
        if weight is not None:
            w = weight[i]
            term *= w
            probability *= w[:, None]
        loss += term.sum()
        gradient[r] += probability
    return loss, gradient
