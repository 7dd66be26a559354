"""The loss of box offsets."""

import chainer
import chainer.functions as F


def smooth_l1(x, t, beta: float = 1.0) -> chainer.Variable:
    """Smooth L1 loss of rows (Girshick, Fast R-CNN, equation 3), summed over each row.

    Args:
        x (variable or array): Predicted offsets :math:`(R, 4)`.
        t (array): True offsets :math:`(R, 4)`.
        beta (float): Where the loss turns from quadratic to linear.

    Returns:
        chainer.Variable: :math:`(R,)`.
    """
    return F.sum(F.huber_loss(x, t, beta, reduce='no'), axis=1) / beta
