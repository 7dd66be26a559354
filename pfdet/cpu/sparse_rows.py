"""Sparse weights, multiplied with dense matrices by SciPy's kernels alone.

``import scipy.sparse`` loads SciPy's linear algebra and much of NumPy that nothing else here asks
for: 10 MB and a tenth of a second, in every rank. Its kernels are a module that needs none of it.
"""

import functools
import importlib.machinery
import importlib.util
import os
from types import ModuleType
from typing import NamedTuple

import numpy as np


class SparseRows(NamedTuple):
    """A matrix whose rows have equally many entries, which may repeat a place and then add up.

    Attributes:
        weights (array): :math:`(R, K)`, float32 or float64.
        places (array): int32 or int64, :math:`(R, K)`. Columns of the entries.
        n_column (int): Columns of the matrix.
    """

    weights: np.ndarray
    places: np.ndarray
    n_column: int

    def product(self, dense: np.ndarray) -> np.ndarray:
        """The matrix times ``dense``: :math:`(R, V)` from :math:`(n\\_column, V)`."""
        return self._multiply('csr_matvecs', dense, (len(self.weights), self.n_column))

    def transposed_product(self, dense: np.ndarray) -> np.ndarray:
        """The transposed matrix times ``dense``: :math:`(n\\_column, V)` from :math:`(R, V)`."""
        return self._multiply('csc_matvecs', dense, (self.n_column, len(self.weights)))

    def _multiply(self, kernel: str, dense: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        if dense.shape[:1] != shape[1:]:
            raise ValueError(f'expected {shape[1]} rows, got an array of shape {dense.shape}')
        n_row, n_entry = self.weights.shape
        starts = np.arange(0, n_row * n_entry + 1, n_entry, dtype=self.places.dtype)
        y = np.zeros((shape[0], dense.shape[1]), self.weights.dtype)
        getattr(_kernels(), kernel)(
            *shape,
            dense.shape[1],
            starts,
            self.places.ravel(),
            self.weights.ravel(),
            np.ascontiguousarray(dense, y.dtype).ravel(),
            y.ravel(),
        )
        return y


@functools.cache
def _kernels() -> ModuleType:
    folder = os.path.join(importlib.util.find_spec('scipy').submodule_search_locations[0], 'sparse')
    spec = importlib.machinery.PathFinder.find_spec('_sparsetools', [folder])
    if spec is None:
        from scipy.sparse import _sparsetools

        return _sparsetools
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
