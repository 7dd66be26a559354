"""Batch normalization in training on the GPU by cuDNN 9, on one rank.

:func:`install` replaces the GPU version of Chainer's batch normalization. Statistics over several
ranks are ChainerMN's, whose all-reduce is between the two halves of the function. Batch
normalization with stored statistics is a map of single numbers, for which cuDNN 9 has no engine; it
stays Chainer's.
"""

import functools
from typing import Any

from pfdet.compat.override import override

import chainer
import numpy as np
from chainer.backends import cuda
from chainer.backends.cuda import cupy

from pfdet.gpu import plans
from pfdet.gpu.graphs import Operation, contiguous_layout, statistics_layout
from pfdet.gpu.layout import Array, arrange, empty
from pfdet.gpu.precision import uses_tensor_cores


def normalize(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array] | None:
    """Normalize activations by their own mean and variance.

    Args:
        x (array): Activations :math:`(N, C, H, W)`, float16 or float32.
        gamma, beta (arrays): Scale and shift :math:`(C,)`, float32.
        eps (float): Added to the variance.

    Returns:
        tuple of arrays: Normalized activations with the dtype of ``x``, channels last; mean
        :math:`(C,)`; and ``1 / sqrt(variance + eps)``. :obj:`None` if cuDNN declines.
    """
    C = x.shape[1]
    x = arrange(x, True)
    layout, channel = contiguous_layout(x.shape, True, x.dtype), statistics_layout(C)
    # The running averages of cuDNN are not used, but its graph requires them.
    inputs = [x, *map(_values, (gamma, beta, cupy.zeros(C, 'f'), cupy.ones(C, 'f')))]
    outputs = [empty(layout), *(cupy.empty(C, 'f') for _ in range(4))]
    operation = Operation(
        'batch_normalization',
        (layout, *[channel] * 4),
        (layout, *[channel] * 4),
        scalars=(float(eps), 0.0),
        deterministic=bool(chainer.config.cudnn_deterministic),
    )
    if not plans.run(operation, inputs, outputs):
        return None
    y, mean, inv_std = outputs[:3]
    return y, mean, inv_std


def gradients(
    x: Array, gy: Array, gamma: Array, mean: Array, inv_std: Array
) -> tuple[Array, Array, Array] | None:
    """Compute the gradients of :func:`normalize`.

    Args:
        x, gy (arrays): Input and gradient of the output, :math:`(N, C, H, W)`.
        gamma, mean, inv_std (arrays): Values per channel, :math:`(C,)`.

    Returns:
        tuple of arrays: Gradients of ``x``, gamma and beta; :obj:`None` if cuDNN declines.
    """
    C = x.shape[1]
    x, gy = arrange(x, True), arrange(gy, True)
    layout, channel = contiguous_layout(x.shape, True, x.dtype), statistics_layout(C)
    inputs = [gy, x, *map(_values, (gamma, mean, inv_std))]
    outputs = [empty(layout), cupy.empty(C, 'f'), cupy.empty(C, 'f')]
    operation = Operation(
        'batch_normalization_gradient',
        (layout, layout, *[channel] * 3),
        (layout, channel, channel),
        deterministic=bool(chainer.config.cudnn_deterministic),
    )
    if not plans.run(operation, inputs, outputs):
        return None
    gx, ggamma, gbeta = outputs
    return gx, ggamma, gbeta


def _values(a: Array) -> Array:
    """Values per channel as an aligned float32 array."""
    return arrange(a.astype(np.float32, copy=False).reshape(1, -1, 1, 1), False)


@functools.lru_cache(maxsize=1)
def install() -> None:
    """Make Chainer's batch normalization use cuDNN 9 for activations on tensor cores.

    It supports arrays :math:`(N, C, H, W)` normalized by channel on one rank, with gamma and beta
    in float32. Elsewhere activations are not channels last, which cuDNN's engines need. Other
    arrays, and operations that cuDNN declines, use Chainer's version. Repeated calls have no
    effect.
    """
    from chainer.functions.normalization import batch_normalization

    cls: Any = batch_normalization.GeneralBatchNormalizationImpl

    def supported(impl: Any, axis: tuple, x: Any, layout: Any, gamma: Any) -> bool:
        return (
            type(impl) is cls
            and isinstance(x, cupy.ndarray)
            and layout is None
            and x.ndim == 4
            and tuple(axis) == (0, 2, 3)
            and x.size > 0
            and uses_tensor_cores(x.dtype)
            and gamma.dtype == np.float32
        )

    def forward(
        self, axis, gamma, x, x_layout, xp, expander, beta, eps, decay, running_mean, running_var
    ):
        found = None
        if supported(self, axis, x, x_layout, gamma):
            found = normalize(x, gamma, beta, eps)
        if found is None:
            return None
        y, mean, inv_std = found
        var = 1 / (inv_std * inv_std) - np.float32(eps)
        if running_mean is not None:
            n = x.size // gamma.size
            _update_running(mean, var, decay, n / max(n - 1.0, 1.0), running_mean, running_var)
        return y, x_layout, running_mean, running_var, mean, var, inv_std, None

    def backward(
        self, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var, forward_data
    ):
        found = None
        if supported(self, axis, x, x_layout, gamma):
            found = gradients(x, gy, gamma, mean, inv_std)
        if found is None:
            return None
        gx, ggamma, gbeta = found
        return gx, None, ggamma, gbeta

    override(cls, 'forward', forward)
    override(cls, 'backward', backward)


def _update_running(
    mean: Array, var: Array, decay: float, adjust: float, running_mean: Array, running_var: Array
) -> None:
    """Update the running averages as Chainer does, with the unbiased variance."""
    cuda.elementwise(
        'T mean, T var, U decay, U adjust',
        'U r_mean, U r_var',
        'r_mean = r_mean * decay + mean * (1 - decay);'
        'r_var = r_var * decay + var * (1 - decay) * adjust;',
        'pfdet_update_running',
    )(mean, var, decay, adjust, running_mean, running_var)
