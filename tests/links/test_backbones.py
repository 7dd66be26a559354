import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import pytest
from chainercv.links.model.resnet import ResNet50 as ChainerCVResNet50
from chainercv.links.model.senet import SEResNeXt50 as ChainerCVSEResNeXt50

from pfdet.errors import InputError
from pfdet.links.backbone import CHAINERCV, Conventions
from pfdet.links.backbone_file import (
    arrays_of,
    is_backbone_file,
    load_backbone,
    write_backbone,
)
from pfdet.links.backbones import BACKBONES, backbone_name
from pfdet.links.se_resnext import MiniSEResNeXt

# Parameters of the public networks with 1000 classes.
N_PARAMETER = {
    'resnet50': 25_557_032,
    'resnet101': 44_549_160,
    'resnext101': 44_177_704,
    'se_resnext50': 27_559_896,
    'se_resnext101': 48_955_416,
    'senet154': 115_088_984,
    'efficientnet_b7': 66_347_960,
}
FAST = {'initialW': chainer.initializers.Zero()}


@pytest.mark.parametrize('name', BACKBONES)
def test_feature_maps_and_parameters(name):
    network = BACKBONES[name](n_class=1000, **FAST)
    if name in N_PARAMETER:
        assert network.count_params() == N_PARAMETER[name]
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        hs = network(np.zeros((1, 3, 32, 64), np.float32))
    assert [h.shape for h in hs] == [
        (1, c, 8 // 2**i, 16 // 2**i) for i, c in enumerate(network.out_channels)
    ]
    # Every batch normalization is one that use_multi_node_batch_normalization replaces.
    norms = [link for link in network.links() if hasattr(link, 'avg_var')]
    assert norms and {type(link) for link in norms} == {chainer.links.BatchNormalization}
    assert network.mean.shape == network.std.shape == (3, 1, 1)
    assert network.mean.dtype == network.std.dtype == np.float32


@pytest.mark.parametrize('name', ['resnet50', 'se_resnext50', 'efficientnet_b7'])
def test_no_classifier_by_default(name):
    keys = arrays_of(BACKBONES[name](**FAST)).keys()
    classifier = arrays_of(BACKBONES[name](n_class=7, **FAST)).keys() - keys
    assert {key.split('/')[0] for key in classifier} <= {'conv6', 'fc6'} and 'fc6/W' in classifier


def test_names():
    assert backbone_name('se_resnext101_32x4d') == 'se_resnext101'
    assert backbone_name('resnext152_32x8d') == 'resnext152'
    with pytest.raises(InputError, match='vgg16.*resnet50'):
        backbone_name('vgg16')


def randomize_statistics(network, seed):
    rng = np.random.default_rng(seed)
    for link in network.links():
        if hasattr(link, 'avg_var'):
            link.avg_mean[...] = rng.normal(0, 0.1, link.avg_mean.shape)
            link.avg_var[...] = rng.uniform(0.5, 1.5, link.avg_var.shape)


@pytest.mark.parametrize(
    'name, theirs', [('resnet50', ChainerCVResNet50), ('se_resnext50', ChainerCVSEResNeXt50)]
)
def test_equals_chainercv_with_its_conventions(name, theirs):
    theirs = theirs()
    theirs.pick = ('res2', 'res3', 'res4', 'res5')
    theirs.remove_unused()
    x = np.random.default_rng(0).normal(0, 50, (1, 3, 64, 96)).astype(np.float32)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        theirs(x)
        randomize_statistics(theirs, 0)
        expected = theirs(x)
        ours = BACKBONES[name](**FAST)
        ours.use(CHAINERCV)
        ours.copyparams(theirs)
        for a, b in zip(ours(x), expected, strict=True):
            assert np.isfinite(b.array).all()
            np.testing.assert_allclose(a.array, b.array, rtol=1e-4, atol=1e-4 * abs(b.array).max())


def test_conventions_are_saved_with_the_weights(tmp_path):
    first = BACKBONES['resnet50'](**FAST)
    conventions = Conventions((1.5, 2.5, 3.5), (4, 5, 6), 'BGR', 1e-5, 0)
    first.use(conventions)
    detector = chainer.Chain()
    with detector.init_scope():
        detector.base = first
    path = str(tmp_path / 'model.npz')
    chainer.serializers.save_npz(path, detector, compression=False)
    detector.base = second = BACKBONES['resnet50'](**FAST)
    second.use(CHAINERCV)
    chainer.serializers.load_npz(path, detector)
    assert second.conventions == conventions
    assert second.channel_order == 'BGR' and second.std[2, 0, 0] == 6
    assert {link.eps for link in second.links() if hasattr(link, 'eps')} == {1e-5}
    assert second.pool1.keywords['cover_all']


def test_conventions_change_the_output():
    network = BACKBONES['resnet50'](initialW=chainer.initializers.Normal(0.1))
    x = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)

    def c2():
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            return network(x)[0].array

    network.use(Conventions((0, 0, 0), bn_eps=1e-5, pool_pad=1))
    reference = c2()
    for other in {'bn_eps': 1e-2, 'pool_pad': 1}, {'bn_eps': 1e-5, 'pool_pad': 0}:
        network.use(Conventions((0, 0, 0), **other))
        assert abs(c2() - reference).max() > 1e-3 * abs(reference).max()


