"""The optimizer of all ranks together."""

import chainer
from chainer.optimizer_hooks import WeightDecay


def multi_node_optimizer(link: chainer.Link, comm, momentum: float = 0.9,
                         weight_decay: float = 1e-4):
    """SGD with corrected momentum whose gradients are averaged over all ranks.

    Corrected momentum (Goyal et al., section 3): the velocity holds gradients and the learning
    rate multiplies it at the update, so that changes of the rate act at once.

    All ranks start from the first one's weights. ChainerMN would copy them in place of the first
    update, also after resuming, and lose that update; here it is done beforehand.

    Args:
        link (chainer.Link): What to train, all of its parameters initialized.
        comm (ChainerMN communicator): The ranks.
        momentum (float): Coefficient of the velocity.
        weight_decay (float): Coefficient of the decay of weights. Biases and batch normalization
            have none (Goyal et al., section 5.1); the paper does not say.

    Returns:
        ChainerMN's multi-node optimizer, set up with ``link``.
    """
    import chainermn

    optimizer = chainermn.create_multi_node_optimizer(
        chainer.optimizers.CorrectedMomentumSGD(momentum=momentum), comm)
    optimizer.setup(link)
    for param in link.params():
        if param.ndim > 1 and weight_decay:
            param.update_rule.add_hook(WeightDecay(weight_decay))
    comm.bcast_data(link)
    optimizer.is_changed(link)
    return optimizer
