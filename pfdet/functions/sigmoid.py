"""Sigmoid cross entropy of a target matrix, and the sigmoid as a score.

PFDet's co-occurrence loss (section 2.2) is this loss after
:func:`pfdet.targets.rules.ignore_cooccurring` has been applied to the target matrix.
"""

import chainer
from chainer.backends import cuda

from pfdet.boxes.arrays import Array
from pfdet.functions.closed_form import closed_form_loss


def sigmoid_cross_entropy(
    x: chainer.Variable | Array, t: Array, normalize: str = 'roi', weight: Array | None = None
) -> chainer.Variable:
    """Sigmoid cross entropy of each class separately (PFDet, section 2.1).

    .. math:: L = -\\sum_{t_{rc} = 1} \\log \\sigma(x_{rc})
        - \\sum_{t_{rc} = 0} \\log (1 - \\sigma(x_{rc}))

    Args:
        x (variable or array): Logits :math:`(R, C)`.
        t (int8 array): Target matrix :math:`(R, C)`: 1 positive, 0 negative, -1 ignored.
        normalize (str): Divisor of the sum: ``'roi'``, ``'used'``, ``'positive'`` or
            ``'element'``, see :func:`pfdet.functions.closed_form.divisor`.
        weight (array): Weights of the classes' terms, :math:`(C,)`.

    Returns:
        chainer.Variable: The loss, a scalar.

    Raises:
        ValueError: A shape does not fit or ``normalize`` is unknown.
    """
    return closed_form_loss(x, t, _cross_entropy, normalize, weight)


def sigmoid_score(x: Array) -> Array:
    """Compute the probability of each class.

    Args:
        x (array): Logits of any shape.

    Returns:
        array: Scores in [0, 1] with the shape and dtype of ``x``.
    """
    return sigmoid_and_softplus(x)[0]


def sigmoid_and_softplus(x: Array) -> tuple[Array, Array]:
    """Compute :math:`\\sigma(x)` and :math:`\\log(1 + e^x) = -\\log(1 - \\sigma(x))`.

    Neither overflows, and small values keep their relative precision.

    Args:
        x (array): Logits of any shape.

    Returns:
        tuple of arrays: Two arrays with the shape and dtype of ``x``.
    """
    xp = cuda.get_array_module(x)
    e = xp.exp(-abs(x))
    softplus = xp.log1p(e)
    softplus += xp.maximum(x, 0)
    sigmoid = xp.where(x >= 0, x.dtype.type(1), e)
    sigmoid /= 1 + e
    return sigmoid, softplus


def _cross_entropy(x: Array, t: Array, weight: Array | None) -> tuple[Array, Array]:
    positive, used = t > 0, t >= 0
    gradient, loss = sigmoid_and_softplus(x)
    # -log sigmoid(x) = log(1 + e^x) - x
    loss -= x * positive
    gradient -= positive
    for a in loss, gradient:
        a *= used
        if weight is not None:
            a *= weight
    return loss.sum(), gradient
