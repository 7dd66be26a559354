"""Common parts of the losses over a target matrix.

A target matrix ``t`` is int8, :math:`(R, C)`: 1 positive, 0 negative, -1 ignored. A loss is a sum
of one term per label, divided by a count. Its gradient has a closed form that shares most
operations with the loss. Each loss is therefore one function that maps arrays to the sum and its
gradient, and :func:`closed_form_loss` makes it a node of Chainer's graph.

Softmax losses have a background class. Their logits are :math:`(R, C + 1)` with the background in
the **last** column, so that column :math:`c` is class :math:`c` in logits, targets, weights and
concurrent rates. Targets stay :math:`(R, C)`; :func:`with_background` appends the column.
"""

from collections.abc import Callable
from types import ModuleType

import chainer
import numpy as np
from chainer.backends import cuda

from pfdet.boxes.arrays import Array

# Rows computed at a time. On the CPU, intermediate results stay in the cache; on the GPU, they fit
# into memory.
_BLOCK = 256
_GPU_BLOCK = 1 << 15

NORMALIZATIONS = ('roi', 'used', 'positive', 'element')


class ClosedFormLoss(chainer.FunctionNode):
    """A scalar loss whose gradient is computed in the forward pass; not twice differentiable.

    Args:
        value_and_gradient (callable): Maps an array of logits to the loss and its gradient.
    """

    def __init__(self, value_and_gradient: Callable):
        self._value_and_gradient = value_and_gradient

    def forward(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Compute the loss and keep its gradient."""
        (x,) = inputs
        loss, self._gradient = self._value_and_gradient(x)
        return (cuda.get_array_module(x).asarray(loss, dtype=x.dtype),)

    def backward(
        self, indexes: tuple[int, ...], grad_outputs: tuple[chainer.Variable, ...]
    ) -> tuple[chainer.Variable, ...]:
        """Scale the gradient kept by the forward pass."""
        (gy,) = grad_outputs
        return (chainer.functions.broadcast_to(gy, self._gradient.shape) * self._gradient,)


def closed_form_loss(
    x: chainer.Variable | Array,
    t: Array,
    function: Callable,
    normalize: str,
    weight: Array | None = None,
    background: bool = False,
) -> chainer.Variable:
    """Compute a loss as a sum of terms, divided by a count.

    Args:
        x (variable or array): Logits :math:`(R, C)`, or :math:`(R, C + 1)` with ``background``.
        t (int8 array): Target matrix :math:`(R, C)`.
        function (callable): ``function(x, t, weight)`` takes some of the rows and returns the sum
            of their terms and its gradient. ``weight`` is :obj:`None` or an array with the dtype
            of ``x`` and one entry per column of ``x``.
        normalize (str): Divisor of the sum, see :func:`divisor`.
        weight (array): Weights of the classes, :math:`(C,)`. The background has weight 1.
        background (bool): Whether ``x`` has a background column.

    Returns:
        chainer.Variable: A scalar with the dtype of ``x``.

    Raises:
        ValueError: A shape does not fit or ``normalize`` is unknown.
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


def row_blocks(xp: ModuleType, n: int) -> list[slice]:
    """Split ``n`` rows into slices of the number of rows computed at a time.

    Args:
        xp (module): NumPy or CuPy.
        n (int): Number of rows.

    Returns:
        list of slice: Consecutive slices.
    """
    block = _BLOCK if xp is np else _GPU_BLOCK
    return [slice(k, k + block) for k in range(0, n, block)]


def divisor(t: Array, normalize: str, terms_are_elements: bool = True) -> float | Array:
    """Compute the divisor of a sum of terms, at least 1.

    Neither paper gives it. Detectron and ChainerCV use ``'roi'`` with softmax. Only ``'roi'`` is
    the same on all ranks, so that the mean over ranks is the loss of all images together.

    Args:
        t (int8 array): Target matrix :math:`(R, C)`.
        normalize (str): One of

            - ``'roi'``: the number of rows.
            - ``'used'``: the number of rows with an entry that is not ignored, as in
              :func:`chainer.functions.softmax_cross_entropy`.
            - ``'positive'``: the number of rows with a positive (Lin et al., Focal Loss,
              section 4.1).
            - ``'element'``: the number of entries that are not ignored, as in
              :func:`chainer.functions.sigmoid_cross_entropy`.
        terms_are_elements (bool): Whether the loss has one term per entry, which ``'element'``
            requires.

    Returns:
        float or array: On the GPU, a float32 array of shape :math:`()` if the count depends on the
        entries of ``t``.

    Raises:
        ValueError: ``normalize`` is unknown.
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
    # A float would make the host wait for the GPU.
    return xp.maximum(count, 1).astype(np.float32)


def with_background(t: Array) -> Array:
    """Append the background to the target matrix as its last column.

    The background is positive in rows without a positive class and negative in all others. In a
    row whose classes are all ignored it competes with no class, so the softmax loss of the row
    is 0.

    Args:
        t (int8 array): Target matrix :math:`(R, C)`.

    Returns:
        int8 array: Target matrix :math:`(R, C + 1)`.
    """
    xp = cuda.get_array_module(t)
    R, C = t.shape
    y = xp.empty((R, C + 1), t.dtype)
    y[:, :C] = t
    y[:, C] = ~(t > 0).any(axis=1)
    return y
