"""Sigmoid losses over a target matrix."""

import chainer
from chainer.backends import cuda

NORMALIZATIONS = ('roi', 'element', 'positive')


class SigmoidCrossEntropy(chainer.FunctionNode):
    """Sum of the binary cross entropies of a target matrix, divided by a constant."""

    def __init__(self, count: float):
        self.count = count

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        x, t = inputs
        xp = cuda.get_array_module(x)
        # log(1 + e^x) - x t, without e^x overflowing
        loss = xp.maximum(x, 0) - x * (t > 0) + xp.log1p(xp.exp(-abs(x)))
        loss *= t >= 0
        return xp.asarray(loss.sum() / self.count, dtype=x.dtype),

    def backward(self, indexes, grad_outputs):
        x, t = self.get_retained_inputs()
        xp = cuda.get_array_module(x.array)
        # sigmoid(x) by tanh, which does not overflow
        g = xp.tanh(x.array * 0.5) * 0.5 + 0.5
        g -= t.array > 0
        g *= t.array >= 0
        g /= self.count
        gy, = grad_outputs
        return chainer.functions.broadcast_to(gy, g.shape) * g, None


def sigmoid_cross_entropy(x, t, normalize: str = 'roi') -> chainer.Variable:
    """Sigmoid cross entropy of each class separately (PFDet, section 2.1).

    Args:
        x (variable or array): Logits :math:`(R, C)`.
        t (array): Target matrix :math:`(R, C)`, int8: 1 positive, 0 negative, -1 ignored.
        normalize (str): What the sum over all entries is divided by: the number of rows
            (``'roi'``; the paper does not say, this is what Detectron does with softmax), of
            entries that are not ignored (``'element'``, as Chainer's function), or of rows with a
            positive (``'positive'``). Never by less than 1.

    Returns:
        chainer.Variable: The loss, a scalar.

    Raises:
        ValueError: Shapes differ or ``normalize`` is none of these.
    """
    if x.shape != t.shape:
        raise ValueError(f'logits {x.shape} and targets {t.shape} differ in shape')
    if normalize == 'roi':
        count = len(t)
    elif normalize == 'element':
        count = int((t >= 0).sum())
    elif normalize == 'positive':
        count = int((t > 0).any(axis=1).sum())
    else:
        raise ValueError(f'normalize must be one of {NORMALIZATIONS}, not {normalize!r}')
    return SigmoidCrossEntropy(float(max(count, 1))).apply((x, t))[0]
