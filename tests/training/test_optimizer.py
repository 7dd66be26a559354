"""The multi-node optimizer against the formulas, on one rank."""

import chainer
import chainermn
import numpy as np
import pytest

from pfdet.training.optimizer import multi_node_optimizer


class Quadratic(chainer.Chain):
    """Half of the squared distance of the parameters from zero: the gradient is the parameter."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.W = chainer.Parameter(np.array([[2.0, -1.0]], np.float64))
            self.b = chainer.Parameter(np.array([0.5], np.float64))

    def forward(self):
        return sum(chainer.functions.sum(p * p) for p in (self.W, self.b)) / 2


@pytest.mark.parametrize('weight_decay', [0.0, 0.1])
def test_velocity_holds_gradients_and_the_rate_multiplies_at_the_update(weight_decay):
    """Goyal et al., section 3: a new rate applies at once, to all of the velocity."""
    link = Quadratic()
    comm = chainermn.create_communicator('naive')
    optimizer = multi_node_optimizer(link, comm, momentum=0.9, weight_decay=weight_decay)
    value = {'W': link.W.array.copy(), 'b': link.b.array.copy()}
    velocity = {name: np.zeros_like(array) for name, array in value.items()}
    for rate in (0.1, 0.1, 0.001, 0.5):
        optimizer.lr = rate
        optimizer.update(lambda: link())
        for name, array in value.items():
            # Weight decay is not applied to biases.
            gradient = array + (weight_decay * array if name == 'W' else 0)
            velocity[name] = 0.9 * velocity[name] + gradient
            array -= rate * velocity[name]
            np.testing.assert_allclose(getattr(link, name).array, array, rtol=1e-12)
