"""The steps of all-reduce algorithms, and their time."""

import math
from dataclasses import dataclass

import numpy as np


def message_sizes(algorithm: str, n_rank: int, n_byte: float) -> np.ndarray:
    """Bytes that a rank sends in each step.

    Args:
        algorithm (str): ``'ring'``: reduce-scatter and all-gather around a ring;
            ``'recursive_doubling'``: partners at distance 1, 2, 4, ... exchange the whole message;
            ``'reduce_scatter_allgather'``: they exchange halves, quarters, ..., and back.
        n_rank (int): Number of ranks; for the latter two a power of two.
        n_byte (float): Bytes of the message.

    Returns:
        array: One element per step; empty for one rank.

    Raises:
        ValueError: The algorithm is unknown, or not defined for this number of ranks.
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
    """The network between the GPUs.

    Attributes:
        gpus_per_node (int): GPUs per node.
        node_bandwidth (float): Bandwidth of a ring within a node, in bytes per second.
        port_bandwidth (float): Bandwidth of all ports of a node together, in bytes per second.
        base (float): Start-up time of an all-reduce, in seconds.
        node_hop, net_hop (float): Latency from a GPU to the next in the same node, and in
            another, in seconds.
    """

    gpus_per_node: int
    node_bandwidth: float
    port_bandwidth: float
    base: float
    node_hop: float
    net_hop: float


def ring(network: Network, n_gpu: int, n_byte: float) -> float:
    """Seconds of one ring through all GPUs, node by node.

    It has :math:`2 (n - 1)` steps of :math:`1 / n` of the message each. As NCCL counts,
    :math:`2 (m - 1)` of them wait for the network between :math:`m` nodes, the others for a
    neighbor in the node. The slowest link, where the ring leaves a node, sets the bandwidth.
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

    Each GPU of a node sends its share of the message around a ring of its peers in the other nodes.
    These rings share the node's ports.
    """
    if n_gpu == 1:
        return 0.0
    n_node = node_count(network, n_gpu)
    n_local = n_gpu // n_node
    seconds = network.base + 2 * (n_local - 1) * (
        network.node_hop + n_byte / n_local / network.node_bandwidth
    )
    return seconds + 2 * (n_node - 1) * (network.net_hop + n_byte / n_node / network.port_bandwidth)


def tree(network: Network, n_gpu: int, n_byte: float) -> float:
    """Seconds of NCCL's double binary tree (since 2.4, 2019): chains in nodes, trees between them.

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
    """Number of nodes with this number of GPUs.

    Raises:
        ValueError: There are several nodes, and not all are full.
    """
    if n_gpu <= network.gpus_per_node:
        return 1
    if n_gpu % network.gpus_per_node:
        raise ValueError(f'{n_gpu} GPUs do not fill nodes of {network.gpus_per_node}')
    return n_gpu // network.gpus_per_node
