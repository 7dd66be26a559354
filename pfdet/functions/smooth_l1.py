"""Smooth L1 loss of box offsets."""

import chainer
import chainer.functions as F

from pfdet.boxes.arrays import Array


def smooth_l1(
    x: chainer.Variable | Array, t: chainer.Variable | Array, beta: float = 1.0
) -> chainer.Variable:
    """Smooth L1 loss (Girshick, Fast R-CNN, equation 3), summed over each row.

    Args:
        x (variable or array): Predicted offsets :math:`(R, 4)`.
        t (array): Ground truth offsets :math:`(R, 4)`.
        beta (float): Error at which the loss changes from quadratic to linear.

    Returns:
        chainer.Variable: Losses :math:`(R,)`.
    """
    return F.sum(F.huber_loss(x, t, beta, reduce='no'), axis=1) / beta
