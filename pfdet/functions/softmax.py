"""Softmax cross entropy over a target matrix with one or several labels a row, and as a score.

Ignored classes are left out of a row's softmax: they neither compete with its labels nor get a
gradient. A row without a positive class is of the background class; a row that is wholly ignored
does not count.
"""

from functools import partial

import chainer
from chainer.backends import cuda

from pfdet.functions.closed_form import closed_form_loss, with_background


def softmax_cross_entropy(x, t, normalize: str = 'roi', weight=None) -> chainer.Variable:
    """Softmax cross entropy of every label of a row (Peng et al., equation 1).

    .. math:: L = -\\sum_{t_{ri} = 1} \\log \\sigma_{ri}, \\quad
        \\sigma_{ri} = e^{x_{ri}} / \\sum_j e^{x_{rj}}

    With :math:`m` labels the gradient at a label is :math:`m \\sigma - 1` (equation 2), so it is
    wrong in sign where :math:`m \\sigma > 1`. The conventional loss of one label a box is this one
    over a target matrix that :func:`pfdet.targets.rules.keep_one_label` has gone over.

    Args:
        x (variable or array): Logits :math:`(R, C + 1)`, the background in the last column.
        t (array): Target matrix :math:`(R, C)`, int8: 1 positive, 0 negative, -1 ignored.
        normalize (str): What the sum is divided by: ``'roi'``, ``'used'`` or ``'positive'``, see
            :func:`pfdet.functions.closed_form.divisor`.
        weight (array): Weights of the labels' terms, :math:`(C,)`; the background's is 1.

    Returns:
        chainer.Variable: The loss, a scalar.

    Raises:
        ValueError: Shapes do not fit or ``normalize`` is none of these.
    """
    return closed_form_loss(
        x, t, partial(_cross_entropy, share=False), normalize, weight, background=True
    )


def dist_cross_entropy(x, t, normalize: str = 'roi', weight=None) -> chainer.Variable:
    """Softmax cross entropy with the mass shared out to a row's labels ("dist-CE").

    Each of :math:`m` labels gets :math:`1 / m` (Mahajan et al., Exploring the Limits of Weakly
    Supervised Pretraining, section 2.3; compared with in Peng et al., Table 1).

    Args, returns and raises as :func:`softmax_cross_entropy`.
    """
    return closed_form_loss(
        x, t, partial(_cross_entropy, share=True), normalize, weight, background=True
    )


def softmax_score(x):
    """The probability of each foreground class.

    Args:
        x (array): Logits :math:`(R, C + 1)`, the background in the last column.

    Returns:
        array: :math:`(R, C)`, in [0, 1].
    """
    xp = cuda.get_array_module(x)
    e = xp.exp(x - x.max(axis=1, keepdims=True))
    return e[:, :-1] / e.sum(axis=1, keepdims=True)


def _cross_entropy(x, t, weight, share):
    xp = cuda.get_array_module(x)
    y = with_background(t)
    mass = (y > 0).astype(x.dtype)
    if share:
        mass /= xp.maximum(mass.sum(axis=1, keepdims=True), 1)
    if weight is not None:
        mass *= weight
    total = mass.sum(axis=1, keepdims=True)
    remains = y >= 0
    z = xp.where(remains, x, -xp.inf)
    z -= z.max(axis=1, keepdims=True)
    gradient = xp.exp(z)
    normalizer = gradient.sum(axis=1, keepdims=True)
    # Not -inf times 0
    loss = (total * xp.log(normalizer)).sum() - (mass * xp.where(remains, z, 0)).sum()
    gradient *= total / normalizer
    gradient -= mass
    return loss, gradient
