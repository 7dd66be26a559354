"""The multi-node optimizer."""

import chainer
from chainer.optimizer_hooks import WeightDecay

from pfdet.errors import InputError
from pfdet.links.freezing import frozen_links
from pfdet.training.loss_scale import ScaledMomentumSGD


def multi_node_optimizer(
    link: chainer.Link,
    comm,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    double_buffering: bool = False,
    loss_scaling: bool = False,
):
    """SGD with corrected momentum whose gradients are averaged over all ranks.

    With corrected momentum (Goyal et al., section 3), the velocity accumulates gradients, and the
    learning rate is applied at the update. So a change of the learning rate takes effect at once.

    All ranks start from the weights of the first rank. ChainerMN broadcasts them in place of the
    first update, also after resuming, and that update is lost. Here they are broadcast before.

    Args:
        link (chainer.Link): The link to train, with all parameters initialized. Frozen parts
            (:mod:`pfdet.links.freezing`) are not updated.
        comm (ChainerMN communicator): The ranks.
        momentum (float): Coefficient of the velocity.
        weight_decay (float): Weight decay. It is not applied to biases and batch normalization
            (Goyal et al., section 5.1); PFDet does not specify this.
        double_buffering (bool): All-reduce the gradients while the next batch is processed. Every
            update then uses the gradients of the previous iteration, and the first iteration
            updates nothing. Gradients in flight are not part of a snapshot, so a resumed run loses
            one update and differs from an uninterrupted run. Requires the communicator
            ``'pure_nccl'``.

        loss_scaling (bool): Scale the loss, for mixed precision
            (:mod:`pfdet.training.loss_scale`).

    Returns:
        ChainerMN's multi-node optimizer, set up with ``link``.

    Raises:
        InputError: The communicator cannot do double buffering, or the loss is scaled.
    """
    import chainermn

    if loss_scaling and double_buffering:
        raise InputError(
            '--double-buffering: does not go with dtype=mixed16, because the gradients of an '
            'iteration were scaled before the scale was last changed'
        )
    sgd = ScaledMomentumSGD if loss_scaling else chainer.optimizers.CorrectedMomentumSGD
    try:
        optimizer = chainermn.create_multi_node_optimizer(
            sgd(momentum=momentum),
            comm,
            double_buffering=double_buffering,
        )
    except ValueError as e:
        raise InputError(
            f'--double-buffering: {e} It needs GPUs and --communicator pure_nccl'
        ) from e
    optimizer.setup(link)
    for frozen in frozen_links(link):
        frozen.disable_update()
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
    """Create the buffers that ChainerMN would create in place of the first update."""
    buffered = link.copy('copy')
    for name, value in (
        ('communicated_target', buffered),
        ('target_params_list', [sorted(link.namedparams()), sorted(buffered.namedparams())]),
    ):
        # The optimizer's own __setattr__ would set the attribute of the wrapped optimizer.
        object.__setattr__(optimizer, name, value)
