"""Products of sparse and dense matrices with the kernels of SciPy.

``import scipy.sparse`` loads SciPy's linear algebra and parts of NumPy that pfdet does not need. It
takes 10 MB and a tenth of a second in every rank. Importing only the extension module with the
kernels avoids this.
"""

import functools
import importlib.machinery
import importlib.util
import os
from types import ModuleType
from typing import NamedTuple

import numpy as np


class SparseRows(NamedTuple):
    """A sparse matrix with the same number of entries in every row.

    Entries of a row in the same column add up.

    Attributes:
        weights (array): Values of the entries, float32 or float64, :math:`(R, K)`.
        columns (array): Columns of the entries, int32 or int64, :math:`(R, K)`.
        n_column (int): Number of columns of the matrix.
    """

    weights: np.ndarray
    columns: np.ndarray
    n_column: int

    def product(self, dense: np.ndarray) -> np.ndarray:
        """Multiply the matrix with a dense matrix.

        Args:
            dense (array): Matrix :math:`(n\\_column, V)`.

        Returns:
            array: Matrix :math:`(R, V)`.

        Raises:
            ValueError: ``dense`` has another number of rows.
        """
        return self._multiply('csr_matvecs', dense, (len(self.weights), self.n_column))

    def transposed_product(self, dense: np.ndarray) -> np.ndarray:
        """Multiply the transposed matrix with a dense matrix.

        Args:
            dense (array): Matrix :math:`(R, V)`.

        Returns:
            array: Matrix :math:`(n\\_column, V)`.

        Raises:
            ValueError: ``dense`` has another number of rows.
        """
        return self._multiply('csc_matvecs', dense, (self.n_column, len(self.weights)))

    def _multiply(self, kernel: str, dense: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        if dense.shape[:1] != shape[1:]:
            raise ValueError(f'expected {shape[1]} rows, got an array of shape {dense.shape}')
        n_row, n_entry = self.weights.shape
        starts = np.arange(0, n_row * n_entry + 1, n_entry, dtype=self.columns.dtype)
        y = np.zeros((shape[0], dense.shape[1]), self.weights.dtype)
        getattr(_kernels(), kernel)(
            *shape,
            dense.shape[1],
            starts,
            self.columns.ravel(),
            self.weights.ravel(),
            np.ascontiguousarray(dense, y.dtype).ravel(),
            y.ravel(),
        )
        return y


@functools.cache
def _kernels() -> ModuleType:
    scipy = importlib.util.find_spec('scipy')
    locations = (scipy and scipy.submodule_search_locations) or []
    folders = [os.path.join(location, 'sparse') for location in locations]
    spec = importlib.machinery.PathFinder.find_spec('_sparsetools', folders)
    if spec is None or spec.loader is None:
        from scipy.sparse import _sparsetools

        return _sparsetools
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
