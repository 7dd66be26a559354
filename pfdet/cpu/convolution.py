"""Two-dimensional convolution on the CPU as matrix products on channels-last memory.

Chainer's CPU convolution gathers patches channel by channel (im2col). Here activations have the
shape ``(N, C, H, W)`` but the memory order ``(N, H, W, C)``. A patch then consists of a few
contiguous pieces, and a 1x1 convolution needs no patches. Element-wise functions keep the memory
order of their input, so the next convolution receives the same layout.

:func:`install` replaces the CPU methods of Chainer's convolution functions. The GPU methods stay.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from pfdet.compat.override import override

import numpy as np

from pfdet.cpu.threads import for_each, n_thread

# Larger patch matrices are computed in pieces, so that a piece stays in the cache.
PATCH_BYTES = 1 << 23
# Smallest piece for a thread.
_LEAST_BYTES = 1 << 19
# Groups are merged into blocks of up to this many input channels. Products of very thin matrices
# cost more than the multiplications by zero in a merged block.
BLOCK_CHANNELS = 32


def convolution(
    x: np.ndarray,
    W: np.ndarray,
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilate: tuple[int, int],
    groups: int,
    out_size: tuple[int, int],
) -> np.ndarray:
    """Compute a convolution without bias.

    Args:
        x (array): Input :math:`(N, C, H, W)` in any memory order.
        W (array): Filters :math:`(O, C / groups, k_h, k_w)`.
        stride, pad, dilate (pairs of int): Stride, padding and dilation by height and width.
        groups (int): Number of groups.
        out_size (pair of int): Height and width of the output.

    Returns:
        array: Output :math:`(N, O, H', W')`, channels last in memory.
    """
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    W = W.astype(x.dtype, copy=False)
    N, O = len(x), len(W)
    filters, n_block = _block_filters(W, groups)
    xp = _pad(x, pad, stride, dilate, W.shape[2:], out_size)
    y = np.empty((N, *out_size, O), x.dtype)
    width = O // n_block

    def multiply(piece: tuple[slice, slice]) -> None:
        n, rows = piece
        for b in range(n_block):
            patches = _patches(xp, n, rows, b, n_block, W.shape[2:], stride, dilate, out_size[1])
            out = y[n, rows, :, b * width : (b + 1) * width]
            if n_block == 1:
                np.matmul(patches, filters[b], out=out.reshape(len(patches), O))
            else:
                out[...] = (patches @ filters[b]).reshape(out.shape)

    for_each(multiply, _pieces(y.shape, filters.shape[1] * x.itemsize))
    return y.transpose(0, 3, 1, 2)


def filter_gradient(
    x: np.ndarray,
    gy: np.ndarray,
    W_shape: tuple[int, ...],
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilate: tuple[int, int],
    groups: int,
) -> np.ndarray:
    """Compute the gradient of :func:`convolution` with respect to its filters.

    Args:
        x (array): Input :math:`(N, C, H, W)`.
        gy (array): Gradient of the output, :math:`(N, O, H', W')`.
        W_shape (tuple of int): Shape of the filters.
        stride, pad, dilate, groups: As in :func:`convolution`.

    Returns:
        array: Gradient of shape ``W_shape``.
    """
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    gy = np.ascontiguousarray(gy.transpose(0, 2, 3, 1))
    O, _, kh, kw = W_shape
    n_block, depth = _block_shape(W_shape, groups)
    xp = _pad(x, pad, stride, dilate, (kh, kw), gy.shape[1:3])
    width = O // n_block
    pieces = list(_pieces(gy.shape, depth * x.itemsize))
    # One sum per thread over a fixed set of pieces, so that the result is deterministic.
    shares = [pieces[i :: n_thread()] for i in range(min(n_thread(), len(pieces)))]
    g = np.zeros((len(shares), n_block, depth, width), x.dtype)

    def accumulate(i: int) -> None:
        for n, rows in shares[i]:
            for b in range(n_block):
                patches = _patches(xp, n, rows, b, n_block, (kh, kw), stride, dilate, gy.shape[2])
                part = gy[n, rows, :, b * width : (b + 1) * width].reshape(len(patches), width)
                g[i, b] += patches.T @ part

    for_each(accumulate, range(len(shares)))
    return _unblock_filters(g[0] if len(g) == 1 else g.sum(axis=0), W_shape, groups)


def input_gradient(
    gy: np.ndarray,
    W: np.ndarray,
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilate: tuple[int, int],
    groups: int,
    in_size: tuple[int, int],
) -> np.ndarray:
    """Compute the gradient of :func:`convolution` with respect to its input.

    This is a transposed convolution.

    Args:
        gy (array): Gradient of the output, :math:`(N, O, H', W')`.
        W (array): Filters :math:`(O, C / groups, k_h, k_w)`.
        stride, pad, dilate, groups: As in :func:`convolution`.
        in_size (pair of int): Height and width of the input.

    Returns:
        array: Gradient :math:`(N, C, H, W)`, channels last in memory.
    """
    kh, kw = W.shape[2:]
    reach = (dilate[0] * (kh - 1), dilate[1] * (kw - 1))
    if stride == (1, 1) and pad[0] <= reach[0] and pad[1] <= reach[1]:
        # With stride 1 the transpose is a convolution with flipped filters.
        O, Cg = W.shape[:2]
        flipped = W.reshape(groups, O // groups, Cg, kh, kw).transpose(0, 2, 1, 3, 4)
        flipped = flipped.reshape(groups * Cg, O // groups, kh, kw)[:, :, ::-1, ::-1]
        back = (reach[0] - pad[0], reach[1] - pad[1])
        return convolution(gy, flipped, (1, 1), back, dilate, groups, in_size)

    gy = np.ascontiguousarray(gy.transpose(0, 2, 3, 1))
    filters, n_block = _block_filters(W.astype(gy.dtype, copy=False), groups)
    N, oh, ow, O = gy.shape
    width, C = O // n_block, W.shape[1] * groups
    Cb = C // n_block
    padded = (
        max(in_size[0] + pad[0], reach[0] + stride[0] * (oh - 1) + 1),
        max(in_size[1] + pad[1], reach[1] + stride[1] * (ow - 1) + 1),
    )
    gx = np.zeros((N, *padded, C), gy.dtype)

    def scatter(piece: tuple[slice, slice], b: int) -> None:
        n, rows = piece
        part = gy[n, rows, :, b * width : (b + 1) * width]
        g = part.reshape(-1, width) @ filters[b].T
        g = g.reshape(*part.shape[:3], kh, kw, Cb)
        for i in range(kh):
            top = i * dilate[0] + rows.start * stride[0]
            bottom = top + stride[0] * (part.shape[1] - 1) + 1
            for j in range(kw):
                left = j * dilate[1]
                right = left + stride[1] * (ow - 1) + 1
                gx[
                    n, top : bottom : stride[0], left : right : stride[1], b * Cb : (b + 1) * Cb
                ] += g[:, :, :, i, j]

    def scatter_image(i: int) -> None:
        # Pieces of an image overlap in the gradient, so one thread computes all of them.
        for _, rows in _pieces((1, *gy.shape[1:]), filters.shape[1] * gy.itemsize):
            for b in range(n_block):
                scatter((slice(i, i + 1), rows), b)

    for_each(scatter_image, range(N))
    gx = gx[:, pad[0] : pad[0] + in_size[0], pad[1] : pad[1] + in_size[1]]
    return np.ascontiguousarray(gx).transpose(0, 3, 1, 2)


def _pad(
    x: np.ndarray,
    pad: tuple[int, int],
    stride: tuple[int, int],
    dilate: tuple[int, int],
    ksize: tuple[int, int],
    out_size: tuple[int, int],
) -> np.ndarray:
    """Zero-pad ``(N, H, W, C)`` to the area covered by the patches of the output."""
    need = [
        d * (k - 1) + s * (o - 1) + 1
        for d, k, s, o in zip(dilate, ksize, stride, out_size, strict=True)
    ]
    H, W = x.shape[1:3]
    if pad == (0, 0) and need[0] <= H and need[1] <= W:
        return x
    xp = np.zeros((len(x), max(need[0], H + pad[0]), max(need[1], W + pad[1]), x.shape[3]), x.dtype)
    xp[:, pad[0] : pad[0] + H, pad[1] : pad[1] + W] = x
    return xp


def _pieces(shape: tuple[int, ...], patch_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Split ``(N, H, W, _)`` into slices of images, or of rows of an image, of bounded size.

    ``patch_bytes`` is the size of one patch.
    """
    N, H, W = shape[:3]
    image_bytes = max(1, H * W * patch_bytes)
    limit = min(PATCH_BYTES, max(-(-N * image_bytes // n_thread()), _LEAST_BYTES))
    if image_bytes <= limit:
        n = limit // image_bytes
        for i in range(0, N, n):
            yield slice(i, min(i + n, N)), slice(0, H)
        return
    r = max(1, limit // (W * patch_bytes))
    for i in range(N):
        for j in range(0, H, r):
            yield slice(i, i + 1), slice(j, min(j + r, H))


def _patches(
    xp: np.ndarray,
    n: slice,
    rows: slice,
    block: int,
    n_block: int,
    ksize: tuple[int, int],
    stride: tuple[int, int],
    dilate: tuple[int, int],
    out_width: int,
) -> np.ndarray:
    """Make the patch matrix ``(positions, k_h * k_w * C_b)`` of a piece and a channel block."""
    Cb = xp.shape[3] // n_block
    x = xp[n, :, :, block * Cb : (block + 1) * Cb]
    h = rows.stop - rows.start
    top = rows.start * stride[0]
    if ksize == (1, 1):
        x = x[
            :,
            top : top + stride[0] * (h - 1) + 1 : stride[0],
            : stride[1] * (out_width - 1) + 1 : stride[1],
        ]
        return x.reshape(-1, Cb)
    sn, sh, sw, sc = x.strides
    x = x[:, top:]
    windows = np.lib.stride_tricks.as_strided(
        x,
        (len(x), h, out_width, *ksize, Cb),
        (sn, sh * stride[0], sw * stride[1], sh * dilate[0], sw * dilate[1], sc),
        writeable=False,
    )
    return windows.reshape(len(x) * h * out_width, -1)


def _block_shape(W_shape: tuple[int, ...], groups: int) -> tuple[int, int]:
    """Number of blocks after merging groups, and number of rows of a block's filter matrix."""
    _, Cg, kh, kw = W_shape
    merged = max(
        q for q in range(1, groups + 1) if groups % q == 0 and (q == 1 or q * Cg <= BLOCK_CHANNELS)
    )
    return groups // merged, kh * kw * Cg * merged


def _block_filters(W: np.ndarray, groups: int) -> tuple[np.ndarray, int]:
    """Reshape filters to matrices ``(blocks, k_h * k_w * C_b, O_b)``.

    The matrix of a block is block-diagonal in its groups. The number of blocks is returned too.
    """
    O, Cg, kh, kw = W.shape
    n_block, depth = _block_shape(W.shape, groups)
    q = groups // n_block
    W = W.reshape(n_block, q, O // groups, Cg, kh, kw).transpose(0, 4, 5, 1, 3, 2)
    if q == 1:
        return np.ascontiguousarray(W).reshape(n_block, depth, O // n_block), n_block
    merged = np.zeros((n_block, kh, kw, q, Cg, q, O // groups), W.dtype)
    for i in range(q):
        merged[:, :, :, i, :, i] = W[:, :, :, i]
    return merged.reshape(n_block, depth, O // n_block), n_block


def _unblock_filters(g: np.ndarray, W_shape: tuple[int, ...], groups: int) -> np.ndarray:
    """Reshape matrices to filters, the inverse of :func:`_block_filters`.

    Entries outside the block diagonal are dropped.
    """
    O, Cg, kh, kw = W_shape
    n_block = len(g)
    q = groups // n_block
    g = g.reshape(n_block, kh, kw, q, Cg, q, O // groups)
    W = np.stack([g[:, :, :, i, :, i] for i in range(q)], axis=1)
    return np.ascontiguousarray(W.transpose(0, 1, 5, 4, 2, 3)).reshape(W_shape)


@functools.lru_cache(maxsize=1)
def install() -> None:
    """Make Chainer's convolution functions use this module for NumPy arrays.

    It supports float32 and float64. float16 uses Chainer's version. Repeated calls have no effect.
    """
    from chainer.functions.connection import convolution_2d, deconvolution_2d

    Convolution = convolution_2d.Convolution2DFunction
    GradW = convolution_2d.Convolution2DGradW
    Deconvolution = deconvolution_2d.Deconvolution2DFunction

    def supported(*arrays: np.ndarray) -> bool:
        return all(type(a) is np.ndarray and a.dtype in (np.float32, np.float64) for a in arrays)

    def wrap(cls: Any, forward: Callable) -> None:
        def forward_cpu(self, inputs):
            if not supported(*inputs) or any(layout is not None for layout in self.input_layouts):
                return None
            self.retain_inputs((0, 1))
            return forward(self, inputs)

        override(cls, 'forward_cpu', forward_cpu)

    def convolution_forward(self, inputs):
        x, W = inputs[:2]
        y = convolution(
            x,
            W,
            (self.sy, self.sx),
            (self.ph, self.pw),
            (self.dy, self.dx),
            self.groups,
            self._get_out_size(x.shape, W.shape),
        )
        if len(inputs) == 3:
            y += inputs[2][:, None, None]
        return (y,)

    def filter_forward(self, inputs):
        x, gy = inputs
        gW = filter_gradient(
            x,
            gy,
            self.W_shape,
            (self.sy, self.sx),
            (self.ph, self.pw),
            (self.dy, self.dx),
            self.groups,
        )
        return (gW.astype(self.W_dtype, copy=False),)

    def deconvolution_forward(self, inputs):
        x, W = inputs[:2]
        self._calc_out_size(x.shape, W.shape)
        y = input_gradient(
            x,
            W,
            (self.sy, self.sx),
            (self.ph, self.pw),
            (self.dy, self.dx),
            self.groups,
            (self.outh, self.outw),
        )
        if len(inputs) == 3:
            y += inputs[2][:, None, None]
        return (y,)

    wrap(Convolution, convolution_forward)
    wrap(GradW, filter_forward)
    wrap(Deconvolution, deconvolution_forward)
