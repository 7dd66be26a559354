"""Frozen batch normalization and stages against Chainer's batch normalization at test time."""

import types

import pfdet.compat  # noqa: F401

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.links.backbone import FEATURES
from pfdet.links.backbones import BACKBONES
from pfdet.links.efficientnet import EfficientNet
from pfdet.links.freezing import (
    FrozenBatchNormalization,
    freeze,
    freeze_batch_normalization,
    freeze_stages,
    frozen_links,
)
from pfdet.links.resnet import ResNet
from pfdet.links.se_resnext import MiniSEResNeXt
from pfdet.links.senet import SENet
from pfdet.training import build
from pfdet.training.communicators import create_communicator
from pfdet.training.optimizer import multi_node_optimizer
from pfdet.training.running_statistics import AverageRunningStatistics

SHALLOW = 1, 1, 1, 1
# The architectures of all backbones, with one block per stage.
ARCHITECTURES = {
    'resnet': lambda: ResNet(SHALLOW, 8),
    'resnext': lambda: ResNet(SHALLOW, 32, 8),
    'se_resnext': lambda: ResNet(SHALLOW, 32, 8, se=True),
    'senet': lambda: SENet(SHALLOW, 4, 16),
    'efficientnet': lambda: EfficientNet(0.5, 0.3),
    'mini': lambda: MiniSEResNeXt(width=8),
}
STEM = {
    'ResNet': {'conv1'},
    'SENet': {'conv1', 'conv2', 'conv3'},
    'EfficientNet': {'conv1'},
    'MiniSEResNeXt': {'conv1'},
}


def with_statistics(network, seed=0):
    """Give a network random running statistics, gammas and betas, as after training."""
    rng = np.random.default_rng(seed)
    for link in network.links():
        if hasattr(link, 'avg_var'):
            link.avg_mean[...] = rng.normal(0, 0.2, link.avg_mean.shape)
            link.avg_var[...] = rng.uniform(0.5, 1.5, link.avg_var.shape)
            link.gamma.array[...] = rng.uniform(0.5, 1.5, link.gamma.shape)
            link.beta.array[...] = rng.normal(0, 0.2, link.beta.shape)
    return network


def architecture(name):
    np.random.seed(0)
    with chainer.using_config('dtype', np.float64):
        return with_statistics(ARCHITECTURES[name]())


def arrays_of(link):
    """Copies of all parameters and persistent arrays by name."""
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(link)
    return {name: np.array(value) for name, value in serializer.target.items()}


def loss_of(hs):
    return sum(F.sum(F.cos(h) * h) for h in hs)


# The formula.


