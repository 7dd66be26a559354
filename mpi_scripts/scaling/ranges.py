"""Ranges of the results over readings of the paper and inputs."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scaling.detector import Detector
from scaling.inputs import Inputs, uncertain
from scaling.step import (
    OPTIONS,
    Fit,
    Setting,
    efficiency,
    fit_hours_only,
    fit_to_paper,
    with_option,
)

# The paper does not say whether GPUs shared image sizes.
READINGS = {
    'sizes drawn by each GPU': Setting(draw='each'),
    'edge length shared': Setting(draw='edge'),
    'sizes shared': Setting(draw='all'),
}
# NCCL's cost table of 2019: on several nodes, every step of a ring costs as much as one between
# nodes.
EARLY_TABLE = {
    'node_hop': 0.4,
    'node_hop_factor': 0.9 / 0.4,
    'net_hop': 0.9,
    'large_node_hop': 6.6,
    'large_net_hop': 6.6,
}


def likeliest_reading(detector: Detector, inputs: Inputs) -> tuple[Setting, Fit]:
    """The first reading that is possible, and its fit to the paper."""
    fits = [(setting, fit_to_paper(detector, inputs, setting)) for setting in READINGS.values()]
    return next((setting, fit) for setting, fit in fits if fit.hop_factor > 0)


class Variation(NamedTuple):
    """One combination of a reading and inputs.

    Attributes:
        name (str): What differs from the defaults.
        inputs (Inputs): All inputs.
        setting (Setting): The paper's training by this reading.
        fit (Fit): The fit to the paper with these.
    """

    name: str
    inputs: Inputs
    setting: Setting
    fit: Fit


def variations(detector: Detector) -> Iterator[Variation]:
    """Every reading with the default inputs, and with each input low and high."""
    for reading, setting in READINGS.items():
        yield Variation(reading, Inputs(), setting, fit_to_paper(detector, Inputs(), setting))
        for name, ends in uncertain().items():
            for value in ends:
                inputs = dataclasses.replace(Inputs(), **{name: value})
                if inputs == Inputs():
                    continue
                yield Variation(
                    f'{reading}, {name} {value:g}',
                    inputs,
                    setting,
                    fit_to_paper(detector, inputs, setting),
                )


def efficiency_ranges(
    detector: Detector, gpus: Sequence[int]
) -> dict[str, list[tuple[float, float]]]:
    """Lowest and highest efficiency of every option over all possible variations.

    Returns:
        dict: From an option to one pair per number of GPUs. Efficiency is images per second and
        GPU, relative to eight GPUs as in the paper.
    """
    possible = [v for v in variations(detector) if v.fit.hop_factor >= 0]
    ranges = {}
    for option in OPTIONS:
        values = [
            [
                efficiency(detector, v.inputs, v.fit, with_option(v.setting, option), n, v.setting)
                for n in gpus
            ]
            for v in possible
        ]
        ranges[option] = [(min(column), max(column)) for column in zip(*values, strict=True)]
    return ranges


def without_fitting_latency(detector: Detector, setting: Setting) -> tuple[float, float]:
    """Efficiency at 512 GPUs when only the paper's hours are fitted.

    Returns:
        pair: With the latencies of NCCL's cost table of 2020, and with those of 2019.
    """
    results = []
    for changes in {}, EARLY_TABLE:
        inputs = dataclasses.replace(Inputs(), **changes)
        fit = fit_hours_only(detector, inputs, setting)
        results.append(efficiency(detector, inputs, fit, setting, 512))
    return results[0], results[1]
