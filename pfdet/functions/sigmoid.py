"""Sigmoid cross entropy over a target matrix, and the sigmoid as a score.

Co-BCE, the co-occurrence loss of PFDet's section 2.2, is this loss over a target matrix that
:func:`pfdet.targets.rules.ignore_cooccurring` has gone over.
"""

import chainer
from chainer.backends import cuda

from pfdet.functions.closed_form import closed_form_loss


def sigmoid_cross_entropy(x, t, normalize: str = 'roi', weight=None) -> chainer.Variable:
    """Sigmoid cross entropy of each class separately (PFDet, section 2.1).

    .. math:: L = -\\sum_{t_{rc} = 1} \\log \\sigma(x_{rc})
        - \\sum_{t_{rc} = 0} \\log (1 - \\sigma(x_{rc}))

    Args:
        x (variable or array): Logits :math:`(R, C)`.
        t (array): Target matrix :math:`(R, C)`, int8: 1 positive, 0 negative, -1 ignored.
        normalize (str): What the sum is divided by: ``'roi'``, ``'used'``, ``'positive'`` or
            ``'element'``, see :func:`pfdet.functions.closed_form.divisor`.
        weight (array): Weights of the classes' terms, :math:`(C,)`.

    Returns:
        chainer.Variable: The loss, a scalar.

    Raises:
        ValueError: Shapes do not fit or ``normalize`` is none of these.
    """
    return closed_form_loss(x, t, _cross_entropy, normalize, weight)


def sigmoid_score(x):
    """The probability of each class.

    Args:
        x (array): Logits, any shape.

    Returns:
        array: In [0, 1], shape and type of ``x``.
    """
    return sigmoid_and_softplus(x)[0]


def sigmoid_and_softplus(x):
    """:math:`\\sigma(x)` and :math:`\\log(1 + e^x) = -\\log(1 - \\sigma(x))`.

    Neither overflows, and both keep their relative precision where they are small.
    """
    xp = cuda.get_array_module(x)
    e = xp.exp(-abs(x))
    softplus = xp.log1p(e)
    softplus += xp.maximum(x, 0)
    sigmoid = xp.where(x >= 0, x.dtype.type(1), e)
    sigmoid /= 1 + e
    return sigmoid, softplus


def _cross_entropy(x, t, weight):
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