@pytest.mark.parametrize('shape', [(7, 5), (2, 5, 4, 3)])
@pytest.mark.parametrize('use_gamma', [True, False])
@pytest.mark.parametrize('use_beta', [True, False])
@pytest.mark.parametrize('train', [True, False])
def test_output_is_an_affine_map(shape, use_gamma, use_beta, train):
    rng = np.random.default_rng(0)
    chain = chainer.Chain()
    with chain.init_scope(), chainer.using_config('dtype', np.float64):
        chain.bn = L.BatchNormalization(5, eps=0.3, use_gamma=use_gamma, use_beta=use_beta)
    chain.bn.avg_mean[...], chain.bn.avg_var[...] = rng.normal(size=5), rng.uniform(1, 3, 5)
    for param in chain.bn.params():
        param.array[...] = rng.normal(size=5)
    before = arrays_of(chain)
    freeze_batch_normalization(chain)
    x, gy = rng.normal(size=(2, *shape))
    v = chainer.Variable(x)
    with chainer.using_config('train', train):
        y = chain.bn(v)
    y.grad = gy
    y.backward()
    for c in range(5):
        scale = 1 / np.sqrt(before['bn/avg_var'][c] + 0.3)
        if use_gamma:
            scale *= before['bn/gamma'][c]
        shift = before['bn/beta'][c] if use_beta else 0
        expected = (x[:, c] - before['bn/avg_mean'][c]) * scale + shift
        np.testing.assert_allclose(y.array[:, c], expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(v.grad[:, c], gy[:, c] * scale, rtol=1e-12)
    assert all(param.grad is None for param in chain.params())
    after = arrays_of(chain)
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_weights_are_exchanged_with_plain_batch_normalization():
    """Either loads what the other saved, so frozen runs need no files of their own."""
    plain, frozen = with_statistics(MiniSEResNeXt(width=8), 1), MiniSEResNeXt(width=8)
    freeze_batch_normalization(frozen)
    saved = arrays_of(plain)
    chainer.serializers.NpzDeserializer(saved).load(frozen)
    with chainer.using_config('train', False):
        x = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
        for a, b in zip(plain(x), frozen(x), strict=True):
            np.testing.assert_allclose(a.array, b.array, rtol=1e-3, atol=1e-4)
    again = MiniSEResNeXt(width=8)
    chainer.serializers.NpzDeserializer(arrays_of(frozen)).load(again)
    assert (arrays_of(again).keys()) == saved.keys()
    for name, value in arrays_of(again).items():
        np.testing.assert_array_equal(value, saved[name])


def test_links_in_lists_are_frozen():
    chain = chainer.ChainList(L.BatchNormalization(3), chainer.Sequential(L.BatchNormalization(2)))
    freeze_batch_normalization(chain)
    kinds = [type(link) for link in chain.links() if hasattr(link, 'avg_var')]
    assert kinds == [FrozenBatchNormalization] * 2


# Backbones.


def test_every_backbone_has_a_shallow_version_here():
    fast = {'initialW': chainer.initializers.Zero()}
    tested = {type(make()) for make in ARCHITECTURES.values()}
    assert {type(make(**fast)) for make in BACKBONES.values()} == tested


@pytest.mark.parametrize('n', [0, 1, 2, 5])
@pytest.mark.parametrize('name', ARCHITECTURES)
def test_outputs_and_gradients_equal_those_at_test_time(name, n):
    """Except for the gradients of what is frozen, of which there are none."""
    plain = architecture(name)
    frozen = plain.copy('copy')
    freeze_batch_normalization(frozen)
    freeze_stages(frozen, n)
    assert frozen.layer_names == plain.layer_names
    x = np.random.default_rng(1).normal(size=(2, 3, 32, 32))
    # Chainer starts with gradients of NaN.
    frozen.cleargrads()
    plain.cleargrads()
    with chainer.using_config('train', False):
        expected = plain(x)
    with chainer.using_config('train', True):
        hs = frozen(x)
    for ours, theirs in zip(hs, expected, strict=True):
        np.testing.assert_allclose(ours.array, theirs.array, rtol=1e-8, atol=1e-10)
    # Without a graph, the parts after a frozen one compute no gradient of their input either.
    assert [h.requires_grad for h in hs] == [k >= n - 1 for k in range(4)]
    loss_of(expected).backward()
    if n < 5:
        loss_of(hs).backward()
    theirs = dict(plain.namedparams())
    trained = set()
    for key, param in frozen.namedparams():
        if param.grad is not None:
            trained.add(key)
            np.testing.assert_allclose(
                param.grad, theirs[key].grad, rtol=1e-7, atol=1e-9 * abs(theirs[key].grad).max()
            )
    bn = {
        f'{key}/{p}'
        for key, link in plain.namedlinks()
        if hasattr(link, 'avg_var')
        for p in ('gamma', 'beta')
    }
    layers = [*STEM[type(plain).__name__], *FEATURES[: n - 1]] if n else []
    expected = {k for k in theirs if k not in bn and k.split('/')[1] not in layers}
    assert trained == expected
    assert bool(expected) == (n < 5)


@pytest.mark.parametrize('n', [0, 2])
@pytest.mark.parametrize('which', ['', 'backbone', 'all'])
def test_only_what_is_not_frozen_changes_in_updates(which, n):
    """Weight decay neither: Chainer gives parameters without a gradient one of zeros."""
    network, optimizer = detector(which, n)
    before = arrays_of(network)
    for step in range(2):
        update(network, optimizer, step)
    after = arrays_of(network)
    changed = {name for name, value in before.items() if (after[name] != value).any()}
    constant = {name for name in before if not is_state(name) or is_frozen(name, which, n)}
    assert changed == before.keys() - constant
    # Unless the statistics are frozen, they change also where gamma and beta do.
    assert any(name.endswith('avg_mean') for name in changed) == (which != 'all')
    assert {type(link) for link in frozen_links(network)} <= {
        FrozenBatchNormalization,
        type(network.extractor.base.conv1),
        type(network.extractor.base.res2),
    }


def is_state(name):
    return name.split('/')[-1] not in ('mean', 'std', 'bgr', 'bn_eps', 'N')


def is_frozen(name, which, n):
    parts = name.split('/')
    bn = parts[-1] in ('gamma', 'beta', 'avg_mean', 'avg_var')
    base = parts[:2] == ['extractor', 'base']
    if base and parts[2] in ['conv1', *FEATURES][:n]:
        return True
    return bn and (which == 'all' or which == 'backbone' and base)


def detector(which, n, seed=0):
    recipe = recipes.override(recipes.find('mini'), ['dtype=float64'])
    network = build.detector(recipe, 4, seed=3)
    with_statistics(network, seed)
    freeze(network, which, n)
    optimizer = multi_node_optimizer(network, create_communicator(), weight_decay=0.1)
    optimizer.lr = 0.01
    return network, optimizer


def update(network, optimizer, step):
    rng = np.random.default_rng(step)
    x = rng.normal(size=(2, 3, 64, 64))
    corner = rng.uniform(0, 32, (6, 2))
    rois = np.concatenate([corner, corner + rng.uniform(8, 32, (6, 2))], axis=1)

    def loss():
        hs = network.extractor(x)
        locs, confs, _ = network.rpn(hs)
        outputs = network.head(hs, rois, np.repeat(np.arange(2, dtype=np.int32), 3))
        return 1e-2 * loss_of([locs, confs, *outputs])

    optimizer.update(loss)


def test_resumed_training_equals_uninterrupted_training():
    network, optimizer = detector('backbone', 2)
    for step in range(2):
        update(network, optimizer, step)
    saved = {'network': arrays_of(network), 'optimizer': arrays_of(optimizer)}
    # Frozen parameters have no velocity.
    velocities = {name for name in saved['optimizer'] if name.endswith('/v')}
    assert any('/base/res3/' in name for name in velocities)
    assert not any('/base/res2/' in name or '/base/conv1/' in name for name in velocities)
    for step in range(2, 4):
        update(network, optimizer, step)
    resumed, optimizer = detector('backbone', 2, seed=9)
    chainer.serializers.NpzDeserializer(saved['network']).load(resumed)
    chainer.serializers.NpzDeserializer(saved['optimizer']).load(optimizer)
    for step in range(2, 4):
        update(resumed, optimizer, step)
    expected = arrays_of(network)
    for name, value in arrays_of(resumed).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_no_backward_pass_through_frozen_stages():
    class Backward(chainer.function_hook.FunctionHook):
        name = 'Backward'
        n = n_recorded = 0

        def forward_preprocess(self, function, in_data):
            self.n_recorded += chainer.config.enable_backprop

        def backward_preprocess(self, function, in_data, out_grad):
            self.n += 1

    x = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    n_function = []
    for n in range(6):
        backbone = MiniSEResNeXt(width=8)
        freeze_stages(backbone, n)
        freeze_batch_normalization(backbone)
        with Backward() as hook:
            hs = backbone(x)
            if n < 5:
                loss_of(hs[-1:]).backward()
        n_function.append((hook.n, hook.n_recorded))
    for counts in zip(*n_function):
        assert all(a > b for a, b in zip(counts, counts[1:])), n_function
        assert counts[5] == 0


def test_statistics_of_frozen_layers_are_not_averaged_over_groups():
    class Comm:
        size = 3
        mpi_comm = types.SimpleNamespace(Allreduce=lambda _, values, op: values.fill(np.nan))

    network = with_statistics(build.detector(recipes.find('mini'), 4))
    freeze(network, 'backbone')
    before = arrays_of(network.extractor.base)
    AverageRunningStatistics(network, Comm())()
    for name, value in arrays_of(network.extractor.base).items():
        np.testing.assert_array_equal(value, before[name])
    assert np.isnan(network.head.bn1.avg_mean).all()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('some', 0), 'frozen_bn=some: expected backbone, all'),
        (('all', 6), 'frozen_stages=6: expected 0 to 5'),
        (('', -1), 'frozen_stages=-1: expected 0 to 5'),
    ],
)
def test_arguments_out_of_range(arguments, message):
    network = build.detector(recipes.find('mini'), 4)
    with pytest.raises(InputError, match=message):
        freeze(network, *arguments)
    assert not list(frozen_links(network))


