"""Tests of updates from whole batches and from parts, and of the waiting time."""

import types

import pfdet.compat  # noqa: F401

import chainer
import chainer.links as L
import numpy as np
import pytest

from pfdet.iterators.samplers import SequentialSampler
from pfdet.iterators.sharded import ShardedIterator
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.training.data_wait import DataWait
from pfdet.training.transforms import Converter, TrainLoader
from pfdet.training.updater import Updater

N_IMAGE = 24


class Chain(chainer.Chain):
    """A network without batch normalization; its loss depends on padding, positions and boxes."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 4, 5, 3, initialW=chainer.initializers.Normal(0.1))
        self.seen = []

    def forward(self, batch):
        x = np.zeros((len(batch.imgs), 3, *batch.size), np.float64)
        for k, img in enumerate(batch.imgs):
            x[k, :, : img.shape[1], : img.shape[2]] = img / 100.0
        weight = np.array(
            [1 + p % 3 + t.sum() for p, t in zip(batch.positions, batch.truth.valid, strict=True)]
        )
        self.seen.append((batch.positions, batch.size))
        h = chainer.functions.mean(self.conv(x) ** 2, axis=(1, 2, 3))
        loss = chainer.functions.mean(weight * h)
        chainer.report({'loss': loss, 'size': float(batch.size[1])}, self)
        return loss


def train(world, n_update, batch_size, n_part, comm=None, rank=0, n_rank=1):
    with chainer.using_config('dtype', np.float64):
        np.random.seed(0)
        chain = Chain()
    index = AnnotationIndex.open(world / 'train.index')
    iterator = ShardedIterator(
        SequentialSampler(N_IMAGE, 0),
        TrainLoader(OpenImagesDataset(index), (40, 90), 200, True, 0),
        batch_size,
        rank,
        n_rank,
    )
    if comm is None:
        optimizer = chainer.optimizers.CorrectedMomentumSGD(0.01).setup(chain)
    else:
        from pfdet.training.optimizer import multi_node_optimizer

        optimizer = multi_node_optimizer(chain, comm, weight_decay=0)
        optimizer.lr = 0.01
    updater = Updater(iterator, optimizer, Converter(index.hierarchy, comm), n_part)
    reporter = chainer.Reporter()
    reporter.add_observer('main', chain)
    observations = []
    for _ in range(n_update):
        observations.append({})
        with reporter.scope(observations[-1]):
            updater.update()
        assert 0 <= updater.seconds_waited <= updater.seconds
    iterator.finalize()
    return chain, observations, iterator


@pytest.mark.parametrize('n_part', [2, 3, 6])
def test_parts_equal_the_whole_batch(small_world, n_part):
    """Weights, losses, order of the images, and one size per update."""
    whole, expected, _ = train(small_world, 5, 6, 1)
    parts, observed, iterator = train(small_world, 5, 6, n_part)
    assert len({size for _, size in whole.seen}) > 1
    assert [(p, size) for positions, size in whole.seen for p in positions] == [
        (p, size) for positions, size in parts.seen for p in positions
    ]
    assert [len(p) for p, _ in parts.seen] == [6 // n_part] * 5 * n_part
    assert iterator.position == 30 and iterator.epoch_detail == 30 / N_IMAGE
    for a, b in zip(observed, expected, strict=True):
        assert a.keys() == b.keys() == {'main/loss', 'main/size', 'main/finite/gradients'}
        for key in a:
            np.testing.assert_allclose(
                a[key], b[key].array if hasattr(b[key], 'array') else b[key], rtol=1e-12
            )
    for (_, a), (_, b) in zip(whole.namedparams(), parts.namedparams(), strict=True):
        np.testing.assert_allclose(b.array, a.array, rtol=1e-10)
    # The weights have changed.
    np.random.seed(0)
    start = L.Convolution2D(3, 4, 5, 3, initialW=chainer.initializers.Normal(0.1)).W.array
    assert abs(parts.conv.W.array - start).max() > 1e-3


def test_uneven_parts_are_rejected(small_world):
    with pytest.raises(ValueError, match='6 images cannot be split into 4'):
        train(small_world, 1, 6, 4)


def test_share_of_time_waiting():
    """The longest wait of any rank in every update, divided by the time of the updates."""

    def all_reduce(send, values, op):
        values[:] = np.maximum(values, [0.0, 0.5, 0.1][: len(values)])

    comm = types.SimpleNamespace(size=2, mpi_comm=types.SimpleNamespace(Allreduce=all_reduce))

    def trainer(waited, seconds):
        updater = types.SimpleNamespace(seconds=seconds, seconds_waited=waited)
        return types.SimpleNamespace(updater=updater, observation={})

    reports = iter([False, False, True, True])
    wait = DataWait(comm, lambda trainer: next(reports))
    for waited in 0.2, 0.1, 0.0:
        last = trainer(waited, 2.0)
        assert wait.share == 0
        wait(last)
    assert last.observation == {'waiting_for_data': pytest.approx(0.8 / 6)}
    wait(trainer(1.0, 4.0))
    assert wait.share == pytest.approx(1.8 / 10)


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, 'tests/training')
import test_updater
from pfdet.training.communicators import create_communicator

comm = create_communicator()
world = Path(sys.argv[1])
chain, _, iterator = test_updater.train(world, 4, 4, 2, comm, comm.rank, comm.size)
one, _, _ = test_updater.train(world, 4, 8, 1)
assert iterator.position == 32
assert comm.mpi_comm.allreduce(sum(len(p) for p, _ in chain.seen)) == 32
for (_, a), (_, b) in zip(one.namedparams(), chain.namedparams()):
    assert abs(a.array - b.array).max() < 1e-10
if comm.rank == 0:
    print('equal')
"""


def test_parts_on_two_ranks_equal_the_whole_batch_on_one_rank(small_world, mpiexec):
    assert 'equal' in mpiexec(2, PROGRAM, small_world).stdout
