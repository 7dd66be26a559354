"""Batch normalization over the images of all ranks or of groups of ranks."""

import warnings
from typing import Any

import chainer
import chainer.links as L

from pfdet.errors import InputError
from pfdet.links.replacement import replace_links


def group_of_ranks(comm: Any, size: int = 0) -> Any:
    """Create the communicator of the ranks that share batch statistics with this rank.

    PFDet shares statistics over all ranks (section 2.1). This costs two all-reduce latencies over
    the whole machine per layer. Groups need smaller all-reduces. A group consists of consecutive
    ranks. Because launchers fill one node after another, a group stays within a node if its size
    divides the number of ranks per node.

    Args:
        comm (ChainerMN communicator): Communicator of all ranks.
        size (int): Ranks per group; 0 for all.

    Returns:
        ChainerMN communicator: A communicator of the same kind.

    Raises:
        InputError: ``size`` does not divide the number of ranks.
    """
    if size == 0 or size == comm.size:
        return comm
    if size < 0 or comm.size % size:
        raise InputError(
            f'--bn-group-size {size}: expected 0, or a divisor of the number of ranks, {comm.size}'
        )
    return comm.split(comm.rank // size, comm.rank)


def use_multi_node_batch_normalization(link: chainer.Link, comm: Any) -> None:
    """Replace every batch normalization in a network by ChainerMN's multi-node version.

    PFDet shares batch statistics across nodes (section 2.1; MegDet, section 3.2). The network is
    modified in place. Parameters and running statistics are copied, so weights can be loaded
    before. Frozen batch normalization (:mod:`pfdet.links.freezing`) has no batch statistics, so it
    stays.

    Args:
        link (chainer.Link): The network.
        comm (ChainerMN communicator): The ranks that share statistics, see
            :func:`group_of_ranks`. All ranks have the same weight, so their batches must have the
            same shape.
    """
    from chainermn.links import MultiNodeBatchNormalization

    def multi_node(child: chainer.Link) -> chainer.Link | None:
        if type(child) is not L.BatchNormalization:
            return None
        with warnings.catch_warnings():
            # ChainerMN warns that this link is experimental.
            warnings.simplefilter('ignore', FutureWarning)
            new = MultiNodeBatchNormalization(
                child.avg_mean.shape,
                comm,
                decay=child.decay,
                eps=child.eps,
                dtype=child.avg_mean.dtype,
                use_gamma=child.gamma is not None,
                use_beta=child.beta is not None,
            )
        new.copyparams(child)
        return new

    replace_links(link, multi_node)
