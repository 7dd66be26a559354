"""Time of a training step, and its two parameters that are fitted to the paper."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from scaling.allreduce import ALGORITHMS, Network
from scaling.detector import Detector
from scaling.image_sizes import Costs, expected_step, image_costs
from scaling.inputs import Inputs

PAPER_GPUS, BASELINE_GPUS = 512, 8
# Share of the backward pass in both passes
_BACKWARD = 2 / 3


@dataclass(frozen=True)
class Setting:
    """How to train; the defaults are the paper's or, where it does not say, ChainerMN's.

    Attributes:
        draw (str): Whether GPUs share image sizes, see
            :func:`~scaling.image_sizes.expected_step`. The paper does not mention it.
        gradient_bytes (int): Bytes per gradient entry: 4 or, with float16, 2.
        overlap (bool): Gradients are all-reduced during the backward pass, as long as it lasts.
        bn_group (int): GPUs that share batch statistics; 0 for all.
        algorithm (str): A key of :data:`~scaling.allreduce.ALGORITHMS`. NCCL had only rings until
            2.4, which came after the paper.
    """

    draw: str = 'each'
    gradient_bytes: int = 4
    overlap: bool = False
    bn_group: int = 0
    algorithm: str = 'ring'


class Fit(NamedTuple):
    """The fitted parameters.

    Attributes:
        tflops (float): Operations per second and GPU, in 1e12.
        hop_factor (float): Factor of the latencies from GPU to GPU.
    """

    tflops: float
    hop_factor: float


class Parts(NamedTuple):
    """Seconds of a step.

    Attributes:
        compute (float): Computation of an average image.
        waiting (float): Wait for the GPU with the most expensive image, or the slowest GPU.
        batch_statistics (float): All-reduces of all batch normalizations, forward and backward.
        gradients (float): All-reduce of the gradients, without the part that overlaps with the
            backward pass.
    """

    compute: float
    waiting: float
    batch_statistics: float
    gradients: float


def costs(detector: Detector, passes: float = Inputs.passes) -> Costs:
    """Operations of a training step in 1e12 per image, by image size."""

    def cost(pixels: np.ndarray) -> np.ndarray:
        forward = detector.flops_per_pixel * pixels + detector.flops_per_image
        return passes * forward / 1e12

    return image_costs(cost, detector.min_size, detector.max_size, detector.stride)


@lru_cache(4096)
def operations(detector: Detector, passes: float, n_gpu: int, draw: str, jitter: float) -> float:
    """Operations in 1e12 on the slowest GPU, for which the step waits."""
    return expected_step(costs(detector, passes), n_gpu, draw, jitter)


def step_parts(detector: Detector, inputs: Inputs, fit: Fit, setting: Setting, n_gpu: int) -> Parts:
    """Parts of the time of a step with one image per GPU."""
    average = operations(detector, inputs.passes, 1, 'all', 0.0)
    slowest = operations(detector, inputs.passes, n_gpu, setting.draw, inputs.jitter)
    gradients = gradient_seconds(detector, inputs, fit.hop_factor, setting, n_gpu)
    if setting.overlap:
        gradients = max(0.0, gradients - _BACKWARD * slowest / fit.tflops)
    return Parts(
        average / fit.tflops,
        (slowest - average) / fit.tflops,
        batch_statistics_seconds(detector, inputs, fit.hop_factor, setting, n_gpu),
        gradients,
    )


def step_seconds(
    detector: Detector, inputs: Inputs, fit: Fit, setting: Setting, n_gpu: int
) -> float:
    """Seconds of a step."""
    return sum(step_parts(detector, inputs, fit, setting, n_gpu))


def batch_statistics_seconds(
    detector: Detector, inputs: Inputs, hop_factor: float, setting: Setting, n_gpu: int
) -> float:
    """Seconds of the all-reduces of all batch normalizations.

    Every layer waits for an all-reduce of two numbers per channel in the forward pass (mean and
    mean square) and in the backward pass (gradients of scale and shift), always in float32.
    """
    n_shared = min(n_gpu, setting.bn_group or n_gpu)
    own = network(inputs, hop_factor, n_gpu=n_shared, small=True)
    reduce = ALGORITHMS[setting.algorithm]
    return sum(
        n_layer * 2 * reduce(own, n_shared, 2 * 4 * n_channel)
        for n_channel, n_layer in Counter(detector.bn_channels).items()
    )


def gradient_seconds(
    detector: Detector, inputs: Inputs, hop_factor: float, setting: Setting, n_gpu: int
) -> float:
    """Seconds of the all-reduce of the gradients in one message."""
    own = network(inputs, hop_factor, n_gpu=n_gpu, small=False)
    return ALGORITHMS[setting.algorithm](own, n_gpu, setting.gradient_bytes * detector.n_parameter)


def network(inputs: Inputs, hop_factor: float, n_gpu: int, small: bool) -> Network:
    """The network between this number of GPUs, for small or for large messages."""
    share = inputs.small_bandwidth if small else 1.0
    alone = n_gpu <= inputs.gpus_per_node
    node_hop, net_hop = inputs.large_node_hop, inputs.large_net_hop
    if small:
        node_hop = inputs.node_hop * (1 if alone else inputs.node_hop_factor)
        net_hop = inputs.net_hop
    return Network(
        int(inputs.gpus_per_node),
        1e9 * share * inputs.node_bandwidth,
        1e9 * share * inputs.ports * inputs.port_bandwidth * inputs.port_efficiency,
        1e-6 * inputs.base,
        1e-6 * hop_factor * node_hop,
        1e-6 * hop_factor * net_hop,
    )


def fit_to_paper(detector: Detector, inputs: Inputs, setting: Setting) -> Fit:
    """Fit both parameters to the paper's hours and efficiency.

    The time of a step is linear in the seconds per operation and in the factor of the latencies
    (the setting must not overlap), so the paper's two numbers determine both. A negative factor
    means that the inputs are impossible.
    """
    ends = BASELINE_GPUS, PAPER_GPUS
    slowest = [operations(detector, inputs.passes, n, setting.draw, inputs.jitter) for n in ends]
    without, once = (
        np.array(
            [
                batch_statistics_seconds(detector, inputs, factor, setting, n)
                + gradient_seconds(detector, inputs, factor, setting, n)
                for n in ends
            ]
        )
        for factor in (0.0, 1.0)
    )
    wanted = paper_step(detector, inputs) * np.array([inputs.efficiency, 1.0])
    matrix = np.stack([slowest, once - without], axis=1)
    seconds, factor = np.linalg.solve(matrix, wanted - without)
    return Fit(float(1 / seconds), float(factor))


def fit_hours_only(detector: Detector, inputs: Inputs, setting: Setting) -> Fit:
    """Fit the rate to the paper's hours, with the latencies of the inputs."""
    communication = batch_statistics_seconds(
        detector, inputs, 1.0, setting, PAPER_GPUS
    ) + gradient_seconds(detector, inputs, 1.0, setting, PAPER_GPUS)
    slowest = operations(detector, inputs.passes, PAPER_GPUS, setting.draw, inputs.jitter)
    return Fit(slowest / (paper_step(detector, inputs) - communication), 1.0)


