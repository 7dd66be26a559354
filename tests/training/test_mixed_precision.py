"""Training with float16 activations and a loss scale."""

import json
from pathlib import Path

import pfdet.compat  # noqa: F401

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.functions.connection import convolution_2d

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.links.freezing import freeze
from pfdet.links.mixed_precision import use_single_precision
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import build, loss_scale
from pfdet.training.communicators import create_communicator
from pfdet.training.loss_scale import ScaledMomentumSGD
from pfdet.training.optimizer import multi_node_optimizer
from pfdet.training.transforms import Converter, TrainLoader

TRAIN = Path(__file__).resolve().parents[2] / 'train' / 'train_multi.py'
SMALL = ['--set', 'dtype=mixed16', 'min_size=(48,64)', 'n_anchor=16', 'n_roi=8', 'epochs=4']


def arguments(world, out, *more):
    index = world / 'train.index'
    return ['--recipe', 'mini', '--train-index', index, '--out', out, '--log-interval', 1, *more]


def log(out):
    return json.loads((out / 'log').read_text())


def weights(out):
    with np.load(out / 'model.npz') as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope='module')
def step(small_world):
    """Return a function that gives the chain, a batch and its loss in a type."""
    index = AnnotationIndex.open(small_world / 'train.index')
    load = TrainLoader(OpenImagesDataset(index), (96, 96), 160, False, 0)
    batch = Converter(index.hierarchy)([load(i, i, 0) for i in range(3)])

    def run(dtype, *changes):
        # All anchors and objects' own boxes: proposals would differ by rounding.
        recipe = recipes.override(
            recipes.find('mini'), [f'dtype={dtype}', 'n_anchor=100000', 'n_roi=32', *changes]
        )
        n_class = len(index.classes)
        network = build.detector(recipe, n_class, 0, None, index.hierarchy.descendants)
        chain = build.train_chain(
            recipe, network, index.classes, index.hierarchy, 0, None, np.ones(n_class)
        )
        return chain, batch

    return run


def gradients(chain, batch, scale=1.0):
    """Gradients of the RPN's losses and of a loss of fixed regions, by name."""
    detector = chain.detector
    x = detector.prepare(batch.imgs, batch.size)
    hs = detector.extractor(x)
    locs, confs, _ = detector.rpn(hs)
    rng = np.random.RandomState(0)
    corner = rng.uniform(0, 60, (24, 2))
    rois = np.concatenate([corner, corner + rng.uniform(8, 60, (24, 2))], 1).astype('f')
    offset, conf = detector.head(hs, rois, np.repeat(np.arange(3, dtype='i'), 8))
    for v in locs, confs, offset, conf:
        assert v.dtype != np.float16
    t = rng.randint(0, 2, conf.shape).astype('i')
    loss = (
        F.sigmoid_cross_entropy(conf, t)
        + F.mean(F.sin(offset) ** 2)
        + F.mean(F.sigmoid(confs))
        + F.mean(F.cos(locs * 10))
    )
    chain.cleargrads()
    loss.backward(loss_scale=scale)
    found = {n: p.grad for n, p in chain.namedparams() if p.grad is not None}
    return float(loss.array), {n: g / scale for n, g in found.items()}


CHANGES = {
    'mini': (),
    'frozen': ("frozen_bn='backbone'",),
    'all parts': ('psp=True', 'head_bn=True', 'context=True', 'fpn_scale=5', 'head_conv=1'),
}


@pytest.fixture
def noisy(monkeypatch):
    """Return a function that adds noise as large as float16's rounding to every convolution."""
    rng = np.random.RandomState(1)
    exact = convolution_2d.convolution_2d

    def convolution(*args, **kwargs):
        y = exact(*args, **kwargs)
        return y * (1 + rng.uniform(-1, 1, y.shape) * 2.0**-11).astype('f')

    return lambda: monkeypatch.setattr(convolution_2d, 'convolution_2d', convolution)


@pytest.mark.parametrize('name', CHANGES)
def test_gradients_differ_from_those_in_float32_by_rounding(step, name, noisy):
    """The network amplifies rounding, so the same network with noise says how much is expected."""

    def run(dtype, scale=1.0):
        chain, batch = step(dtype, *CHANGES[name])
        if name == 'frozen':
            freeze(chain.detector, 'backbone')
        assert all(p.dtype == np.float32 for p in chain.params())
        return gradients(chain, batch, scale)

    loss, exact = run('float32')
    half_loss, half = run('mixed16', 2.0**12)
    noisy()
    noise_loss, noise = run('float32')
    assert half_loss != loss != noise_loss
    np.testing.assert_allclose(half_loss, loss, rtol=3e-3)
    assert half.keys() == exact.keys()
    assert all(g.dtype == np.float32 for g in half.values())

    def errors(found):
        return np.array([np.linalg.norm(found[n] - exact[n]) for n in exact])

    norms = np.array([np.linalg.norm(g) for g in exact.values()])
    assert np.median(errors(half) / (norms + 1e-12)) < 0.3
    assert np.median(errors(half) / (errors(noise) + 1e-4 * norms + 1e-12)) < 3
    assert (errors(half) < 10 * errors(noise) + 0.02 * norms + 1e-4 * norms.max()).all()


