"""Concurrent softmax (Peng et al., section 4.1): classes that go together do not compete.

The concurrent rate :math:`r_{ij}` is the probability that an object of class :math:`i` is labelled
as class :math:`j`. In the softmax of class :math:`i`, class :math:`j` counts :math:`1 - r_{ij}`
times, so that each class has a denominator of its own. The background is one more class with
:math:`r = 0`.
"""

from functools import partial

import chainer
import numpy as np
from chainer.backends import cuda

from pfdet.functions.closed_form import closed_form_loss, row_blocks, with_background


def concurrent_softmax_cross_entropy(
    x, t, rates, normalize: str = 'roi', weight=None
) -> chainer.Variable:
    """Concurrent softmax loss (Peng et al., equation 3).

    .. math:: L = -\\sum_{t_{ri} = 1} \\log \\sigma^*_{ri}, \\quad
        \\sigma^*_{ri} = \\frac{e^{x_{ri}}}
        {\\sum_{t_{rj} = 0} (1 - r_{ij}) e^{x_{rj}} + e^{x_{ri}}}

    The labels of a row do not compete with each other, and the gradient at a label is
    :math:`\\sigma^*_{ri} - 1`, never positive. At any other class it is :math:`\\sum_i (1 - r_{ij})
    e^{x_{rj}} / D_{ri}` over the row's labels :math:`i` with their denominators :math:`D_{ri}`;
    equation 4 writes this with :math:`i` and :math:`j` exchanged.

    Ignored classes are left out of all denominators. A row without a positive class is of the
    background class; a row that is wholly ignored does not count.

    Args:
        x (variable or array): Logits :math:`(R, C + 1)`, the background in the last column.
        t (array): Target matrix :math:`(R, C)`, int8: 1 positive, 0 negative, -1 ignored.
        rates (array): :math:`r_{ij}` in row :math:`i` and column :math:`j`, in [0, 1],
            :math:`(C, C)`; the diagonal is not looked at.
        normalize (str): What the sum is divided by: ``'roi'``, ``'used'`` or ``'positive'``, see
            :func:`pfdet.functions.closed_form.divisor`.
        weight (array): Weights of the labels' terms, :math:`(C,)`; the background's is 1.

    Returns:
        chainer.Variable: The loss, a scalar.

    Raises:
        ValueError: Shapes do not fit or ``normalize`` is none of these.
    """
    _check(rates, t.shape[1])
    counts = _counts(cuda.get_array_module(x), rates, x.dtype)
    return closed_form_loss(
        x, t, partial(_cross_entropy, counts=counts), normalize, weight, background=True
    )


def concurrent_softmax_score(x, rates):
    """Concurrent softmax at test time (Peng et al., equation 5).

    .. math:: \\sigma^\\dagger_{ri} = e^{x_{ri}} / \\sum_j (1 - r_{ij}) e^{x_{rj}}

    Args:
        x (array): Logits :math:`(R, C + 1)`, the background in the last column.
        rates (array): :math:`(C, C)`, as for the loss.

    Returns:
        array: Scores of the foreground classes, :math:`(R, C)`, in [0, 1]. They do not sum to 1.

    Raises:
        ValueError: Shapes do not fit.
    """
    xp = cuda.get_array_module(x)
    C = x.shape[1] - 1
    _check(rates, C)
    counts = _counts(xp, rates, x.dtype)[:C]
    e = xp.exp(x - x.max(axis=1, keepdims=True))
    denominator = e @ counts.T
    e = e[:, :C]
    # Where the largest logit does not count, all others may be too small beside it.
    info = np.finfo(x.dtype)
    lost = denominator < info.tiny / info.eps * (C + 1)
    score = e / xp.where(lost, 1, denominator)
    row, label = xp.nonzero(lost)
    for s in row_blocks(xp, len(row)):
        share, _, _ = _compete(x[row[s]], counts[label[s]])
        score[row[s], label[s]] = share[xp.arange(len(share)), label[s]]
    return score


def _check(rates, n_class):
    if rates.shape != (n_class, n_class):
        raise ValueError(f'rates have shape {rates.shape}; expected {(n_class, n_class)}')


def _counts(xp, rates, dtype):
    """How much each class counts in the softmax of each, ``(C + 1, C + 1)``: 1 - r."""
    C = len(rates)
    counts = xp.ones((C + 1, C + 1), dtype)
    counts[:C, :C] -= xp.asarray(rates, dtype=dtype)
    counts[xp.arange(C), xp.arange(C)] = 1
    return counts


def _compete(x, counts):
    """Softmax of rows in which logits count less than once or not at all.

    The largest logit is sought among those that count, so a denominator is never lost beside one
    that does not.

    Args:
        x (array): Logits :math:`(K, D)`.
        counts (array): In [0, 1], :math:`(K, D)`; at least one of a row is not 0.

    Returns:
        tuple of arrays: The shares ``counts * exp(x)`` of their sum, :math:`(K, D)`; the largest
        logit that counts, :math:`(K,)`; the logarithm of the sum, less that logit, :math:`(K,)`.
    """
    xp = cuda.get_array_module(x)
    share = xp.where(counts > 0, x, -xp.inf)
    top = share.max(axis=1, keepdims=True)
    share -= top
    xp.exp(share, out=share)
    share *= counts
    total = share.sum(axis=1, keepdims=True)
    share /= total
    return share, top[:, 0], xp.log(total)[:, 0]


def _cross_entropy(x, t, weight, counts):
    xp = cuda.get_array_module(x)
    y = with_background(t)
    negative = y == 0
    row, label = xp.nonzero(y > 0)
    loss, gradient = xp.zeros((), x.dtype), xp.zeros_like(x)
    if len(row) == 0:
        return loss, gradient
    first = xp.searchsorted(row, xp.arange(len(x)))
    nth = xp.arange(len(row)) - first[row]
    # The first label of every row, then the second of those that have one, ...: so that no row
    # comes twice in one sum.
    order = xp.argsort(nth, **({'kind': 'stable'} if xp is np else {}))
    row, label = row[order], label[order]
    ends = np.cumsum(cuda.to_cpu(xp.bincount(nth))).tolist()
    for begin, end in zip([0, *ends], ends):
        r, i = row[begin:end], label[begin:end]
        own = xp.arange(len(r)), i
        c = counts[i] * negative[r]
        c[own] = 1
        share, top, term = _compete(x[r], c)
        share[own] -= 1
        # The large ones first: their difference may be small.
        term += top - x[r, i]
        if weight is not None:
            w = weight[i]
            term *= w
            share *= w[:, None]
        loss += term.sum()
        gradient[r] += share
    return loss, gradient
