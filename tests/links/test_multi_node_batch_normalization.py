PROGRAM = '''
import pfdet.compat, numpy as np, chainer, chainermn
from pfdet import recipes
from pfdet.recipes import build
from pfdet.links.multi_node_batch_normalization import use_multi_node_batch_normalization

comm = chainermn.create_communicator('naive')
network = build.detector(recipes.override(recipes.find('mini'), ['dtype=float64']), 5, seed=3)
chains = list(network.extractor.base.layer_names)
one = network.copy('copy')
use_multi_node_batch_normalization(network, comm)
assert network.extractor.base.layer_names == chains
kinds = {type(l).__name__ for l in network.links()}
assert 'MultiNodeBatchNormalization' in kinds and 'BatchNormalization' not in kinds, kinds

x = np.random.default_rng(0).normal(size=(4, 3, 64, 64))
def run(network, x):
    hs = network.extractor(x)
    loss = sum(chainer.functions.sum(h ** 3) for h in hs) / len(x)
    network.cleargrads()
    loss.backward()
    return hs

hs = run(network, x[comm.rank::comm.size])
comm.multi_node_mean_grad(network)
expected = run(one, x)
for a, b in zip(hs, expected):
    b = b.array[comm.rank::comm.size]
    assert abs(a.array - b).max() < 1e-8 * abs(b).max(), abs(a.array - b).max() / abs(b).max()
params = dict(one.namedparams())
for name, p in network.namedparams():
    q = params[name]
    if q.grad is not None:
        assert abs(p.grad - q.grad).max() < 1e-6 * abs(q.grad).max() + 1e-9, (
            name, abs(p.grad - q.grad).max(), abs(q.grad).max())
stats = dict(one.namedlinks())
for name, l in network.namedlinks():
    if hasattr(l, 'avg_mean'):
        assert np.allclose(l.avg_mean, stats[name].avg_mean, rtol=1e-6, atol=1e-9), name
print('equal')
'''


def test_two_ranks_equal_one_with_the_whole_batch(mpiexec):
    assert mpiexec(2, PROGRAM).stdout.count('equal') == 2
