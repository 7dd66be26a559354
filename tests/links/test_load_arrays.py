"""Loading of weights: the same as Chainer's for good files, and a message for bad ones."""

import pfdet.compat  # noqa: F401

import chainer
import chainer.links as L
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.files.npz import open_npz
from pfdet.links.backbones import BACKBONES
from pfdet.links.load_arrays import load_arrays


class Network(chainer.Chain):
    def __init__(self, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        with self.init_scope():
            self.fc = L.Linear(3, 4)
            self.bn = L.BatchNormalization(4)
        for param in self.params():
            param.array[...] = rng.normal(size=param.shape)
        self.bn.avg_mean[...] = rng.normal(size=4)
        self.bn.avg_var[...] = rng.uniform(1, 2, 4)


def arrays_of(link):
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(link)
    return {key: np.array(value) for key, value in serializer.target.items()}


def assert_same(link, other):
    expected = arrays_of(other)
    for key, array in arrays_of(link).items():
        np.testing.assert_array_equal(array, expected[key], err_msg=key)


def test_equals_chainer(tmp_path):
    theirs, ours = Network(1), Network(2)
    path = tmp_path / 'a.npz'
    chainer.serializers.save_npz(str(path), Network(3))
    chainer.serializers.load_npz(str(path), theirs)
    with open_npz(path) as arrays:
        load_arrays(ours, arrays, path, 'weights')
    assert_same(ours, theirs)
    assert_same(ours, Network(3))
    # From arrays in memory, of other dtypes and orders, with further keys.
    arrays = {key: np.asfortranarray(a.astype('>f8')) for key, a in arrays_of(Network(4)).items()}
    arrays['bn/N'] = np.array(0)
    load_arrays(ours, {**arrays, 'more': np.zeros(3)}, path, 'weights')
    assert_same(ours, Network(4))
    assert ours.fc.W.array.dtype == np.float32 and ours.fc.W.array.flags.c_contiguous


def test_conventions_of_a_backbone():
    theirs = BACKBONES['mini_se_resnext'](n_class=2)
    arrays = arrays_of(theirs)
    arrays['mean'], arrays['std'] = np.array([1.0, 2, 3]), np.array([4.0, 5, 6])
    arrays['bgr'] = np.array(True)
    ours = BACKBONES['mini_se_resnext'](n_class=2)
    load_arrays(ours, arrays, 'a.npz', 'weights')
    assert ours.conventions.mean == (1, 2, 3) and ours.channel_order == 'BGR'
    kept = {key: a for key, a in arrays.items() if key != 'std'}
    other = BACKBONES['mini_se_resnext'](n_class=2)
    load_arrays(other, kept, 'a.npz', 'weights')
    assert other.conventions == theirs.conventions


def changed(key, value, at=None):
    def change(arrays):
        if value is None:
            del arrays[key]
        elif at is None:
            arrays[key] = np.array(value)
        else:
            arrays[key] = arrays[key].copy()
            arrays[key][at] = value

    return change


@pytest.mark.parametrize(
    'change, message',
    [
        (changed('fc/W', None), r'not weights: lacks fc/W'),
        (changed('bn/avg_var', None), r'not weights: lacks bn/avg_var'),
        (changed('fc/W', np.zeros((4, 4))), r'fc/W has shape \(4, 4\); expected \(4, 3\)'),
        # Chainer would broadcast these.
        (changed('fc/W', np.zeros((1, 3), np.float32)), r'fc/W has shape \(1, 3\); expected'),
        (changed('fc/b', np.float32(1)), r'fc/b has shape \(\); expected \(4,\)'),
        (changed('bn/gamma', np.ones(1, np.float32)), r'bn/gamma has shape \(1,\)'),
        (changed('fc/b', ['a'] * 4), r'fc/b has dtype <U1; expected float32'),
        (changed('bn/N', 1.5), r'bn/N: TypeError: Cannot safely .*; expected a number'),
        (changed('bn/N', [1, 2]), r'bn/N: TypeError: '),
        (changed('bn/N', 'one'), r'bn/N: invalid literal'),
        (changed('fc/W', np.nan, (1, 2)), r'parameter fc/W has nan among its 12 values'),
        (changed('fc/b', -np.inf, 3), r'parameter fc/b has -inf among its 4 values'),
        (changed('bn/avg_mean', np.inf, 0), r'parameter bn/avg_mean has inf'),
        (changed('bn/avg_var', np.nan, 0), r'parameter bn/avg_var has nan'),
        (changed('bn/avg_var', -0.5, 2), r'bn/avg_var has -0.5 .*; expected variances from 0'),
        # Beyond the range of float32.
        (changed('fc/b', [1e300, 0, 0, 0]), r'parameter fc/b has inf'),
    ],
)
def test_bad_arrays(tmp_path, change, message):
    arrays = arrays_of(Network(1))
    change(arrays)
    path = tmp_path / 'a.npz'
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as e:
        load_arrays(Network(), arrays, path, 'weights')
    assert str(e.value).startswith(f'{path}: ') and '\n' not in str(e.value)
    with pytest.raises(InputError, match=message), open_npz(path) as archive:
        load_arrays(Network(), archive, path, 'weights')


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('mean', [np.nan, 0, 0], 'mean has nan'),
        ('std', [1, 0, 1], 'std has 0.0 .* above 0'),
        ('std', [1, 1, np.inf], 'std has inf'),
        ('bn_eps', -1e-5, 'bn_eps has -1e-05'),
    ],
)
def test_bad_conventions(key, value, message):
    backbone = BACKBONES['mini_se_resnext'](n_class=2)
    arrays = {**arrays_of(backbone), key: np.array(value, np.float64)}
    with pytest.raises(InputError, match=message):
        load_arrays(backbone, arrays, 'a.npz', 'weights')


def test_zero_variance_is_accepted():
    """A channel that is always 0 has variance 0."""
    arrays = arrays_of(Network(1))
    arrays['bn/avg_var'] = np.zeros(4, np.float32)
    network = Network()
    load_arrays(network, arrays, 'a.npz', 'weights')
    assert (network.bn.avg_var == 0).all()


def test_data_of_another_shape_are_not_read(tmp_path):
    class Archive(dict):
        def header(self, name):
            return dict.__getitem__(self, name)

        def __getitem__(self, name):
            assert name != 'fc/W'
            return dict.__getitem__(self, name)

    arrays = Archive(arrays_of(Network(1)))
    arrays['fc/W'] = np.zeros((1000, 1000))
    with pytest.raises(InputError, match='fc/W has shape'):
        load_arrays(Network(), arrays, 'a.npz', 'weights')
