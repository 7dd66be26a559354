"""Everything that the model is told, with where it comes from and how far it may be off."""

import dataclasses
from dataclasses import dataclass
from typing import Any


def _input(value: float, low: float, high: float, unit: str, source: str) -> Any:
    return dataclasses.field(
        default=value, metadata={'low': low, 'high': high, 'unit': unit, 'source': source}
    )


@dataclass(frozen=True)
class Inputs:
    """What does not come from the network itself.

    The fields' metadata have ``unit``, ``source``, and ``low`` and ``high``, between which the
    truth should be. What NCCL's cost table says is what the library itself expects of hardware when
    it chooses an algorithm.
    """

    hours: float = _input(
        33.0, 30.0, 33.5, 'h', 'paper, 3.2; lower if some of them were not iterations'
    )
    efficiency: float = _input(0.83, 0.825, 0.835, '', 'paper, 3.2: 512 GPUs against 8; rounded')
    n_image: float = _input(
        1_674_979, 1_674_979, 1_674_979, '', 'training images of the 2018 challenge'
    )
    batch_size: float = _input(512, 512, 512, '', 'paper, 1: an image a GPU')
    gpus_per_node: float = _input(8, 8, 8, '', 'paper, 3.1')
    passes: float = _input(
        3.0,
        3.0,
        3.0,
        '',
        'forward and backward over forward; customary. Only scales the fitted rate',
    )
    ports: float = _input(1, 1, 4, '', 'assumed; paper, 3.1, says EDR but not how many ports')
    port_bandwidth: float = _input(12.5, 12.5, 12.5, 'GB/s', 'EDR: 100 Gbit/s')
    port_efficiency: float = _input(0.85, 0.7, 0.95, '', 'assumed: of it for data')
    node_bandwidth: float = _input(
        120.0, 10.0, 130.0, 'GB/s', 'V100 data sheet: 150 by NVLink, less overhead; low: PCIe'
    )
    base: float = _input(
        3.6, 3.6, 12.0, 'us', "NCCL's cost table (2020): to start; high: later ones"
    )
    node_hop: float = _input(
        0.47, 0.4, 1.0, 'us', "NCCL's cost table: small messages by NVLink; low: 2019; high: PCIe"
    )
    node_hop_factor: float = _input(
        1.8, 1.0, 2.25, '', "NCCL's cost table: the same on several nodes; high: 2019"
    )
    net_hop: float = _input(
        2.7,
        0.9,
        5.0,
        'us',
        "NCCL's cost table: small messages between nodes; low: 2019; high: as for trees",
    )
    small_bandwidth: float = _input(
        0.25, 0.25, 0.25, '', "NCCL's cost table: of bandwidth, in its protocol for small messages"
    )
    large_node_hop: float = _input(
        3.4, 3.4, 5.7, 'us', "NCCL's cost table: large messages; high: PCIe"
    )
    large_net_hop: float = _input(
        9.6, 6.6, 9.6, 'us', "NCCL's cost table: large messages; low: 2019"
    )
    jitter: float = _input(
        0.0, 0.0, 0.02, '', 'assumed: deviation of the time of one and the same step, a share of it'
    )


def uncertain() -> dict[str, tuple[float, float]]:
    """The inputs that may be off, with their low and high values."""
    return {
        f.name: (f.metadata['low'], f.metadata['high'])
        for f in dataclasses.fields(Inputs)
        if f.metadata['low'] < f.metadata['high']
    }