def paper_step(detector: Detector, inputs: Inputs) -> float:
    """Seconds of an iteration in the paper."""
    return inputs.hours * 3600 / (detector.epochs * inputs.n_image / inputs.batch_size)


def efficiency(
    detector: Detector,
    inputs: Inputs,
    fit: Fit,
    setting: Setting,
    n_gpu: int,
    against: Setting | None = None,
) -> float:
    """Images per second and GPU, relative to one node.

    Args:
        detector (Detector): Sizes of the network.
        inputs (Inputs): Inputs of the model.
        fit (Fit): Fitted parameters.
        setting (Setting): How to train.
        n_gpu (int): Number of GPUs.
        against (Setting): How the one node trains; by default as ``setting``.
    """
    one_node = step_seconds(detector, inputs, fit, against or setting, BASELINE_GPUS)
    return one_node / step_seconds(detector, inputs, fit, setting, n_gpu)


def hours(detector: Detector, inputs: Inputs, fit: Fit, setting: Setting, n_gpu: int) -> float:
    """Hours for the recipe's epochs with one image per GPU."""
    n_step = detector.epochs * inputs.n_image / n_gpu
    return n_step * step_seconds(detector, inputs, fit, setting, n_gpu) / 3600


# Options beyond the paper's setting, one by one and combined
OPTIONS = {
    'as in the paper': {},
    'float16 all-reduce': {'gradient_bytes': 2},
    'overlap with backward': {'overlap': True},
    'BN groups of 8': {'bn_group': 8},
    'shared sizes': {'draw': 'all'},
    'all four': {'gradient_bytes': 2, 'overlap': True, 'bn_group': 8, 'draw': 'all'},
    'hierarchical rings': {'algorithm': 'hierarchical'},
    'trees (NCCL since 2.4)': {'algorithm': 'tree'},
}


def with_option(setting: Setting, name: str) -> Setting:
    """A setting with one of :data:`OPTIONS` switched on."""
    return dataclasses.replace(setting, **OPTIONS[name])
