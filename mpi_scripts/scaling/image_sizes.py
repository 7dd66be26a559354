"""Sizes of training images, and the expected largest of those that many GPUs draw."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

# Longer over shorter edge of photographs, and the share of each ratio. Assumed: cameras take 4:3
# and 3:2; the rest are screenshots and cropped images. Portrait and landscape cost the same.
ASPECT_RATIOS = {4 / 3: 0.42, 3 / 2: 0.43, 16 / 9: 0.08, 1.0: 0.07}
DRAWS = ('each', 'edge', 'all')
_N_POINT = 2001
_N_DEVIATION = 6.0


class Costs(NamedTuple):
    """Costs of images, by edge length and aspect ratio.

    Attributes:
        seconds (array): :math:`(E, A)`, in seconds or any other unit.
        weight (array): Shares of the aspect ratios, :math:`(A,)`. Edge lengths are uniform.
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
    """Costs of images whose shorter edge is drawn from a range.

    Args:
        cost (callable): Maps pixels, padding included, to a cost.
        min_size (pair of int): The range, both ends included.
        max_size (int): Limit of the longer edge.
        stride (int): Both edges are padded to multiples of it.
        aspect_ratios (mapping): From longer over shorter edge to its share.
    """
    edge = np.arange(min_size[0], min_size[1] + 1)[:, None]
    ratio = np.array(list(aspect_ratios))
    weight = np.array(list(aspect_ratios.values()))
    short = np.round(np.minimum(edge, max_size / ratio))
    long = np.round(np.minimum(edge * ratio, max_size))
    pixels = np.ceil(short / stride) * stride * np.ceil(long / stride) * stride
    return Costs(cost(pixels), weight / weight.sum())


def expected_step(costs: Costs, n_gpu: int, draw: str, jitter: float = 0.0) -> float:
    """Expected cost on the slowest of many GPUs with one image each.

    Args:
        costs (Costs): Costs of an image.
        n_gpu (int): Number of GPUs; all wait for the slowest.
        draw (str): ``'each'``: every GPU draws an edge length and an image; ``'edge'``: they share
            the edge length; ``'all'``: they also share the aspect ratio.
        jitter (float): Relative standard deviation of the time of the same image, normally
            distributed.

    Returns:
        float: In the unit of the costs.

    Raises:
        ValueError: ``draw`` is unknown.
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
    """Expected maximum of ``n`` draws, each multiplied by a normal variable of mean 1.

    Args:
        values (array): Positive values, :math:`(V,)`.
        weight (array): Their relative frequencies, :math:`(V,)`.
        n (int): Number of draws.
        jitter (float): Standard deviation of the normal variable.
    """
    order = np.argsort(values)
    values, share = values[order], weight[order] / weight.sum()
    if jitter == 0:
        below = np.concatenate([[0.0], np.cumsum(share)])
        below[-1] = 1.0
        return float(values @ np.diff(below**n))
    # Equal values are merged, to shorten the sums.
    values, where = np.unique(values, return_inverse=True)
    share = np.bincount(where.ravel(), share)
    x = np.linspace(
        values[0] * (1 - _N_DEVIATION * jitter), values[-1] * (1 + _N_DEVIATION * jitter), _N_POINT
    )
    below = ndtr((x[:, None] / values - 1) / jitter) @ share
    above = 1 - np.clip(below, 0, 1) ** n
    return float(x[0] + np.sum((above[1:] + above[:-1]) / 2) * (x[1] - x[0]))
