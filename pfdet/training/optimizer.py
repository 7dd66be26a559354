"""The optimizer of all ranks together."""

import chainer
from chainer.optimizer_hooks import WeightDecay

from pfdet.errors import InputError


def multi_node_optimizer(
    link: chainer.Link,
    comm,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    double_buffering: bool = False,
):
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
        double_buffering (bool): All-reduce gradients while the next batch is computed, and update
            with them after that: every update uses the gradients of the iteration before, taken
            at the weights before the last update. The first iteration updates nothing. The
            gradients on their way are not part of a snapshot, so a resumed run loses one update
            and is not equal to an uninterrupted one. Only with the communicator ``'pure_nccl'``.

    Returns:
        ChainerMN's multi-node optimizer, set up with ``link``.

    Raises:
        InputError: The communicator cannot do double buffering.
    """
    import chainermn

    try:
        optimizer = chainermn.create_multi_node_optimizer(
            chainer.optimizers.CorrectedMomentumSGD(momentum=momentum),
            comm,
            double_buffering=double_buffering,
        )
    except ValueError as e:
        raise InputError(
            f'--double-buffering: {e} It needs GPUs and --communicator pure_nccl'
        ) from e
    optimizer.setup(link)
    for param in link.params():
        if param.ndim > 1 and weight_decay:
            param.update_rule.add_hook(WeightDecay(weight_decay))
    comm.bcast_data(link)
    if double_buffering:
        _fill_buffers(optimizer, link)
    else:
        optimizer.is_changed(link)
    return optimizer


def _fill_buffers(optimizer, link: chainer.Link) -> None:
    """Do what ChainerMN does in place of the first update."""
    buffered = link.copy('copy')
    for name, value in (
        ('communicated_target', buffered),
        ('target_params_list', [sorted(link.namedparams()), sorted(buffered.namedparams())]),
    ):
        # Its own way to set an attribute hands it on to the optimizer within.
        object.__setattr__(optimizer, name, value)
