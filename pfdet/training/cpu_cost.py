"""What a run of full size costs on CPUs, so that nobody starts one by mistake."""

import time

import numpy as np

from pfdet.links.complexity import detector_flops
from pfdet.recipes import Recipe
from pfdet.training import build

# Operations of a training step over those of the forward pass: the backward pass computes the
# gradients of inputs and of weights.
_STEP_OVER_FORWARD = 3
# Most images of Open Images have this ratio of the sides.
_ASPECT_RATIO = 4 / 3
_SECONDS_A_DAY = 86_400


def operations_of_training(recipe: Recipe, n_class: int, n_image: int) -> float:
    """Estimate the number of operations of a training run.

    Args:
        recipe (Recipe): What is trained.
        n_class (int): Number of classes.
        n_image (int): Number of images over all epochs, repeated ones counted again.

    Returns:
        float: Operations of convolutions and fully connected layers, see
        :class:`~pfdet.links.complexity.CountOperations`.
    """
    network = build.detector(recipe, n_class)
    short = float(np.mean(recipe.min_size))
    long = min(short * _ASPECT_RATIO, recipe.max_size)
    size = round(short), round(long)
    return _STEP_OVER_FORWARD * detector_flops(network, size, recipe.n_roi) * n_image


def operations_per_second(n: int = 1024, times: int = 3) -> float:
    """Measure how fast this process multiplies matrices in single precision.

    Convolutions are slower than that, so a time that is computed from it is a lower limit.

    Args:
        n (int): Number of rows and columns.
        times (int): Number of products; the fastest one counts.
    """
    a = np.random.default_rng(0).random((n, n), np.float32)
    a @ a
    fastest = np.inf
    for _ in range(times):
        start = time.perf_counter()
        a @ a
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * n**3 / fastest


def cost_note(operations: float, per_second: float, n_rank: int) -> str | None:
    """A sentence about the cost of a run on CPUs.

    Args:
        operations (float): Those of the run.
        per_second (float): Operations per second of a rank.
        n_rank (int): Number of ranks.

    Returns:
        str: The sentence, or :obj:`None` for less than a day.
    """
    days = operations / (per_second * n_rank) / _SECONDS_A_DAY
    if days < 1:
        return None
    duration = f'{days:,.1f} days' if days < 1000 else f'{days / 365:,.1f} years'
    ranks = 'one rank' if n_rank == 1 else f'{n_rank} ranks'
    return (
        f'no GPU was found: this run takes at least {duration} here, for {operations:.1e} '
        f'operations at {per_second * n_rank / 1e9:,.0f} GFLOP/s of {ranks}; --scale mini is for '
        'CPUs'
    )
