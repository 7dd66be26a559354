"""Focal loss over a target matrix."""

from functools import partial

import chainer
from chainer.backends import cuda

from pfdet.functions.closed_form import closed_form_loss
from pfdet.functions.sigmoid import sigmoid_and_softplus


def focal_loss(
    x, t, normalize: str = 'roi', weight=None, alpha: float | None = 0.25, gamma: float = 2.0
) -> chainer.Variable:
    """Focal loss of each class separately (Lin et al., Focal Loss, equation 5).

    With :math:`p_t` the probability of what is true, :math:`\\sigma(x)` or
    :math:`1 - \\sigma(x)`, and :math:`\\alpha_t` either :math:`\\alpha` or :math:`1 - \\alpha`,

    .. math:: L = -\\sum \\alpha_t (1 - p_t)^\\gamma \\log p_t

    The second paper compares with it in its Table 1 without saying how; the defaults are its
    authors'.

    Args:
        x (variable or array): Logits :math:`(R, C)`.
        t (array): Target matrix :math:`(R, C)`, int8: 1 positive, 0 negative, -1 ignored.
        normalize (str): As :func:`pfdet.functions.sigmoid.sigmoid_cross_entropy`; its authors
            divide by the number of positives.
        weight (array): Weights of the classes' terms, :math:`(C,)`.
        alpha (float): Weight of positives, in [0, 1]; :obj:`None` weighs positives and negatives
            both by 1.
        gamma (float): How much less what is already right counts; 0 not at all.

    Returns:
        chainer.Variable: The loss, a scalar.

    Raises:
        ValueError: Shapes do not fit, or an option is not one of these.
    """
    if gamma < 0:
        raise ValueError(f'gamma must not be negative, got {gamma}')
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f'alpha must be in [0, 1] or None, got {alpha}')
    return closed_form_loss(x, t, partial(_focal, alpha=alpha, gamma=gamma), normalize, weight)


def _focal(x, t, weight, alpha, gamma):
    xp = cuda.get_array_module(x)
    sign = xp.where(t > 0, x.dtype.type(-1), x.dtype.type(1))
    # The probability of what is false, and -log of that of what is true
    q, loss = sigmoid_and_softplus(sign * x)
    scale = (t >= 0).astype(x.dtype)
    if alpha is not None:
        scale *= xp.where(t > 0, x.dtype.type(alpha), x.dtype.type(1 - alpha))
    if weight is not None:
        scale *= weight
    scale *= q ** float(gamma)
    gradient = sign * scale * (gamma * (1 - q) * loss + q)
    return (scale * loss).sum(), gradient
