"""Arrays that may be NumPy's or CuPy's."""

from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

#: A :class:`numpy.ndarray` or, on a GPU, a :class:`cupy.ndarray`.
Array: TypeAlias = Any


def array_module(array: Array) -> ModuleType:
    """Return :mod:`numpy` or :mod:`cupy`, whichever the array belongs to.

    Chainer is imported only for arrays other than NumPy's, because the metric must run without it.

    Args:
        array (array): A NumPy or CuPy array.

    Returns:
        module: The array module.
    """
    if type(array) is np.ndarray:
        return np
    from chainer.backends import cuda

    return cuda.get_array_module(array)
