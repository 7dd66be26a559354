"""Tests of batch normalization over groups of ranks."""

import pfdet.compat  # noqa: F401

import pytest

from pfdet.errors import InputError
from pfdet.links.multi_node_batch_normalization import group_of_ranks

PROGRAM = """
import numpy as np
import pfdet.compat
import chainer, chainermn
import chainer.functions as F
import chainer.links as L
from pfdet.cpu import batch_normalization
from pfdet.links.multi_node_batch_normalization import (
    group_of_ranks, use_multi_node_batch_normalization)
from pfdet.training.communicators import PackedCommunicator
from pfdet.training.running_statistics import AverageRunningStatistics
from mpi4py import MPI

comm = PackedCommunicator(MPI.COMM_WORLD)
batch_normalization.install()

class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.c1, self.b1 = L.Convolution2D(3, 6, 3), L.BatchNormalization(6)
            self.c2, self.b2 = L.Convolution2D(6, 5, 3), L.BatchNormalization(5)

    def forward(self, x):
        return self.b2(self.c2(F.relu(self.b1(self.c1(x)))))

with chainer.using_config('dtype', np.float64):
    np.random.seed(0)
    net = Net()
references = [net.copy('copy') for _ in range(2)]
group = group_of_ranks(comm, 2)
assert group.size == 2 and group.rank == comm.rank % 2
assert group.mpi_comm.allgather(comm.rank) == [comm.rank // 2 * 2, comm.rank // 2 * 2 + 1]
for G in 0, 4:
    assert group_of_ranks(comm, G) is comm
use_multi_node_batch_normalization(net, group)
average = AverageRunningStatistics(net, comm)
rng = np.random.default_rng(0)
for step in range(3):
    x = rng.normal(rng.normal(size=(4, 1, 1, 1, 1)), 1 + step, size=(4, 2, 3, 9, 9))
    net.cleargrads()
    y = net(x[comm.rank])
    F.mean(y ** 3).backward()
    own_group = comm.rank // 2
    comm.multi_node_mean_grad(net)
    grads = []
    for g, one in enumerate(references):
        one.cleargrads()
        expected = one(x[2 * g:2 * g + 2].reshape(4, 3, 9, 9))
        F.mean(expected ** 3).backward()
        grads.append({name: p.grad for name, p in one.namedparams()})
        if g == own_group:
            part = expected.array.reshape(2, 2, *y.shape[1:])[comm.rank % 2]
            assert abs(part - y.array).max() < 1e-9
    for name, p in net.namedparams():
        mean = (grads[0][name] + grads[1][name]) / 2
        assert abs(mean - p.grad).max() < 1e-9 * abs(mean).max() + 1e-12, name
    average(None)
    # Averaging after every update equals averaging once at the end.
    for k in 'b1', 'b2':
        for name in 'avg_mean', 'avg_var':
            groups = [getattr(one[k], name) for one in references]
            assert abs(groups[0] - groups[1]).max() > 1e-3
            a = getattr(net[k], name)
            assert abs(a - np.mean(groups, axis=0)).max() < 1e-9
            assert len(set(comm.mpi_comm.allgather(a.tobytes()))) == 1
if comm.rank == 0:
    print('equal')
"""


def test_groups_normalize_separately(mpiexec):
    """Four ranks in two groups equal one process per group, with averaged running statistics."""
    assert 'equal' in mpiexec(4, PROGRAM).stdout


def test_uneven_groups_are_rejected():
    class Comm:
        size, rank = 6, 0

    for size in 4, -1, 12:
        with pytest.raises(InputError, match=f'--bn-group-size {size}.*divisor.* 6'):
            group_of_ranks(Comm, size)
