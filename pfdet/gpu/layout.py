"""Memory order of activations on the GPU.

cuDNN's engines for tensor cores work on channels-last memory. With the order
:math:`(N, C, H, W)` they convert inputs and outputs at every call. CuPy's functions write their
results in the order of the axes, so an element-wise function on a channels-last array would convert
it back. Here such functions get views whose axes are in memory order.
"""

from collections.abc import Callable
from typing import Any

from chainer.backends.cuda import cupy

from pfdet.gpu.graphs import ALIGNMENT, Layout, contiguous_layout

# CuPy is optional, so its arrays have no type here.
Array = Any
_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def is_channels_last(x: Any) -> bool:
    """Whether an array :math:`(N, C, H, W)` is contiguous in the order :math:`(N, H, W, C)` only.

    Where both orders are the same memory, as with one channel, the answer is no.
    """
    return x.ndim == 4 and not x.flags.c_contiguous and x.transpose(_TO_LAST).flags.c_contiguous


def arrange(x: Array, channels_last: bool) -> Array:
    """Return the array in a memory order, aligned for cuDNN; a copy only if needed.

    Args:
        x (array): CuPy array :math:`(N, C, H, W)`.
        channels_last (bool): The order :math:`(N, H, W, C)`, or that of the axes.
    """
    view = x.transpose(_TO_LAST) if channels_last else x
    view = cupy.ascontiguousarray(view)
    if view.data.ptr % ALIGNMENT:
        view = view.copy()
    return view.transpose(_TO_FIRST) if channels_last else view


def empty(layout: Layout) -> Array:
    """Allocate an array of a contiguous layout."""
    N, C, H, W = layout.shape
    if layout == contiguous_layout(layout.shape, False, layout.dtype):
        return cupy.empty(layout.shape, layout.dtype)
    return cupy.empty((N, H, W, C), layout.dtype).transpose(_TO_FIRST)


def in_memory_order(function: Callable[..., Array], *arrays: Array) -> Array:
    """Call an element-wise function so that its result has the memory order of the first array.

    Args:
        function (callable): Takes and returns CuPy arrays.
        arrays (arrays): Arrays :math:`(N, C, H, W)`, or :math:`(1, C, 1, 1)`, the first of full
            shape.
    """
    if not is_channels_last(arrays[0]):
        return function(*arrays)
    return function(*(a.transpose(_TO_LAST) for a in arrays)).transpose(_TO_FIRST)
