import pfdet.compat  # noqa: F401

import numpy as np
import pytest
import scipy.sparse as sp

from pfdet.cpu.sparse_rows import SparseRows


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('index', ['int32', 'int64'])
@pytest.mark.parametrize('shape', [(30, 4, 20), (0, 4, 20), (5, 1, 1)])
def test_products_equal_scipys_and_dense_products(dtype, index, shape):
    n_row, n_entry, n_column = shape
    rng = np.random.default_rng(0)
    weights = rng.random((n_row, n_entry)).astype(dtype)
    columns = rng.integers(0, n_column, (n_row, n_entry)).astype(index)
    rows = SparseRows(weights, columns, n_column)
    matrix = sp.csr_matrix(
        (weights.ravel(), (np.repeat(np.arange(n_row), n_entry), columns.ravel())),
        (n_row, n_column),
    )
    x, gy = (rng.random((n, 7)).astype(dtype) for n in (n_column, n_row))
    for y, expected in (
        (rows.product(x), matrix @ x),
        (rows.transposed_product(gy), matrix.T @ gy),
        (rows.product(x[:, ::2]), matrix.toarray() @ x[:, ::2]),
    ):
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_a_matrix_of_another_height_is_an_error():
    rows = SparseRows(np.ones((3, 2)), np.zeros((3, 2), int), 5)
    with pytest.raises(ValueError, match='expected 5 rows'):
        rows.product(np.ones((4, 2)))