def test_activations_are_half_and_the_network_can_be_turned_back(step):
    chain, batch = step('mixed16')
    single, _ = step('float32')
    detector = chain.detector
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        x = detector.prepare(batch.imgs, batch.size)
        hs = detector.extractor(x)
        assert {h.dtype for h in hs} == {np.dtype(np.float16)}
        rois = np.array([[0, 0, 40, 50], [5, 6, 80, 90]], 'f')
        pooled = detector.head.pool(hs, rois, np.zeros(2, 'i'))
        assert pooled.dtype == np.float16
        use_single_precision(detector)
        for a, b in zip(detector.extractor(x), single.detector.extractor(x), strict=True):
            np.testing.assert_array_equal(a.array, b.array)


def test_statistics_of_large_activations_are_finite():
    """Of ChainerMN's own version, which runs on GPUs; squares of float16 end at 255."""
    from chainermn.functions.batch_normalization import _MpiImpl

    x = np.array([[300.0, -300.0], [400.0, -200.0]], np.float16)
    gamma = np.ones(2, 'f')
    mean, var = _MpiImpl(create_communicator('naive')).get_mean_and_var((0,), gamma, x, np, 'f')
    np.testing.assert_allclose(mean, [350, -250])
    np.testing.assert_allclose(var, [2500, 2500])


class Constant(chainer.Chain):
    """A loss whose gradient is a given number, in float16."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.fc = L.Linear(2, 2, initialW=np.eye(2, dtype='f'), nobias=True)

    def forward(self, factor):
        h = F.cast(self.fc.W, np.float16) * (factor * 2.0**12)
        # Without the last factor, the scale itself would overflow in the cast.
        return F.sum(F.cast(h, np.float32)) * 2.0**-12


def optimizer_of(chain, interval=loss_scale.INTERVAL):
    optimizer = multi_node_optimizer(
        chain, create_communicator('naive'), momentum=0.5, weight_decay=0, loss_scaling=True
    )
    optimizer.lr = 0.25
    optimizer.actual_optimizer.interval = interval
    return optimizer


def test_an_overflow_skips_the_update_and_halves_the_scale():
    chain = Constant()
    optimizer = optimizer_of(chain)
    state = optimizer.actual_optimizer
    first = loss_scale.FIRST
    # The gradient is the factor everywhere, whatever the scale is.
    optimizer.update(chain, 2.0**-4)
    np.testing.assert_array_equal(chain.fc.W.array, np.eye(2) - 0.25 * 2.0**-4)
    assert state.loss_scale == first and not state.skipped
    velocity = chain.fc.W.update_rule.state['v'].copy()
    before = chain.fc.W.array.copy()
    # float16 ends at 65,504, so 4 times the scale overflows until the scale is 2**13.
    for n in 1, 2, 3:
        optimizer.update(chain, 4.0)
        assert state.skipped and state.loss_scale == first / 2**n
        np.testing.assert_array_equal(chain.fc.W.array, before)
        np.testing.assert_array_equal(chain.fc.W.update_rule.state['v'], velocity)
    optimizer.update(chain, 4.0)
    assert not state.skipped and state.loss_scale == first / 8
    np.testing.assert_array_equal(chain.fc.W.array, before + 0.25 * (0.5 * velocity - 4))


@pytest.mark.parametrize('scaled', [False, True])
def test_weight_decay_does_not_depend_on_the_scale(scaled):
    chain = Constant()
    optimizer = multi_node_optimizer(
        chain,
        create_communicator('naive'),
        momentum=0.5,
        weight_decay=0.125,
        loss_scaling=scaled,
    )
    optimizer.lr = 0.25
    W, v = np.eye(2), np.zeros((2, 2))
    for _ in range(3):
        optimizer.update(chain, 2.0**-4)
        v = 0.5 * v - (2.0**-4 + 0.125 * W)
        W = W + 0.25 * v
        np.testing.assert_allclose(chain.fc.W.array, W, rtol=1e-6)


def test_the_scale_doubles_after_updates_without_an_overflow():
    chain = Constant()
    optimizer = optimizer_of(chain, interval=3)
    scales = []
    for factor in (0.25, 0.25, 1, 0.25, 0.25, 0.25, 0.25):
        optimizer.update(chain, factor)
        scales.append(optimizer.actual_optimizer.loss_scale / loss_scale.FIRST)
    # The third update overflows, and the counter starts again.
    assert scales == [1, 1, 0.5, 0.5, 0.5, 1, 1]


def test_the_scale_stays_in_its_limits():
    optimizer = optimizer_of(Constant(), interval=1)
    for _ in range(12):
        optimizer.update(optimizer.target, 2.0**-14)
    state = optimizer.actual_optimizer
    assert state.loss_scale == loss_scale.LARGEST
    before = optimizer.target.fc.W.array.copy()
    for _ in range(30):
        optimizer.update(optimizer.target, np.inf)
    # At scale 1, gradients that are not finite are no overflow: the run stops.
    assert state.loss_scale == 1 and not state.skipped
    np.testing.assert_array_equal(optimizer.target.fc.W.array, before)


def test_scale_and_counter_are_part_of_the_state():
    state = ScaledMomentumSGD(interval=7)
    state.setup(Constant())
    # Also if all updates so far have been skipped.
    state.update(state.target, np.inf)
    assert state.skipped
    state._loss_scale, state._n_good = 2.0**9, 5
    saved = chainer.serializers.DictionarySerializer()
    saved.save(state)
    assert saved.target['loss_scale'] == 2.0**9
    new = ScaledMomentumSGD(interval=7)
    new.setup(Constant())
    chainer.serializers.NpzDeserializer(saved.target).load(new)
    assert (new.loss_scale, new._n_good) == (2.0**9, 5)


def test_double_buffering_is_refused():
    with pytest.raises(InputError, match=r'--double-buffering: .*mixed16'):
        multi_node_optimizer(
            Constant(), create_communicator(), double_buffering=True, loss_scaling=True
        )


OVERFLOW = """
import runpy, sys
import pfdet.compat
from pfdet.training import loss_scale

