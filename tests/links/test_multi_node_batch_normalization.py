import pytest

PROGRAM = """
import sys
from pfdet import recipes
import chainer, chainermn
import numpy as np
import chainer.functions as F
from pfdet.training import build
from pfdet.links.multi_node_batch_normalization import use_multi_node_batch_normalization

comm = chainermn.create_communicator('naive')
# PSP, five scales, batch normalization in pyramid and head, context
recipe = recipes.override(recipes.find('table1-context', 'mini'), ['dtype=float64'])
network = build.detector(recipe, 5, seed=3)
layers = list(network.extractor.base.layer_names)
one = network.copy('copy')
use_multi_node_batch_normalization(network, comm)
assert network.extractor.base.layer_names == layers
kinds = {type(link).__name__ for link in network.links()}
assert 'MultiNodeBatchNormalization' in kinds and 'BatchNormalization' not in kinds, kinds

rng = np.random.default_rng(0)
x = rng.normal(size=(4, 3, 128, 128))
corner = rng.uniform(0, 64, (4, 6, 2))
rois = np.concatenate([corner, corner + rng.uniform(8, 64, (4, 6, 2))], axis=2)

def run(network, images):
    hs = network.extractor(x[images])
    n = len(x[images])
    outputs = network.head(
        hs, rois[images].reshape(-1, 4), np.repeat(np.arange(n, dtype=np.int32), 6))
    loss = (sum(F.sum(h ** 3) for h in hs) + sum(F.sum(h ** 2) for h in outputs)) / n
    network.cleargrads()
    loss.backward()
    return [h.array for h in hs] + [h.array.reshape(n, -1) for h in outputs]

local = slice(comm.rank, None, comm.size)
ours = run(network, local)
comm.multi_node_mean_grad(network)
expected = run(one, slice(None))
for a, b in zip(ours, expected):
    assert abs(a - b[local]).max() < 1e-5 * abs(b).max(), abs(a - b[local]).max() / abs(b).max()
params = dict(one.namedparams())
n_compared = 0
for name, p in network.namedparams():
    g = params[name].grad
    if g is not None:
        n_compared += 1
        assert abs(p.grad - g).max() < 1e-5 * abs(g).max() + 1e-9, (
            name, abs(p.grad - g).max(), abs(g).max())
assert n_compared > 100, n_compared
stats = dict(one.namedlinks())
for name, link in network.namedlinks():
    if hasattr(link, 'avg_mean'):
        for key in 'avg_mean', 'avg_var':
            a, b = getattr(link, key), getattr(stats[name], key)
            assert abs(a - b).max() < 1e-5 * abs(b).max() + 1e-9, (name, key)
if comm.rank == 0:
    print('equal')
"""


@pytest.mark.parametrize('n_rank', [2, 4])
def test_ranks_equal_one_rank_with_the_whole_batch(n_rank, mpiexec):
    """Outputs, gradients and running statistics of backbone, PSP, pyramid and head."""
    assert 'equal' in mpiexec(n_rank, PROGRAM).stdout
