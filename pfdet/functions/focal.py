"""Focal loss of a target matrix."""

from functools import partial

import chainer
from chainer.backends import cuda

from pfdet.boxes.arrays import Array
from pfdet.functions.closed_form import closed_form_loss
from pfdet.functions.sigmoid import sigmoid_and_softplus


def focal_loss(
    x: chainer.Variable | Array,
    t: Array,
    normalize: str = 'roi',
    weight: Array | None = None,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
) -> chainer.Variable:
    """Focal loss of each class separately (Lin et al., Focal Loss, equation 5).

    .. math:: L = -\\sum \\alpha_t (1 - p_t)^\\gamma \\log p_t

    For positives, :math:`p_t = \\sigma(x)` and :math:`\\alpha_t = \\alpha`. For negatives,
    :math:`p_t = 1 - \\sigma(x)` and :math:`\\alpha_t = 1 - \\alpha`.

    Peng et al. (2020) compare with it in Table 1 without giving its parameters. The defaults are
    those of Lin et al.

    Args:
        x (variable or array): Logits :math:`(R, C)`.
        t (int8 array): Target matrix :math:`(R, C)`: 1 positive, 0 negative, -1 ignored.
        normalize (str): As in :func:`pfdet.functions.sigmoid.sigmoid_cross_entropy`. Lin et al.
            divide by the number of positives.
        weight (array): Weights of the classes' terms, :math:`(C,)`.
        alpha (float): Weight of positives in [0, 1]. With :obj:`None`, positives and negatives
            both have weight 1.
        gamma (float): Focusing parameter, at least 0. Larger values give well-classified examples
            less weight.

    Returns:
        chainer.Variable: The loss, a scalar.

    Raises:
        ValueError: A shape does not fit, ``normalize`` is unknown, or ``alpha`` or ``gamma`` is
            out of range.
    """
    if gamma < 0:
        raise ValueError(f'gamma must not be negative, got {gamma}')
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f'alpha must be in [0, 1] or None, got {alpha}')
    return closed_form_loss(x, t, partial(_focal, alpha=alpha, gamma=gamma), normalize, weight)


def _focal(
    x: Array, t: Array, weight: Array | None, alpha: float | None, gamma: float
) -> tuple[Array, Array]:
    xp = cuda.get_array_module(x)
    sign = xp.where(t > 0, x.dtype.type(-1), x.dtype.type(1))
    # 1 - p_t and -log p_t
    q, loss = sigmoid_and_softplus(sign * x)
    scale = (t >= 0).astype(x.dtype)
    if alpha is not None:
        scale *= xp.where(t > 0, x.dtype.type(alpha), x.dtype.type(1 - alpha))
    if weight is not None:
        scale *= weight
    scale *= q ** float(gamma)
    gradient = sign * scale * (gamma * (1 - q) * loss + q)
    return (scale * loss).sum(), gradient
