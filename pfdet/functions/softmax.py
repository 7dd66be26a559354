"""Softmax cross entropy of a target matrix with one or more labels per row, and softmax scores.

Ignored classes are omitted from the softmax of a row: they do not compete with its labels and get
no gradient. A row without a positive class belongs to the background. A row whose classes are all
ignored has no loss.
"""

from functools import partial

import chainer
from chainer.backends import cuda

from pfdet.boxes.arrays import Array
from pfdet.functions.closed_form import closed_form_loss, with_background


def softmax_cross_entropy(
    x: chainer.Variable | Array, t: Array, normalize: str = 'roi', weight: Array | None = None
) -> chainer.Variable:
    """Softmax cross entropy of every label of a row (Peng et al. (2020), equation 1).

    .. math:: L = -\\sum_{t_{ri} = 1} \\log \\sigma_{ri}, \\quad
        \\sigma_{ri} = e^{x_{ri}} / \\sum_j e^{x_{rj}}

    With :math:`m` labels, the gradient at a label is :math:`m \\sigma - 1` (equation 2), which has
    the wrong sign where :math:`m \\sigma > 1`. The conventional single-label loss is this one after
    :func:`pfdet.targets.rules.keep_one_label` has been applied to the target matrix.

    Args:
        x (variable or array): Logits :math:`(R, C + 1)`, the background in the last column.
        t (int8 array): Target matrix :math:`(R, C)`: 1 positive, 0 negative, -1 ignored.
        normalize (str): Divisor of the sum: ``'roi'``, ``'used'`` or ``'positive'``, see
            :func:`pfdet.functions.closed_form.divisor`.
        weight (array): Weights of the labels' terms, :math:`(C,)`. The background has weight 1.

    Returns:
        chainer.Variable: The loss, a scalar.

    Raises:
        ValueError: A shape does not fit or ``normalize`` is unknown.
    """
    return closed_form_loss(
        x, t, partial(_cross_entropy, share=False), normalize, weight, background=True
    )


def dist_cross_entropy(
    x: chainer.Variable | Array, t: Array, normalize: str = 'roi', weight: Array | None = None
) -> chainer.Variable:
    """Softmax cross entropy with a uniform target distribution over a row's labels ("dist-CE").

    Each of :math:`m` labels has target :math:`1 / m` (Mahajan et al., Exploring the Limits of
    Weakly Supervised Pretraining, section 2.3). Peng et al. (2020) compare with it in Table 1.

    Arguments, return value and errors are those of :func:`softmax_cross_entropy`.
    """
    return closed_form_loss(
        x, t, partial(_cross_entropy, share=True), normalize, weight, background=True
    )


def softmax_score(x: Array) -> Array:
    """Compute the probability of each foreground class.

    Args:
        x (array): Logits :math:`(R, C + 1)`, the background in the last column.

    Returns:
        array: Scores :math:`(R, C)` in [0, 1].
    """
    xp = cuda.get_array_module(x)
    e = xp.exp(x - x.max(axis=1, keepdims=True))
    return e[:, :-1] / e.sum(axis=1, keepdims=True)


def _cross_entropy(x: Array, t: Array, weight: Array | None, share: bool) -> tuple[Array, Array]:
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
    # Avoid 0 * -inf.
    loss = (total * xp.log(normalizer)).sum() - (mass * xp.where(remains, z, 0)).sum()
    gradient *= total / normalizer
    gradient -= mass
    return loss, gradient
