"""Samplers, training and prediction on the GPU against the CPU."""

import contextlib
import json

import chainer
import numpy as np
import pytest
from chainer.backends import cuda

from pfdet import recipes
from pfdet.links.rpn import Proposals
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.tables import GROUP_OF
from pfdet.targets import sampling
from pfdet.targets.batch_truth import collate
from pfdet.training import build
from pfdet.training.run_options import RunOptions
from pfdet.training.train import train
from pfdet.training.transforms import Converter, TrainLoader

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.available, reason='no GPU')]

# Recipe changes, and how often the host waits and copies in a step. It waits for the number of
# sampled anchors, of class-specific boxes, of labels, and of second labels. It copies the number of
# regions per level (twice with context) and of second labels.
SWITCHES = {
    'mini': ([], 1, 1),
    'PFDet': (
        [
            'psp=True',
            'fpn_scale=5',
            'context=True',
            'cooccurrence=True',
            'anchor_ratios=(0.33, 0.5, 1, 2, 3)',
        ],
        1,
        2,
    ),
    'focal': (['loss=focal'], 1, 1),
    'softmax': (['loss=softmax', 'class_agnostic=False'], 2, 1),
    'dist_ce': (['loss=dist_ce', 'normalize=used'], 1, 1),
    'concurrent softmax': (
        [
            'loss=concurrent_softmax',
            'effective_beta=0.999',
            'score=concurrent_softmax',
            'expand_scores=True',
        ],
        3,
        2,
    ),
    'several labels': (['loss=multi_label_softmax', 'normalize=positive'], 1, 1),
}


def random_boxes(rng, *shape):
    corner = rng.uniform(-10, 60, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(3, 40, (*shape, 2))], axis=-1).astype(
        np.float32
    )


def truth_of(rng, counts):
    flags = [rng.choice([0, 0, 0, GROUP_OF], n).astype(np.uint8) for n in counts]
    label = [rng.random((n, 3)) < 0.4 for n in counts]
    nothing = [np.zeros(3, bool)] * len(counts)
    return collate(
        [random_boxes(rng, n) for n in counts], label, flags, nothing, nothing, flat_hierarchy(3)
    )


def both(function, *arguments):
    """Call a function on the GPU and on the CPU; return pairs of NumPy arrays."""

    def to_gpu(a):
        return type(a)(*map(cuda.to_gpu, a)) if isinstance(a, tuple) else cuda.to_gpu(a)

    on_cpu = function(*arguments)
    on_gpu = function(*map(to_gpu, arguments))
    return zip(map(cuda.to_cpu, on_gpu), on_cpu, strict=True)


def test_sampled_anchors():
    rng = np.random.default_rng(0)
    truth = truth_of(rng, [4, 0, 7])
    anchors, sizes = random_boxes(rng, 400), np.array([[90, 100], [100, 80], [95, 95]], 'f')
    priority = sampling.priorities(0, [3, 4, 5], len(anchors))
    for ours, theirs in both(
        lambda *a: sampling.sample_anchors(*a, 64), anchors, truth, sizes, priority
    ):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('n_sample', [16, 200])
def test_sampled_rois(n_sample):
    rng = np.random.default_rng(0)
    truth = truth_of(rng, [4, 0, 7])
    valid = rng.random((3, 90)) < [[0.9], [0.5], [1]]
    proposals = Proposals(
        random_boxes(rng, 3, 90), valid, rng.permuted(np.tile(np.arange(90), (3, 1)), axis=1)
    )
    priority = sampling.priorities(0, [3, 4, 5], 90 + truth.valid.shape[1])
    # The positions, which stay on the host, are not set here.
    for ours, theirs in both(
        lambda *a: sampling.sample_rois(*a, n_sample)[:-1], proposals, truth, priority
    ):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-3)


@pytest.fixture(scope='module')
def index(small_world):
    return AnnotationIndex.open(small_world / 'train.index')


def make_chain(index, changes, dtype='float64'):
    # Gradients far from the loss are sums of large terms of both signs. In float32, another order
    # of summation changes them by much more than a thousandth.
    recipe = recipes.override(recipes.find('mini'), [*changes, f'dtype={dtype}'])
    rng = np.random.default_rng(0)
    n_class = len(index.classes)
    rates = (rng.random((n_class, n_class)) * 0.3).astype(np.float32)
    network = build.detector(recipe, n_class, 0, rates, index.hierarchy.descendants)
    counts = rng.integers(1, 1000, n_class)
    return build.train_chain(recipe, network, index.classes, index.hierarchy, 0, rates, counts)


def make_batch(index, join_iou=1.0):
    load = TrainLoader(OpenImagesDataset(index), (96, 96), 160, True, 0)
    return Converter(index.hierarchy, join_iou=join_iou)([load(i, i, 0) for i in range(3)])


def observe(chain, batch):
    chain.cleargrads()
    reporter = chainer.Reporter()
    reporter.add_observer('main', chain)
    observation = {}
    with reporter.scope(observation):
        chain(batch).backward()
    return observation


