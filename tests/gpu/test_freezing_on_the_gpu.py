"""Frozen batch normalization and stages on the GPU against those on the CPU."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.backends import cuda

from pfdet.links.freezing import FrozenBatchNormalization, freeze_batch_normalization, freeze_stages
from pfdet.links.se_resnext import MiniSEResNeXt

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.available, reason='no GPU')]


def network():
    np.random.seed(0)
    rng = np.random.default_rng(0)
    with chainer.using_config('dtype', np.float64):
        link = MiniSEResNeXt(width=8)
    for _, child in sorted(link.namedlinks()):
        if hasattr(child, 'avg_var'):
            child.avg_mean[...] = rng.normal(0, 0.2, child.avg_mean.shape)
            child.avg_var[...] = rng.uniform(0.5, 1.5, child.avg_var.shape)
    return link


def freeze(link, n):
    freeze_batch_normalization(link)
    freeze_stages(link, n)


@pytest.mark.parametrize('n', [0, 2])
@pytest.mark.parametrize('freeze_on', ['cpu', 'gpu'])
def test_outputs_and_gradients(n, freeze_on):
    x = np.random.default_rng(1).normal(size=(2, 3, 32, 32))
    results = []
    for gpu in False, True:
        link = network()
        if freeze_on == 'cpu':
            freeze(link, n)
        if gpu:
            link.to_gpu()
        if freeze_on == 'gpu':
            freeze(link, n)
        assert any(isinstance(child, FrozenBatchNormalization) for child in link.links())
        link.cleargrads()
        hs = link(cuda.to_gpu(x) if gpu else x)
        sum(F.sum(F.cos(h) * h) for h in hs).backward()
        assert all(isinstance(h.array, cuda.ndarray if gpu else np.ndarray) for h in hs)
        grads = {name: p.grad for name, p in link.namedparams() if p.grad is not None}
        results.append(
            {name: cuda.to_cpu(a) for name, a in grads.items()}
            | {str(k): cuda.to_cpu(h.array) for k, h in enumerate(hs)}
        )
    cpu, gpu = results
    assert cpu.keys() == gpu.keys() and len(cpu) > 10
    for name, value in cpu.items():
        np.testing.assert_allclose(gpu[name], value, rtol=1e-6, atol=1e-8 * abs(value).max())
