import chainer
import numpy as np
import pytest
from chainer import gradient_check

from pfdet.links.psp import PyramidSpatialPooling, interpolation_matrix, pooling_matrix


@pytest.mark.parametrize('size, n_bin', [(6, 3), (7, 3), (2, 6), (1, 1), (25, 6)])
def test_pooling_averages_bins(size, n_bin):
    x = np.random.default_rng(0).normal(size=size)
    expected = [
        x[int(np.floor(i * size / n_bin)) : int(np.ceil((i + 1) * size / n_bin))].mean()
        for i in range(n_bin)
    ]
    np.testing.assert_allclose(pooling_matrix(size, n_bin) @ x, expected)


def test_interpolation_by_hand():
    # The centres of two bins on four positions are at 0.5 and 2.5.
    np.testing.assert_allclose(interpolation_matrix(2, 4) @ [1.0, 3.0], [1, 1.5, 2.5, 3])
    np.testing.assert_allclose(interpolation_matrix(1, 5) @ [7.0], 7)


@pytest.mark.parametrize('n_bin, size', [(3, 10), (6, 7), (6, 3), (1, 4)])
def test_interpolation_equals_numpy(n_bin, size):
    values = np.random.default_rng(0).normal(size=n_bin)
    coordinate = (np.arange(size) + 0.5) * n_bin / size - 0.5
    np.testing.assert_allclose(
        interpolation_matrix(n_bin, size) @ values, np.interp(coordinate, np.arange(n_bin), values)
    )


def test_output_is_the_map_followed_by_context():
    psp = PyramidSpatialPooling(8, (1, 2))
    x = np.random.default_rng(0).normal(size=(3, 8, 5, 7)).astype(np.float32)
    y = psp(x).array
    assert y.shape == (3, 16, 5, 7) and psp.out_channel == 16
    np.testing.assert_array_equal(y[:, :8], x)
    # A grid of one bin gives the convolved mean at all positions.
    expected = psp.convs[0](x.mean(axis=(2, 3), keepdims=True)).array
    np.testing.assert_allclose(y[:, 8:12], np.broadcast_to(expected, (3, 4, 5, 7)), atol=1e-5)


def test_gradient_equals_the_numerical_gradient():
    rng = np.random.default_rng(0)
    with chainer.using_config('dtype', np.float64):
        psp = PyramidSpatialPooling(4, (1, 2))
        for param in psp.params():
            param.array[...] = rng.normal(size=param.shape)
    x = rng.normal(size=(3, 4, 3, 5))
    gradient_check.check_backward(
        lambda x, *_: psp(x),
        x,
        rng.normal(size=(3, 8, 3, 5)),
        params=tuple(psp.params()),
        dtype=np.float64,
        atol=1e-4,
        rtol=1e-4,
    )