def test_weights_saved_without_conventions_load(tmp_path):
    first, second = MiniSEResNeXt(), MiniSEResNeXt()
    arrays = {key: a for key, a in arrays_of(first).items() if '/' in key}
    np.savez(tmp_path / 'old.npz', **arrays)
    chainer.serializers.load_npz(str(tmp_path / 'old.npz'), second)
    assert second.conventions == first.conventions
    np.testing.assert_array_equal(second.conv1.conv.W.array, first.conv1.conv.W.array)


def test_attributes_of_preprocessing_can_be_set():
    network = MiniSEResNeXt(width=8)
    network.mean, network.std, network.channel_order = [1, 2, 3], np.full((3, 1, 1), 7), 'BGR'
    assert network.conventions == Conventions((1, 2, 3), (7, 7, 7), 'BGR', 2e-5, None)
    with pytest.raises(ValueError, match='GRB'):
        network.channel_order = 'GRB'


def test_backbone_file(tmp_path):
    first = MiniSEResNeXt(n_class=5)
    first.mean = [1, 2, 3]
    path = tmp_path / 'a.npz'
    write_backbone(path, arrays_of(first), ['res2/a/conv1/conv/W'])
    assert is_backbone_file(path)
    second = MiniSEResNeXt()
    kept = second.res2.a.conv1.conv.W.array.copy()
    load_backbone(second, path)
    assert second.conventions.mean == (1, 2, 3)
    np.testing.assert_array_equal(second.res5.a.se.up.W.array, first.res5.a.se.up.W.array)
    np.testing.assert_array_equal(second.res2.a.conv1.conv.W.array, kept)

    with pytest.raises(InputError, match=r'a\.npz: weights of another network: .* missing.*shape'):
        load_backbone(BACKBONES['resnet50'](**FAST), path)
    with pytest.raises(InputError, match='of another shape'):
        load_backbone(MiniSEResNeXt(width=16), path)


def test_other_files_are_not_backbone_files(tmp_path):
    detector = tmp_path / 'model.npz'
    np.savez(detector, **{'extractor/base/conv1/conv/W': np.zeros(1)})
    assert not is_backbone_file(detector)
    with pytest.raises(InputError, match='pfdet.links.convert'):
        load_backbone(MiniSEResNeXt(), detector)
    (tmp_path / 'broken.npz').write_bytes(b'PK\3\4broken')
    for read in is_backbone_file, lambda path: load_backbone(MiniSEResNeXt(), path):
        with pytest.raises(InputError, match='broken.npz'):
            read(tmp_path / 'broken.npz')
        with pytest.raises(InputError, match='absent.npz: No such file'):
            read(tmp_path / 'absent.npz')
