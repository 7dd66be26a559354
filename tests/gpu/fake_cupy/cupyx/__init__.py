"""Fake ``cupyx``, see fake CuPy."""

import numpy as np
from cupy.array import unwrap, wrap

from cupyx import scipy  # noqa: F401


def scatter_add(a, slices, value):
    """Add at indices that may repeat."""
    a.scatter_add(slices, value)


def rsqrt(x, dtype=None):
    """Reciprocal of the square root."""
    return wrap((1 / np.sqrt(unwrap(x))).astype(dtype or x.dtype))
