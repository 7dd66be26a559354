"""Tests of the communicators and of double buffering."""

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.training.communicators import PackedCommunicator, create_communicator
from pfdet.training.optimizer import multi_node_optimizer

PROGRAM = """
import numpy as np
import pfdet.compat
import chainer, chainermn
from mpi4py import MPI
from pfdet.training import communicators

world = MPI.COMM_WORLD
# Cover separate and packed messages.
communicators._MIN_SEPARATE_SIZE = 1 << 12
naive = chainermn.create_communicator('naive')
packed = communicators.PackedCommunicator(world)
half = communicators.PackedCommunicator(world, 'float16')
assert type(packed.split(0, world.rank)) is communicators.PackedCommunicator

def network(scale=1., dtypes=(np.float32, np.float32)):
    rng = np.random.default_rng(world.rank)
    chain = chainer.Chain()
    with chain.init_scope():
        for k, shape in enumerate([(7,), (40, 40), (3, 3, 5), (1,), (2000,)]):
            p = chainer.Parameter(np.zeros(shape, dtypes[k % 2]))
            p.grad = (rng.normal(size=shape) * scale * 10. ** (-2 * (k % 3))).astype(p.dtype)
            setattr(chain, f'p{k}', p)
        chain.absent = chainer.Parameter(np.zeros(3, np.float32))
        if world.rank == 0:
            chain.absent.grad = np.full(3, scale, np.float32)
    return chain

def grads(comm, *args):
    chain = network(*args)
    comm.multi_node_mean_grad(chain, zero_fill=True)
    return dict((name, p.grad) for name, p in chain.namedparams())

def assert_equal_on_all_ranks(grads):
    for g in grads.values():
        others = world.allgather(g.tobytes())
        assert len(set(others)) == 1

for dtypes in ((np.float32, np.float32), (np.float64, np.float32)):
    expected, result = grads(naive, 1., dtypes), grads(packed, 1., dtypes)
    assert_equal_on_all_ranks(result)
    for name, g in expected.items():
        assert g.dtype == result[name].dtype
        assert abs(g - result[name]).max() <= 1e-6 * abs(g).max(), name

# Equal up to two float16 roundings of 2 ** -11 each, for gradients of any scale.
for scale in 1e-12, 1e-3, 1., 1e6, 1e30:
    expected, result = grads(naive, scale), grads(half, scale)
    assert_equal_on_all_ranks(result)
    for name, g in expected.items():
        size = np.abs(world.allgather(network(scale).__dict__[name[1:]].grad)
                      if name != '/absent' else [[scale]]).max()
        assert abs(g - result[name]).max() <= 2. ** -10 * size, (scale, name)
        assert abs(result[name]).max() > 0
chain = network()
chain.p3.grad[:] = np.inf if world.rank else 1.
half.multi_node_mean_grad(chain, zero_fill=True)
assert not np.isfinite(chain.p3.grad).any() and np.isfinite(chain.p0.grad).all()
chain.cleargrads()
half.multi_node_mean_grad(chain, zero_fill=True)
assert all((p.grad == 0).all() for p in chain.params())
if world.rank == 0:
    print('equal')
"""


@pytest.mark.parametrize('n_rank', [2, 3])
def test_means_equal_those_of_the_naive_communicator(n_rank, mpiexec):
    assert 'equal' in mpiexec(n_rank, PROGRAM).stdout


@pytest.mark.skipif(chainer.backends.cuda.available, reason='for machines without a GPU')
def test_invalid_options_are_one_line():
    for arguments, words in (
        (('nccl',), ['--communicator nccl', 'packed, naive, pure_nccl']),
        (('pure_nccl',), ['--communicator pure_nccl', 'GPU']),
        ((None, 'int8'), ['--allreduce-dtype int8', 'float32']),
        (('naive', 'float16'), ['--allreduce-dtype float16', 'naive', 'packed']),
    ):
        with pytest.raises(InputError) as caught:
            create_communicator(*arguments)
        assert all(word in str(caught.value) for word in words) and '\n' not in str(caught.value)
    assert type(create_communicator()) is PackedCommunicator
    assert create_communicator('packed', 'float16').allreduce_grad_dtype == np.float16


def test_double_buffering_requires_pure_nccl():
    chain = chainer.Chain()
    with pytest.raises(InputError, match='--double-buffering: .*pure_nccl'):
        multi_node_optimizer(chain, create_communicator(), double_buffering=True)


def test_double_buffering_lags_by_one_iteration(monkeypatch):
    """ChainerMN's optimizer with a fake of NCCL; only the first update is lost."""
    from chainermn.communicators import pure_nccl_communicator

    class Nccl(PackedCommunicator):
        def _multi_node_mean_grad_async(self, model, zero_fill, stream):
            self.multi_node_mean_grad(model, zero_fill)

    class Stream:
        null = None

        def __init__(self, non_blocking=False):
            pass

        def synchronize(self):
            pass

    Stream.null = Stream()
    monkeypatch.setattr(chainer.cuda, 'Stream', Stream)
    monkeypatch.setattr(pure_nccl_communicator, 'PureNcclCommunicator', Nccl)
    chain = chainer.Chain()
    with chain.init_scope():
        chain.x = chainer.Parameter(np.array([8.0]))
    comm = Nccl(create_communicator().mpi_comm)
    optimizer = multi_node_optimizer(chain, comm, momentum=0, double_buffering=True)
    optimizer.lr = 0.1
    values = []
    for k in range(6):
        optimizer.update(lambda k=k: chainer.functions.sum(chain.x**2) * (k + 1))
        values.append(chain.x.array[0])
    x = [8.0, 8.0]
    for k in range(5):
        x.append(x[-1] - 0.1 * (k + 1) * 2 * x[k])
    np.testing.assert_allclose(values, x[1:])
