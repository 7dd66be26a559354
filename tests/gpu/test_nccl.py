"""The communicator ``pure_nccl`` with one rank, or with several if mpiexec starts pytest."""

import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy as np
import pytest
from chainer.backends import cuda
from chainermn import nccl
from chainermn.links import MultiNodeBatchNormalization

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda.available, reason='no GPU'),
    pytest.mark.skipif(not nccl._available, reason='no NCCL'),
]


@pytest.fixture(scope='module')
def comm():
    comm = chainermn.create_communicator('pure_nccl')
    cuda.get_device_from_id(comm.intra_rank).use()
    return comm


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_mean_of_gradients(comm, dtype):
    link = L.Linear(30, 20)
    link.to_device(f'@cupy:{comm.intra_rank}')
    rng = np.random.default_rng(0)
    expected = {}
    for name, p in sorted(link.namedparams()):
        own = rng.normal(size=(comm.size, *p.shape)).astype(np.float32)
        p.grad = cuda.to_gpu(own[comm.rank])
        expected[name] = own.mean(axis=0)
    comm.set_config('allreduce_grad_dtype', dtype)
    comm.multi_node_mean_grad(link)
    for name, p in link.namedparams():
        np.testing.assert_allclose(cuda.to_cpu(p.grad), expected[name], rtol=2e-3, atol=2e-3)


def test_batch_normalization_over_nccl(comm):
    own = np.random.default_rng(comm.rank).normal(size=(4, 6, 5, 7)).astype(np.float32)
    whole = np.concatenate(comm.allgather_obj(own))
    results = []
    for link, x in (
        (L.BatchNormalization(6), whole),
        (MultiNodeBatchNormalization(6, comm, communication_backend='nccl'), own),
    ):
        link.to_device(f'@cupy:{comm.intra_rank}')
        v = chainer.Variable(cuda.to_gpu(x))
        y = link(v)
        F.sum(y**3).backward()
        part = (
            slice(len(own) * comm.rank, len(own) * (comm.rank + 1)) if x is whole else (slice(None))
        )
        results.append([cuda.to_cpu(a) for a in (y.array[part], v.grad[part], link.avg_mean)])
    for ours, theirs in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