# The first scale overflows, and two updates without an overflow double it.
original = loss_scale.ScaledMomentumSGD.__init__
def start(self, *args, **kwargs):
    original(self, *args, **{**kwargs, 'interval': 2})
    self._loss_scale = 2.0**20
loss_scale.ScaledMomentumSGD.__init__ = start
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def test_resumed_run_is_bit_identical(small_world, tmp_path, mpiexec):
    """Two ranks, two batches per update, with overflows before and after the snapshot."""
    out = {name: tmp_path / name for name in ('uninterrupted', 'resumed')}

    def run(name, *more):
        options = [*arguments(small_world, out[name], '--accumulate', 2, *more), *SMALL]
        mpiexec(2, OVERFLOW, TRAIN, *options, 'batch_size=1')

    run('uninterrupted', '--iterations', 14)
    run('resumed', '--iterations', 7, '--snapshot-interval', 7)
    run('resumed', '--iterations', 14, '--resume')
    entries = {name: log(path) for name, path in out.items()}
    for key in 'main/loss', 'loss_scale', 'skipped_updates':
        found, expected = ([e[key] for e in entries[name]] for name in ('resumed', 'uninterrupted'))
        assert found == expected, key
    skipped = [e['skipped_updates'] for e in entries['resumed']]
    assert 1 in skipped[:7] and 0 in skipped[:7]
    assert len({e['loss_scale'] for e in entries['resumed']}) > 2
    a, b = weights(out['uninterrupted']), weights(out['resumed'])
    assert a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)
    assert all(v.dtype != np.float16 for v in a.values())


def test_two_ranks_train_like_one_rank_with_the_whole_batch(small_world, tmp_path, mpiexec):
    for ranks, batch_size in (2, 2), (1, 4):
        settings = [*SMALL, 'flip=False', f'batch_size={batch_size}']
        more = '--iterations', 3, *settings
        mpiexec(ranks, TRAIN, *arguments(small_world, tmp_path / str(ranks), *more))
    two, one = (log(tmp_path / n) for n in '21')
    # Before the first update, and after two, whose rounding differs.
    assert two[0]['main/loss'] == pytest.approx(one[0]['main/loss'], rel=2e-3)
    assert two[2]['main/loss'] == pytest.approx(one[2]['main/loss'], rel=5e-2)
    assert [e['loss_scale'] for e in two] == [e['loss_scale'] for e in one]


def test_dtype_is_in_the_commands_of_messages(mpiexec):
    done = mpiexec(
        1, TRAIN, '--recipe', 'expert-class10', '--dtype', 'mixed16', '--out', 'x', check=False
    )
    assert done.returncode == 2 and '--set dtype=mixed16' in done.stderr
    assert '--dtype' not in done.stderr


def test_cli_refuses_double_buffering_and_shows_the_type(small_world, tmp_path, mpiexec):
    done = mpiexec(1, TRAIN, '--recipe', 'mini', '--dtype', 'mixed16', '--show')
    assert 'mixed16' in done.stdout
    done = mpiexec(
        1,
        TRAIN,
        *arguments(small_world, tmp_path / 'x', '--dtype', 'mixed16', '--double-buffering'),
        check=False,
    )
    assert done.returncode == 2 and '--double-buffering' in done.stderr
