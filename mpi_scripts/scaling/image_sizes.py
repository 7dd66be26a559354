"""The sizes of training images, and the largest of those that many GPUs draw."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

# Longer over shorter edge of photographs and how many have it. Assumed: cameras make 4:3 and 3:2,
# screens and croppers the rest. Upright and lying images cost the same.
ASPECT_RATIOS = {4 / 3: 0.42, 3 / 2: 0.43, 16 / 9: 0.08, 1.0: 0.07}
DRAWS = ('each', 'edge', 'all')
_N_POINT = 2001
_N_DEVIATION = 6.0


class Costs(NamedTuple):
    """What images cost, by edge length and aspect ratio.

    Attributes:
        seconds (array): :math:`(E, A)`, or in any other unit.
        weight (array): The shares of the aspect ratios, :math:`(A,)`; edge lengths are uniform.
    """

    seconds: np.ndarray
    weight: np.ndarray


def image_costs(
    cost: Callable[[np.ndarray], np.ndarray],
    min_size: tuple[int, int],
    max_size: int,
    stride: int,
    aspect_ratios: Mapping[float, float] = ASPECT_RATIOS,
) -> Costs:
    """The costs of images whose shorter edge is drawn from a range.

    Args:
        cost (callable): From pixels, padding included, to a cost.
        min_size (pair of int): The range, both ends included.
        max_size (int): Limit of the longer edge.
        stride (int): Both edges are padded to multiples of it.
        aspect_ratios (mapping): Shares of longer over shorter edge.
    """
    edge = np.arange(min_size[0], min_size[1] + 1)[:, None]
    ratio = np.array(list(aspect_ratios))
    weight = np.array(list(aspect_ratios.values()))
    short = np.round(np.minimum(edge, max_size / ratio))
    long = np.round(np.minimum(edge * ratio, max_size))
    pixels = np.ceil(short / stride) * stride * np.ceil(long / stride) * stride
    return Costs(cost(pixels), weight / weight.sum())


def expected_step(costs: Costs, n_gpu: int, draw: str, jitter: float = 0.0) -> float:
    """The expected cost of the slowest of many GPUs with an image each.

    Args:
        costs (Costs): Of an image.
        n_gpu (int): GPUs, all of which wait for the slowest.
        draw (str): ``'each'``: every GPU draws an edge length and an image; ``'edge'``: they share
            the edge length; ``'all'``: they share the aspect ratio, too.
        jitter (float): Standard deviation of the time of one and the same image, as a share of it;
            normal.

    Returns:
        float: In the unit of the costs.

    Raises:
        ValueError: No such way to draw.
    """
    if draw == 'each':
        return expected_maximum(
            costs.seconds.ravel(), np.tile(costs.weight, len(costs.seconds)), n_gpu, jitter
        )
    if draw == 'edge':
        return float(
            np.mean([expected_maximum(row, costs.weight, n_gpu, jitter) for row in costs.seconds])
        )
    if draw == 'all':
        mean = float((costs.seconds @ costs.weight).mean())
        return mean * expected_maximum(np.ones(1), np.ones(1), n_gpu, jitter)
    raise ValueError(f'draw={draw!r}: expected one of {", ".join(DRAWS)}')


def expected_maximum(values: np.ndarray, weight: np.ndarray, n: int, jitter: float = 0.0) -> float:
    """The expected largest of ``n`` draws of a value, each times ``1 + jitter`` times a normal.

    Args:
        values (array): Positive, :math:`(V,)`.
        weight (array): In what proportion they are drawn, :math:`(V,)`.
        n (int): Draws.
        jitter (float): See there.
    """
    order = np.argsort(values)
    values, share = values[order], weight[order] / weight.sum()
    if jitter == 0:
        below = np.concatenate([[0.0], np.cumsum(share)])
        below[-1] = 1.0
        return float(values @ np.diff(below**n))
    # Few values, many times over, make long sums: like ones are put together.
    values, where = np.unique(values, return_inverse=True)
    share = np.bincount(where.ravel(), share)
    x = np.linspace(
        values[0] * (1 - _N_DEVIATION * jitter), values[-1] * (1 + _N_DEVIATION * jitter), _N_POINT
    )
    below = ndtr((x[:, None] / values - 1) / jitter) @ share
    above = 1 - np.clip(below, 0, 1) ** n
    return float(x[0] + np.sum((above[1:] + above[:-1]) / 2) * (x[1] - x[0]))
