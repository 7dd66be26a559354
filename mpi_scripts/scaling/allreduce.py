"""The steps of all-reduce algorithms, and how long they take."""

import math
from dataclasses import dataclass

import numpy as np


def message_sizes(algorithm: str, n_rank: int, n_byte: float) -> np.ndarray:
    """Bytes that a rank sends in each step, one after the other.

    Args:
        algorithm (str): ``'ring'``: reduce-scatter and all-gather around a ring;
            ``'recursive_doubling'``: partners at distance 1, 2, 4, ... exchange everything;
            ``'reduce_scatter_allgather'``: they exchange halves, quarters, ..., and back.
        n_rank (int): Ranks; for the latter two a power of two.
        n_byte (float): The message.

    Returns:
        array: One element a step; none for one rank.

    Raises:
        ValueError: No such algorithm, or it is not defined for so many ranks.
    """
    if n_rank < 1:
        raise ValueError(f'expected at least one rank, not {n_rank}')
    if algorithm == 'ring':
        return np.full(2 * (n_rank - 1), n_byte / n_rank)
    n_step = int(math.log2(n_rank))
    if 2**n_step != n_rank:
        raise ValueError(f'{algorithm} is for powers of two, not {n_rank} ranks')
    if algorithm == 'recursive_doubling':
        return np.full(n_step, float(n_byte))
    if algorithm == 'reduce_scatter_allgather':
        halves = n_byte / 2.0 ** np.arange(1, n_step + 1)
        return np.concatenate([halves, halves[::-1]])
    raise ValueError(f'no such algorithm: {algorithm}')


@dataclass(frozen=True)
class Network:
    """What connects the GPUs.

    Attributes:
        gpus_per_node (int): See there.
        node_bandwidth (float): Bytes a second that go around a ring within a node.
        port_bandwidth (float): Bytes a second that leave a node and enter it, all ports together.
        base (float): Seconds that an all-reduce takes to start.
        node_hop, net_hop (float): Seconds from a GPU to the next in its node, and in another.
    """

    gpus_per_node: int
    node_bandwidth: float
    port_bandwidth: float
    base: float
    node_hop: float
    net_hop: float


def ring(network: Network, n_gpu: int, n_byte: float) -> float:
    """Seconds of one ring through all GPUs, node by node.

    :math:`2 (n - 1)` steps of :math:`1 / n` of the message each. Of these, :math:`2 (m - 1)` wait
    for the network between :math:`m` nodes, the others for a neighbour in the node: so counts
    NCCL. The slowest link, where the ring leaves a node, sets the bandwidth.
    """
    if n_gpu == 1:
        return 0.0
    n_node = node_count(network, n_gpu)
    bandwidth = _slowest_link(network, n_node)
    n_net = 2 * (n_node - 1)
    hops = (2 * (n_gpu - 1) - n_net) * network.node_hop + n_net * network.net_hop
    return network.base + hops + 2 * (n_gpu - 1) / n_gpu * n_byte / bandwidth


def hierarchical(network: Network, n_gpu: int, n_byte: float) -> float:
    """Seconds of a reduce-scatter in every node, rings between nodes, and an all-gather.

    Each GPU of a node takes its share of the message around a ring of its peers in the other nodes;
    they share the node's ports.
    """
    if n_gpu == 1:
        return 0.0
    n_node = node_count(network, n_gpu)
    n_own = n_gpu // n_node
    seconds = network.base + 2 * (n_own - 1) * (
        network.node_hop + n_byte / n_own / network.node_bandwidth
    )
    return seconds + 2 * (n_node - 1) * (network.net_hop + n_byte / n_node / network.port_bandwidth)


def tree(network: Network, n_gpu: int, n_byte: float) -> float:
    """Seconds of NCCL's double binary tree (from 2.4, 2019, on): chains in nodes, trees between.

    Every byte goes up and down once, at the bandwidth of the slowest link.
    """
    if n_gpu == 1:
        return 0.0
    n_node = node_count(network, n_gpu)
    bandwidth = _slowest_link(network, n_node)
    depth = math.ceil(math.log2(n_node))
    hops = 2 * ((n_gpu // n_node - 1) * network.node_hop + depth * network.net_hop)
    return network.base + hops + 2 * n_byte / bandwidth


def _slowest_link(network: Network, n_node: int) -> float:
    if n_node == 1:
        return network.node_bandwidth
    return min(network.node_bandwidth, network.port_bandwidth)


ALGORITHMS = {'ring': ring, 'hierarchical': hierarchical, 'tree': tree}


def node_count(network: Network, n_gpu: int) -> int:
    """Nodes that hold so many GPUs.

    Raises:
        ValueError: They would not be full, and are more than one.
    """
    if n_gpu <= network.gpus_per_node:
        return 1
    if n_gpu % network.gpus_per_node:
        raise ValueError(f'{n_gpu} GPUs do not fill nodes of {network.gpus_per_node}')
    return n_gpu // network.gpus_per_node
