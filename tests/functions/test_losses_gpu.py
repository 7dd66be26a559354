"""Losses and scores on CuPy arrays equal those on NumPy arrays."""

import chainer
import numpy as np
import pytest
from chainer.backends import cuda

from pfdet.functions.losses import LOSSES, SCORES, loss_function, score_function

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.available, reason='no GPU')]


def random_arrays(background, C=50):
    rng = np.random.default_rng(0)
    x = rng.normal(scale=4, size=(400, C + background)).astype(np.float32)
    t = rng.choice([-1, 0, 1], (400, C), p=[0.1, 0.85, 0.05]).astype(np.int8)
    t[:150] = np.minimum(t[:150], 0)
    t[:10] = -1
    rates = (rng.random((C, C)) * (rng.random((C, C)) < 0.3)).astype(np.float32)
    rates[:5, :5] = 1
    return x, t, rates, rng.uniform(0.5, 2, C).astype(np.float32)


@pytest.mark.parametrize('name', LOSSES)
def test_losses_on_the_gpu(name):
    x, t, rates, weight = random_arrays(LOSSES[name].background)
    results = []
    for to_device in (lambda a: a), cuda.to_gpu:
        v = chainer.Variable(to_device(x))
        # Rates and weights may stay on the CPU.
        loss = loss_function(name, rates, weight, normalize='used')(v, to_device(t))
        loss.backward()
        results.append((float(cuda.to_cpu(loss.array)), cuda.to_cpu(v.grad)))
    (cpu, cpu_grad), (gpu, gpu_grad) = results
    assert gpu == pytest.approx(cpu, rel=1e-5)
    assert gpu_grad.dtype == np.float32
    np.testing.assert_allclose(gpu_grad, cpu_grad, atol=1e-6)


@pytest.mark.parametrize('name', SCORES)
def test_scores_on_the_gpu(name):
    x, _, rates, _ = random_arrays(SCORES[name].background)
    x[:20] *= 50  # denominators underflow if the largest logit has weight 0
    score = score_function(name, rates)
    on_gpu = score(cuda.to_gpu(x))
    assert on_gpu.dtype == np.float32
    np.testing.assert_allclose(cuda.to_cpu(on_gpu), score(x), rtol=1e-4, atol=1e-6)
