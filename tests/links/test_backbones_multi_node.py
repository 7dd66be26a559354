import pytest

# SE-ResNeXt is in test_multi_node_batch_normalization.py.
PROGRAM = """
import pfdet.compat, numpy as np, chainer, chainermn
from pfdet.links.efficientnet import EfficientNet
from pfdet.links.multi_node_batch_normalization import use_multi_node_batch_normalization
from pfdet.links.resnet import ResNet
from pfdet.links.senet import SENet

from pfdet.cpu.install import install

install()
comm = chainermn.create_communicator('naive')
x = np.random.default_rng(0).normal(size=(4, 3, 64, 64))

def run(network, x):
    hs = network(x)
    network.cleargrads()
    (sum(chainer.functions.sum(h ** 3) for h in hs) / len(x)).backward()
    return hs

def close(a, b, name):
    assert abs(a - b).max() <= 1e-5 * abs(b).max() + 1e-9, (name, abs(a - b).max(), abs(b).max())

for build in [lambda: ResNet((1, 1, 1, 1), 32, 8), lambda: SENet((1, 2, 1, 1), 4, 32),
              lambda: EfficientNet(0.25, 0.5)]:
    np.random.seed(3)
    with chainer.using_config('dtype', np.float64):
        one = build()
    network = one.copy('copy')
    use_multi_node_batch_normalization(network, comm)
    kinds = {type(l).__name__ for l in network.links()}
    assert 'MultiNodeBatchNormalization' in kinds and 'BatchNormalization' not in kinds, kinds
    network.use(network.conventions)
    expected = run(one, x)
    for a, b in zip(run(network, x[comm.rank::comm.size]), expected):
        close(a.array, b.array[comm.rank::comm.size], 'feature map')
    comm.multi_node_mean_grad(network)
    params, links = dict(one.namedparams()), dict(one.namedlinks())
    for name, p in network.namedparams():
        close(p.grad, params[name].grad, name)
    for name, l in network.namedlinks():
        if hasattr(l, 'avg_mean'):
            assert l.eps == links[name].eps == network.conventions.bn_eps
            close(l.avg_mean, links[name].avg_mean, name)
            close(l.avg_var, links[name].avg_var, name)
print('equal')
"""


@pytest.mark.parametrize('n_rank', [2, 4])
def test_ranks_equal_one_rank_with_the_whole_batch(n_rank, mpiexec):
    assert mpiexec(n_rank, PROGRAM).stdout.count('equal') == n_rank