def losses_and_gradients(chain, observation):
    values = {key: float(cuda.to_cpu(v.array)) for key, v in observation.items()}
    assert values.pop('main/finite/proposals') == 0
    losses = {key: value for key, value in values.items() if key.startswith('main/loss')}
    return losses, {name: cuda.to_cpu(p.grad) for name, p in chain.namedparams()}


def step(chain, batch):
    return losses_and_gradients(chain, observe(chain, batch))


@pytest.mark.parametrize('switches', SWITCHES)
def test_a_step(switches, index):
    changes, n_wait, n_copy = SWITCHES[switches]
    chain, batch = make_chain(index, changes), make_batch(index)
    on_gpu = chain.copy('copy')
    on_gpu.to_gpu()
    losses, grads = step(chain, batch)
    # Fake CuPy counts waits and copies, and raises an error for implicit copies.
    with getattr(cuda.cupy, 'counted', contextlib.nullcontext)() as counted:
        observation = observe(on_gpu, batch)
        if counted is not None:
            counts, locations = counted
            assert (counts['wait'], counts['to_host']) == (n_wait, n_copy), locations
    gpu_losses, gpu_grads = losses_and_gradients(on_gpu, observation)
    assert min(losses.values()) > 0
    assert gpu_losses == pytest.approx(losses, rel=1e-5)
    for name, expected in grads.items():
        np.testing.assert_allclose(
            gpu_grads[name], expected, rtol=1e-3, atol=1e-5 * abs(expected).max(), err_msg=name
        )


def test_losses_of_a_step_in_float32(index):
    chain, batch = make_chain(index, [], 'float32'), make_batch(index)
    on_gpu = chain.copy('copy')
    on_gpu.to_gpu()
    gpu_losses, losses = step(on_gpu, batch)[0], step(chain, batch)[0]
    assert gpu_losses.keys() == losses.keys()
    for name, loss in losses.items():
        # Anchors are sampled independently of the network. The proposals depend on it: rounding of
        # the logits decides which of two similar proposals is kept.
        rel = 1e-3 if 'rpn' in name else 0.1
        assert gpu_losses[name] == pytest.approx(loss, rel=rel), name


@pytest.mark.parametrize('switches', ['PFDet', 'softmax', 'concurrent softmax'])
def test_prediction(switches, index):
    network = make_chain(index, SWITCHES[switches][0]).detector
    dataset = OpenImagesDataset(index)
    imgs = [dataset.get_resized(i, 96, 160).transpose(2, 0, 1) for i in range(3)]
    on_gpu = network.copy('copy')
    on_gpu.to_gpu()
    for (bbox, score), (gpu_bbox, gpu_score) in zip(
        network.predict(imgs), on_gpu.predict(imgs), strict=True
    ):
        assert len(bbox) > 5 and bbox.shape == gpu_bbox.shape and bbox.dtype == gpu_bbox.dtype
        np.testing.assert_allclose(gpu_bbox, bbox, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(gpu_score, score, rtol=1e-3, atol=1e-5)


def test_truth_of_experts(index):
    """Objects of other classes are removed, and the target matrix has only a few classes."""
    chain, batch = make_chain(index, []), make_batch(index)
    pick = np.flatnonzero(batch.truth.label.any(axis=(0, 1)))[:4]
    recipe = recipes.override(recipes.find('mini'), ['dtype=float64'])
    network = build.detector(recipe, len(pick))
    chain = build.train_chain(recipe, network, index.classes, index.hierarchy, 0)
    chain.pick, chain.only_picked = pick, True
    on_gpu = chain.copy('copy')
    on_gpu.to_gpu()
    assert step(on_gpu, batch)[0] == pytest.approx(step(chain, batch)[0], rel=1e-3)


def test_a_run(small_world, tmp_path):
    """Train, validate, save a snapshot and resume; the losses equal those on the CPU."""
    import chainermn
    from chainermn import nccl

    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.override(
        recipes.find('mini'),
        ['min_size=(96, 96)', 'max_size=160', 'test_size=96', 'batch_size=2', 'dtype=float64'],
    )
    losses = []
    for device in -1, 0:
        comm = chainermn.create_communicator(
            'pure_nccl' if device == 0 and nccl._available else 'naive'
        )
        out = tmp_path / str(device)
        for iterations in 2, 3:
            train(
                recipe,
                index,
                out,
                comm,
                RunOptions(
                    iterations=iterations,
                    log_interval=1,
                    snapshot_interval=2,
                    resume=iterations == 3,
                ),
                device=device,
                val_index=AnnotationIndex.open(small_world / 'validation.index'),
            )
        log = json.loads((out / 'log').read_text())
        losses.append([entry['main/loss'] for entry in log])
        assert (out / 'model.npz').exists() and (out / 'score.json').exists()
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], rel=1e-3)
