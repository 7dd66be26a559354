"""Batch normalization over the images of all ranks, or of groups of ranks."""

import warnings

import chainer
import chainer.links as L

from pfdet.errors import InputError


def group_of_ranks(comm, size: int = 0):
    """The ranks that share batch statistics with this one.

    PFDet shares them over all ranks (section 2.1), at the price of two latencies of the whole
    machine a layer; groups ask for fewer and nearer ones. They are ranks in a row: as launchers
    fill one node after the other, a group whose size divides a node's ranks stays within the node.

    Args:
        comm (ChainerMN communicator): All ranks.
        size (int): Ranks of a group; 0 for all.

    Returns:
        ChainerMN communicator: Of the same kind.

    Raises:
        InputError: The ranks cannot be cut into such groups.
    """
    if size == 0 or size == comm.size:
        return comm
    if size < 0 or comm.size % size:
        raise InputError(
            f'--bn-group-size {size}: expected 0, or a divisor of the number of ranks, {comm.size}'
        )
    return comm.split(comm.rank // size, comm.rank)


def use_multi_node_batch_normalization(link: chainer.Link, comm) -> None:
    """Replace, in place, every batch normalization by ChainerMN's over all ranks.

    PFDet, section 2.1: batch statistics shared across nodes (MegDet, section 3.2). Parameters and
    running statistics are carried over, so links with loaded weights can be converted.

    Args:
        link (chainer.Link): The network.
        comm (ChainerMN communicator): The ranks that share their statistics, see
            :func:`group_of_ranks`. A rank that has more images or places than another counts no
            more than it: batches must be of one size.
    """
    from chainermn.links import MultiNodeBatchNormalization

    for chain in [chain for chain in link.links() if isinstance(chain, chainer.Chain)]:
        for child in list(chain.children()):
            if type(child) is not L.BatchNormalization:
                continue
            with warnings.catch_warnings():
                # "experimental" since 2017
                warnings.simplefilter('ignore', FutureWarning)
                new = MultiNodeBatchNormalization(
                    child.avg_mean.shape,
                    comm,
                    decay=child.decay,
                    eps=child.eps,
                    dtype=child.avg_mean.dtype,
                    use_gamma=hasattr(child, 'gamma'),
                    use_beta=hasattr(child, 'beta'),
                )
            new.copyparams(child)
            # A sequential chain runs its layers in the order of registration.
            order = list(getattr(chain, 'layer_names', ()))
            delattr(chain, child.name)
            with chain.init_scope():
                setattr(chain, child.name, new)
            if order:
                chain.layer_names = order
