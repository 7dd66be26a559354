"""The operations of the stand-in, by loops over the positions of a filter."""

import ctypes
import itertools

import numpy as np


def view(pointer, dim, stride, dtype):
    """View memory as an array of the given dimensions and strides in elements."""
    item = np.dtype(dtype).itemsize
    span = 1 + sum((n - 1) * s for n, s in zip(dim, stride, strict=True))
    memory = (ctypes.c_char * (span * item)).from_address(pointer)
    flat = np.frombuffer(memory, dtype)
    return np.lib.stride_tricks.as_strided(flat, dim, [s * item for s in stride])


def _windows(padded, out_size, k_size, stride, dilate):
    """Yield each position of the filter and the part of the padded input under it."""
    for i, j in itertools.product(*map(range, k_size)):
        rows, cols = (
            slice(d * k, d * k + s * (n - 1) + 1, s)
            for d, k, s, n in zip(dilate, (i, j), stride, out_size, strict=True)
        )
        yield i, j, padded[:, :, rows, cols]


def _padded(x_shape, pad, dtype=np.float32):
    n, c, *size = x_shape
    return np.zeros((n, c, *(s + 2 * p for s, p in zip(size, pad, strict=True))), dtype)


def _inside(padded, pad, size):
    return padded[:, :, pad[0] : pad[0] + size[0], pad[1] : pad[1] + size[1]]


def _grouped(a, groups):
    """Split the second axis into groups and channels."""
    return a.reshape(a.shape[0], groups, -1, *a.shape[2:])


def _filters(W, groups):
    return W.astype(np.float32).reshape(groups, -1, *W.shape[1:])


def convolution(inputs, outputs, geometry):
    """Convolution without bias."""
    (x, W), (y,) = inputs, outputs
    groups = x.shape[1] // W.shape[1]
    padded = _padded(x.shape, geometry['pad'])
    _inside(padded, geometry['pad'], x.shape[2:])[...] = x
    filters = _filters(W, groups)
    result = np.zeros((len(x), groups, filters.shape[1], *y.shape[2:]), np.float32)
    for i, j, part in _windows(
        padded, y.shape[2:], W.shape[2:], geometry['stride'], geometry['dilate']
    ):
        result += np.einsum('ngchw,goc->ngohw', _grouped(part, groups), filters[..., i, j])
    return [result.reshape(y.shape)]


def input_gradient(inputs, outputs, geometry):
    """Gradient of a convolution with respect to its input."""
    (gy, W), (gx,) = inputs, outputs
    groups = gx.shape[1] // W.shape[1]
    padded = _padded(gx.shape, geometry['pad'])
    filters, gradient = _filters(W, groups), _grouped(gy.astype(np.float32), groups)
    for i, j, part in _windows(
        padded, gy.shape[2:], W.shape[2:], geometry['stride'], geometry['dilate']
    ):
        part += np.einsum('ngohw,goc->ngchw', gradient, filters[..., i, j]).reshape(part.shape)
    return [_inside(padded, geometry['pad'], gx.shape[2:])]


def filter_gradient(inputs, outputs, geometry):
    """Gradient of a convolution with respect to its filters."""
    (x, gy), (gW,) = inputs, outputs
    groups = x.shape[1] // gW.shape[1]
    padded = _padded(x.shape, geometry['pad'])
    _inside(padded, geometry['pad'], x.shape[2:])[...] = x
    gradient = _grouped(gy.astype(np.float32), groups)
    result = np.zeros((groups, gW.shape[0] // groups, *gW.shape[1:]), np.float32)
    for i, j, part in _windows(
        padded, gy.shape[2:], gW.shape[2:], geometry['stride'], geometry['dilate']
    ):
        result[..., i, j] = np.einsum('ngohw,ngchw->goc', gradient, _grouped(part, groups))
    return [result.reshape(gW.shape)]


def batch_normalization(inputs, outputs, geometry):
    """Batch normalization with the statistics of the batch, and running averages."""
    x, gamma, beta, running_mean, running_var, epsilon, momentum = (
        a.astype(np.float64) for a in inputs
    )
    axes = (0, 2, 3)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    inv_std = 1 / np.sqrt(var + epsilon)
    n = x.size // x.shape[1]
    return [
        (x - mean) * inv_std * gamma + beta,
        mean,
        inv_std,
        (1 - momentum) * running_mean + momentum * mean,
        (1 - momentum) * running_var + momentum * var * n / max(n - 1, 1),
    ]


def batch_normalization_gradient(inputs, outputs, geometry):
    """Gradients of batch normalization."""
    gy, x, gamma, mean, inv_std = (a.astype(np.float64) for a in inputs)
    axes = (0, 2, 3)
    x_hat = (x - mean) * inv_std
    gbeta, ggamma = gy.sum(axes, keepdims=True), (gy * x_hat).sum(axes, keepdims=True)
    n = x.size // x.shape[1]
    return [gamma * inv_std * (gy - (gbeta + x_hat * ggamma) / n), ggamma, gbeta]


KINDS = {
    'conv_fprop': convolution,
    'conv_dgrad': input_gradient,
    'conv_wgrad': filter_gradient,
    'batchnorm': batch_normalization,
    'batchnorm_backward': batch_normalization_gradient,
}
