"""The inputs of the model, with their sources and ranges."""

import dataclasses
from dataclasses import dataclass
from typing import Any


def _input(value: float, low: float, high: float, unit: str, source: str) -> Any:
    return dataclasses.field(
        default=value, metadata={'low': low, 'high': high, 'unit': unit, 'source': source}
    )


@dataclass(frozen=True)
class Inputs:
    """Inputs that are not counted from the network.

    The metadata of a field are ``unit``, ``source``, and ``low`` and ``high``, the range of
    plausible values. NCCL's cost table holds the latencies that NCCL assumes when it chooses an
    algorithm.
    """

    hours: float = _input(33.0, 30.0, 33.5, 'h', 'paper, 3.2; lower if they include other work')
    efficiency: float = _input(0.83, 0.825, 0.835, '', 'paper, 3.2: 512 GPUs against 8; rounded')
    n_image: float = _input(
        1_674_979, 1_674_979, 1_674_979, '', 'training images of the 2018 challenge'
    )
    batch_size: float = _input(512, 512, 512, '', 'paper, 1: one image per GPU')
    gpus_per_node: float = _input(8, 8, 8, '', 'paper, 3.1')
    passes: float = _input(
        3.0,
        3.0,
        3.0,
        '',
        'forward and backward over forward; customary; only scales the fitted rate',
    )
    ports: float = _input(1, 1, 4, '', 'assumed; paper, 3.1, names EDR but not the number of ports')
    port_bandwidth: float = _input(12.5, 12.5, 12.5, 'GB/s', 'EDR: 100 Gbit/s')
    port_efficiency: float = _input(0.85, 0.7, 0.95, '', 'assumed: usable share')
    node_bandwidth: float = _input(
        120.0, 10.0, 130.0, 'GB/s', 'V100 data sheet: 150 by NVLink, less overhead; low: PCIe'
    )
    base: float = _input(
        3.6, 3.6, 12.0, 'us', "NCCL's cost table (2020): start-up; high: later tables"
    )
    node_hop: float = _input(
        0.47, 0.4, 1.0, 'us', "NCCL's cost table: small messages by NVLink; low: 2019; high: PCIe"
    )
    node_hop_factor: float = _input(
        1.8, 1.0, 2.25, '', "NCCL's cost table: factor on several nodes; high: 2019"
    )
    net_hop: float = _input(
        2.7,
        0.9,
        5.0,
        'us',
        "NCCL's cost table: small messages between nodes; low: 2019; high: as for trees",
    )
    small_bandwidth: float = _input(
        0.25,
        0.25,
        0.25,
        '',
        "NCCL's cost table: share of bandwidth for small messages",
    )
    large_node_hop: float = _input(
        3.4, 3.4, 5.7, 'us', "NCCL's cost table: large messages; high: PCIe"
    )
    large_net_hop: float = _input(
        9.6, 6.6, 9.6, 'us', "NCCL's cost table: large messages; low: 2019"
    )
    jitter: float = _input(
        0.0, 0.0, 0.02, '', 'assumed: relative standard deviation of the time of the same step'
    )


def uncertain() -> dict[str, tuple[float, float]]:
    """Inputs with a range, with their low and high values."""
    return {
        f.name: (f.metadata['low'], f.metadata['high'])
        for f in dataclasses.fields(Inputs)
        if f.metadata['low'] < f.metadata['high']
    }
