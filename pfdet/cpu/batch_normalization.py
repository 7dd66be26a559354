"""Batch normalization on the CPU on channels-last memory, on one or several ranks.

Chainer's CPU version makes about ten passes over an activation and sums statistics sequentially in
float32. This version makes fewer passes. It sums 64 positions in float32 and the partial sums in
float64. Partial sums never cross images, so up to float64 rounding the statistics do not depend on
the distribution of images over ranks.

:func:`install` replaces the CPU versions of Chainer's and ChainerMN's batch normalization. The GPU
versions stay.
"""

import functools
from typing import Any

from pfdet.compat.override import override

import numpy as np

from pfdet.cpu.threads import for_each, n_thread

# Positions summed in float32.
_SUM_SIZE = 64
# Smallest image that is split between threads.
_LEAST_BYTES = 1 << 19


def moments(x: np.ndarray, comm: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and variance of the channels.

    Args:
        x (array): Activations :math:`(N, P, C)` at :math:`P` positions, contiguous.
        comm (ChainerMN communicator): Ranks that share statistics. Each must have the same number
            of images and positions.

    Returns:
        tuple of float64 arrays: Mean and biased variance, :math:`(C,)`.
    """
    n = x.shape[0] * x.shape[1]
    mean, square = _mean_over_ranks(_sums(x, x) / n, comm)
    return mean, np.maximum(square - mean**2, 0)


def normalize(
    x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray, gamma: np.ndarray, beta: np.ndarray
) -> np.ndarray:
    """Compute ``gamma * (x - mean) * inv_std + beta``.

    Args:
        x (array): Activations :math:`(N, P, C)`, contiguous.
        mean, inv_std, gamma, beta (array): Values per channel, :math:`(C,)`.

    Returns:
        array: Normalized activations :math:`(N, P, C)` with the dtype of ``x``.
    """
    scale = gamma * inv_std
    shift = (beta - mean * scale).astype(x.dtype)
    y = np.empty_like(x)
    scale = scale.astype(x.dtype)

    def apply(piece: tuple[int, slice]) -> None:
        np.multiply(x[piece], scale, out=y[piece])
        y[piece] += shift

    for_each(apply, _pieces(x))
    return y


def gradients(
    x: np.ndarray,
    gy: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    gamma: np.ndarray,
    comm: Any = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the gradients of :func:`normalize` applied with the moments of ``x``.

    Args:
        x, gy (array): Input and gradient of the output, :math:`(N, P, C)`, contiguous.
        mean, inv_std, gamma (array): Values per channel, :math:`(C,)`.
        comm (ChainerMN communicator): As in :func:`moments`.

    Returns:
        tuple of arrays: Gradients of ``x``, :math:`(N, P, C)`, and of gamma and beta averaged over
        ranks, :math:`(C,)`.
    """
    both = _sums(gy, x)
    both[1] = (both[1] - mean * both[0]) * inv_std
    gbeta, ggamma = _mean_over_ranks(both, comm)
    n = x.shape[0] * x.shape[1]
    scale = gamma * inv_std
    from_x = -scale * inv_std * ggamma / n
    shift = -scale * gbeta / n - from_x * mean
    scale, from_x, shift = (a.astype(x.dtype) for a in (scale, from_x, shift))
    gx = np.empty_like(x)

    def apply(piece: tuple[int, slice]) -> None:
        np.multiply(gy[piece], scale, out=gx[piece])
        part = x[piece] * from_x
        part += shift
        gx[piece] += part

    for_each(apply, _pieces(x))
    return gx, ggamma, gbeta


def _sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sum ``x`` and ``x * y`` over images and positions, float64 :math:`(2, C)`."""
    pieces = _pieces(x)
    parts = np.empty((len(pieces), 2, x.shape[2]))

    def add(i: int) -> None:
        x_i, y_i = x[pieces[i]], y[pieces[i]]
        n = len(x_i) // _SUM_SIZE
        whole = x_i[: n * _SUM_SIZE].reshape(n, _SUM_SIZE, x.shape[2])
        parts[i, 0] = whole.sum(axis=1).sum(axis=0, dtype=np.float64) + x_i[n * _SUM_SIZE :].sum(
            axis=0
        )
        products = np.einsum('kpc,kpc->kc', whole, y_i[: n * _SUM_SIZE].reshape(whole.shape))
        parts[i, 1] = products.sum(axis=0, dtype=np.float64) + np.einsum(
            'pc,pc->c', x_i[n * _SUM_SIZE :], y_i[n * _SUM_SIZE :]
        )

    for_each(add, range(len(pieces)))
    return parts.sum(axis=0)


def _pieces(x: np.ndarray) -> list[tuple[int, slice]]:
    """Split into images and, if there are more threads than images, into parts of images."""
    N, P, C = x.shape
    n = P
    if N < n_thread() and P * C * x.itemsize > _LEAST_BYTES:
        n = -(-P // (-(-n_thread() // N) * _SUM_SIZE)) * _SUM_SIZE
    return [(i, slice(k, min(k + n, P))) for i in range(N) for k in range(0, P, n)]


def _mean_over_ranks(values: np.ndarray, comm: Any) -> np.ndarray:
    if comm is None or comm.size == 1:
        return values
    from mpi4py import MPI

    comm.mpi_comm.Allreduce(MPI.IN_PLACE, values, MPI.SUM)
    return values / comm.size


def _channels_last(x: np.ndarray) -> np.ndarray:
    """Reshape ``(N, C, H, W)`` to contiguous ``(N, P, C)``, and ``(N, C)`` to ``(1, N, C)``."""
    if x.ndim == 2:
        return np.ascontiguousarray(x)[None]
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return x.reshape(x.shape[0], -1, x.shape[3])


def _like(y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Reshape the result to ``shape``, the inverse of :func:`_channels_last`."""
    if len(shape) == 2:
        return y[0]
    N, C, H, W = shape
    return y.reshape(N, H, W, C).transpose(0, 3, 1, 2)


@functools.lru_cache(maxsize=1)
def install() -> None:
    """Make Chainer's and ChainerMN's batch normalization use this module for NumPy arrays.

    It supports float32 and float64 arrays ``(N, C, H, W)`` and ``(N, C)`` normalized by channel,
    and float16 arrays with parameters in float32, for which it computes in float32. Other arrays
    use Chainer's version. Repeated calls have no effect.
    """
    from chainer.functions.normalization import batch_normalization

    cls: Any = batch_normalization.GeneralBatchNormalizationImpl

    def supported(axis, activations: list[np.ndarray], parameters: list[np.ndarray]) -> bool:
        x, dtype = activations[0], parameters[0].dtype
        return (
            tuple(axis) == ((0,) if x.ndim == 2 else (0, 2, 3))
            and all(type(a) is np.ndarray for a in activations + parameters)
            and dtype in (np.float32, np.float64)
            and all(a.dtype == dtype for a in parameters)
            and (x.dtype == dtype or (x.dtype == np.float16 and dtype == np.float32))
            and all(a.dtype == x.dtype for a in activations)
            and x.size > 0
        )

    def forward(
        self, axis, gamma, x, x_layout, xp, expander, beta, eps, decay, running_mean, running_var
    ):
        if not supported(axis, [x], [gamma, beta]) or x_layout is not None:
            return None
        activations = _channels_last(x).astype(gamma.dtype, copy=False)
        comm = getattr(self, 'comm', None)
        mean, var = moments(activations, comm)
        inv_std = 1 / np.sqrt(var + eps)
        y = normalize(activations, mean, inv_std, gamma, beta).astype(x.dtype, copy=False)
        y = _like(y, x.shape)
        if running_mean is not None:
            n = activations.shape[0] * activations.shape[1] * getattr(comm, 'size', 1)
            running_mean *= decay
            running_mean += (1 - decay) * mean
            running_var *= decay
            running_var += (1 - decay) * n / max(n - 1, 1) * var
        return y, x_layout, running_mean, running_var, mean, var, inv_std, None

    def backward(
        self, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var, forward_data
    ):
        if not supported(axis, [x, gy], [gamma]) or x_layout is not None:
            return None
        activations, gradient = (_channels_last(a).astype(gamma.dtype, copy=False) for a in (x, gy))
        gx, ggamma, gbeta = gradients(
            activations, gradient, mean, inv_std, gamma, getattr(self, 'comm', None)
        )
        gx = gx.astype(x.dtype, copy=False)
        return (_like(gx, x.shape), None, ggamma.astype(gamma.dtype), gbeta.astype(gamma.dtype))

    override(cls, 'forward', forward)
    override(cls, 'backward', backward)