RANKS = """
import numpy as np
import pfdet.compat
import chainer, chainermn
import chainer.functions as F
from pfdet import recipes
from pfdet.links.freezing import FrozenBatchNormalization, freeze
from pfdet.links.multi_node_batch_normalization import use_multi_node_batch_normalization
from pfdet.training import build
from pfdet.training.communicators import create_communicator
from pfdet.training.optimizer import multi_node_optimizer

comm = create_communicator()
recipe = recipes.override(recipes.find('mini'), ['dtype=float64'])
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 3, 64, 64))

def network(which):
    network = build.detector(recipe, 4, seed=3)
    rng = np.random.default_rng(1)
    for _, link in sorted(network.namedlinks()):
        if hasattr(link, 'avg_var'):
            link.avg_mean[...] = rng.normal(0, 0.2, link.avg_mean.shape)
            link.avg_var[...] = rng.uniform(0.5, 1.5, link.avg_var.shape)
    if which == 'after':
        use_multi_node_batch_normalization(network, comm)
    freeze(network, 'backbone', 2)
    if which == 'before':
        use_multi_node_batch_normalization(network, comm)
    return network

def kinds(link):
    return {type(child).__name__ for child in link.links() if hasattr(child, 'avg_var')}

def run(network, comm, images):
    optimizer = multi_node_optimizer(network, comm, weight_decay=0.1)
    optimizer.lr = 0.01
    for _ in range(2):
        optimizer.update(
            lambda: sum(F.mean(F.cos(h) * h) for h in network.extractor(x[images])))

class One:
    size = 1
    bcast_data = multi_node_mean_grad = lambda *args, **kwargs: None

expected = network('')
run(expected, One(), slice(None))
for which in 'before', 'after':
    ours = network(which)
    assert kinds(ours.extractor.base) == {'FrozenBatchNormalization'}
    assert kinds(ours.extractor.inner) == {'MultiNodeBatchNormalization'}
    run(ours, comm, slice(comm.rank, comm.rank + 1))
    theirs = dict(expected.namedlinks())
    for name, link in ours.namedlinks():
        for key in sorted(link._params | link._persistent):
            a, b = (getattr(k, key) for k in (link, theirs[name]))
            a, b = (getattr(k, 'array', k) for k in (a, b))
            if isinstance(a, np.ndarray):
                assert abs(a - b).max() < 1e-9, (which, name, key, abs(a - b).max())
if comm.rank == 0:
    print('equal')
"""


def test_ranks_equal_one_rank_with_the_whole_batch(mpiexec):
    assert 'equal' in mpiexec(2, RANKS).stdout
