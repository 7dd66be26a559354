"""What the losses over a target matrix have in common.

A target matrix ``t`` is int8, :math:`(R, C)`: 1 positive, 0 negative, -1 ignored. A loss is the sum
of a term for each label, divided by a count, and its gradient is known in closed form. So a loss is
written as one function from arrays to the sum and its gradient, which share most of their work;
:func:`closed_form_loss` makes it a node of Chainer's graph.

Softmax losses have a background class. Logits are then :math:`(R, C + 1)` with the background in
the **last** column, so that column :math:`c` is class :math:`c` in logits, targets, weights and
concurrent rates alike. Targets stay :math:`(R, C)`: :func:`with_background` derives the column.
"""

from collections.abc import Callable

import chainer
import numpy as np
from chainer.backends import cuda

# Rows at a time: on the CPU, so that what is computed on the way stays in the cache; on the GPU, so
# that it fits into memory.
_BLOCK = 256
_GPU_BLOCK = 1 << 15

NORMALIZATIONS = ('roi', 'used', 'positive', 'element')


class ClosedFormLoss(chainer.FunctionNode):
    """A scalar whose gradient is computed along with it; not differentiable twice.

    Args:
        value_and_gradient (callable): Maps the logits' array to the loss and its gradient.
    """

    def __init__(self, value_and_gradient: Callable):
        self._value_and_gradient = value_and_gradient

    def forward(self, inputs):
        (x,) = inputs
        loss, self._gradient = self._value_and_gradient(x)
        return (cuda.get_array_module(x).asarray(loss, dtype=x.dtype),)

    def backward(self, indexes, grad_outputs):
        (gy,) = grad_outputs
        return (chainer.functions.broadcast_to(gy, self._gradient.shape) * self._gradient,)


def closed_form_loss(
    x, t, function: Callable, normalize: str, weight=None, background: bool = False
) -> chainer.Variable:
    """Apply a sum of terms, divided by a count.

    Args:
        x (variable or array): Logits, :math:`(R, C)`, or :math:`(R, C + 1)` with ``background``.
        t (array): Target matrix :math:`(R, C)`.
        function (callable): ``function(x, t, weight)`` returns the sum of the terms of some rows
            and its gradient. ``weight`` is an array of the type of ``x`` with as many entries as
            ``x`` has columns, or :obj:`None`.
        normalize (str): What the sum is divided by, see :func:`divisor`.
        weight (array): Weights of the classes, :math:`(C,)`; the background's is 1.
        background (bool): Whether ``x`` has a background column.

    Returns:
        chainer.Variable: A scalar of the type of ``x``.

    Raises:
        ValueError: Shapes do not fit or ``normalize`` is unknown.
    """
    R, C = t.shape
    expected = R, C + background
    if x.shape != expected:
        raise ValueError(
            f'logits have shape {x.shape}; expected {expected} for targets {t.shape}'
            + (' and a background column' if background else '')
        )
    if weight is not None and weight.shape != (C,):
        raise ValueError(f'weight has shape {weight.shape}; expected {(C,)}')
    count = divisor(t, normalize, terms_are_elements=not background)

    def value_and_gradient(x):
        xp = cuda.get_array_module(x)
        w = weight
        if w is not None:
            w = xp.asarray(w, dtype=x.dtype)
            if background:
                w = xp.concatenate([w, xp.ones(1, x.dtype)])
        loss, gradient = 0.0, xp.empty_like(x)
        for s in row_blocks(xp, R):
            part, gradient[s] = function(x[s], t[s], w)
            loss = loss + part
        gradient /= count
        return loss / count, gradient

    return ClosedFormLoss(value_and_gradient).apply((x,))[0]


def row_blocks(xp, n: int) -> list[slice]:
    """Slices of at most so many rows as are best computed at a time."""
    block = _BLOCK if xp is np else _GPU_BLOCK
    return [slice(k, k + block) for k in range(0, n, block)]


def divisor(t, normalize: str, terms_are_elements: bool = True):
    """What a sum of terms is divided by; never less than 1.

    Neither paper says. ``'roi'`` is what Detectron and ChainerCV do with softmax, and the only one
    that is the same on all ranks, so that the mean over ranks is the loss of all images together.

    Args:
        t (array): Target matrix :math:`(R, C)`.
        normalize (str): ``'roi'``, the number of rows; ``'used'``, of rows that are not wholly
            ignored, as :func:`chainer.functions.softmax_cross_entropy`; ``'positive'``, of rows
            with a positive (Lin et al., Focal Loss, section 4.1); ``'element'``, of entries that
            are not ignored, as :func:`chainer.functions.sigmoid_cross_entropy`.
        terms_are_elements (bool): Whether ``'element'`` has a meaning.

    Returns:
        float, or on the GPU an array without axes, where the count depends on what is in ``t``.

    Raises:
        ValueError: ``normalize`` is none of these.
    """
    if normalize == 'roi':
        count = len(t)
    elif normalize == 'used':
        count = (t >= 0).any(axis=1).sum()
    elif normalize == 'positive':
        count = (t > 0).any(axis=1).sum()
    elif normalize == 'element' and terms_are_elements:
        count = (t >= 0).sum()
    else:
        known = NORMALIZATIONS if terms_are_elements else NORMALIZATIONS[:-1]
        raise ValueError(f'normalize must be one of {known}, not {normalize!r}')
    xp = cuda.get_array_module(t)
    if xp is np or normalize == 'roi':
        return float(max(int(count), 1))
    # Its number would have to come from the device.
    return xp.maximum(count, 1).astype(np.float32)


def with_background(t):
    """The target matrix with the background as its last column.

    The background is positive where no class is, and negative where one is. In a row that is
    wholly ignored it has nothing to compete with, so such a row adds nothing to a softmax loss.

    Args:
        t (int8 array): :math:`(R, C)`.

    Returns:
        int8 array: :math:`(R, C + 1)`.
    """
    xp = cuda.get_array_module(t)
    R, C = t.shape
    y = xp.empty((R, C + 1), t.dtype)
    y[:, :C] = t
    y[:, C] = ~(t > 0).any(axis=1)
    return y
