"""The plan of a run, computed from its recipe without training."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import chainer
import numpy as np

from pfdet.openimages.hierarchy import Hierarchy
from pfdet.recipes.recipe import Recipe
from pfdet.training import build
from pfdet.training.run_length import RunLength, n_epoch
from pfdet.training.schedules import learning_rate, linear_scaling


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        recipe, scale (str): Name and size of the recipe.
        ranks, images (int): Number of ranks and of training images.
        global_batch (int): Images per iteration over all ranks.
        iterations_per_epoch (float): Iterations per epoch.
        iterations (int): Iterations of the whole run.
        learning_rates (list): Epoch, iteration and learning rate at the start and end of warm-up,
            at the steps of a step schedule or at eighths of a cosine, and at the last iteration.
        shard (pair of int): Minimum and maximum number of images per rank and epoch.
        parameters (int): Number of parameters of the network.
        memory (dict): Bytes per rank for ``weights``, ``gradients``, ``velocity``, ``all-reduce``
            and the ``order`` of the images; and bytes per node for the ``index``, which its ranks
            share. Activations are not included.
    """

    recipe: str
    scale: str
    ranks: int
    images: int
    global_batch: int
    iterations_per_epoch: float
    iterations: int
    learning_rates: list[tuple[float, int, float]]
    shard: tuple[int, int]
    parameters: int
    memory: dict[str, int]


def plan(
    recipe: Recipe,
    n_image: int,
    n_rank: int,
    hierarchy: Hierarchy,
    accumulate: int = 1,
    index_size: int = 0,
) -> Plan:
    """Compute the plan of a run.

    Args:
        recipe (Recipe): What to train.
        n_image (int): Number of training images.
        n_rank (int): Number of ranks.
        hierarchy (Hierarchy): Hierarchy of the classes.
        accumulate (int): Batches of the recipe's size per rank and iteration.
        index_size (int): Size of the annotation index in bytes.

    Raises:
        InputError: The recipe cannot be built.
    """
    length = RunLength(n_image, n_epoch(recipe, n_image), recipe.batch_size * accumulate * n_rank)
    n_parameter, n_statistic = network_size(recipe, hierarchy)
    item = np.dtype(recipe.parameter_dtype).itemsize
    memory = {
        'weights': (n_parameter + n_statistic) * item,
        'gradients': n_parameter * item,
        'velocity': n_parameter * item,
        'all-reduce': n_parameter * item,
        # int32; two epochs, because prefetching crosses the end of an epoch.
        'order': 2 * 4 * n_image if recipe.sampler == 'sequential' else 0,
        'index': index_size,
    }
    return Plan(
        recipe.name,
        recipe.size,
        n_rank,
        n_image,
        length.global_batch,
        length.n_epoch_iteration,
        length.n_iteration,
        learning_rate_points(recipe, length),
        (n_image // n_rank, -(-n_image // n_rank)),
        n_parameter,
        memory,
    )


def learning_rate_points(recipe: Recipe, length: RunLength) -> list[tuple[float, int, float]]:
    """Epoch, iteration and learning rate at the characteristic points of a schedule."""
    n_warmup = length.warmup(recipe)
    last = length.n_iteration - 1
    if recipe.schedule == 'step':
        points = [math.ceil(share * length.n_iteration) for share in recipe.steps]
        points += [point - 1 for point in points]
    else:
        points = [k * length.n_iteration // 8 for k in range(1, 8)]
    iterations = sorted({i for i in (0, n_warmup, *points, last) if 0 <= i <= last})
    lr = linear_scaling(recipe.base_lr, recipe.lr_batch_size, length.global_batch)
    return [
        (
            i / length.n_epoch_iteration,
            i,
            learning_rate(
                i,
                length.n_iteration,
                lr,
                recipe.schedule,
                recipe.steps,
                n_warmup,
                recipe.warmup_start,
            ),
        )
        for i in iterations
    ]


def network_size(recipe: Recipe, hierarchy: Hierarchy) -> tuple[int, int]:
    """Count the parameters and persistent values of a recipe's network without allocating them.

    Returns:
        pair of int: Number of parameters, and of other persistent values such as running
        statistics.
    """
    with _arrays_without_memory():
        network = build.detector(recipe, hierarchy.n_class)
    statistics = sum(
        np.size(value)
        for link in network.links()
        for name, value in vars(link).items()
        if name in link._persistent
    )
    return sum(param.size for param in network.params()), statistics


@contextlib.contextmanager
def _arrays_without_memory() -> Iterator[None]:
    """Make Chainer initialize parameters as broadcast views of a single number."""

    def view(initializer, shape, xp, dtype=None, device=None) -> np.ndarray:
        dtype = dtype or getattr(initializer, 'dtype', None) or np.float32
        return np.broadcast_to(np.zeros((), dtype), shape)

    generate = chainer.initializers.generate_array
    chainer.initializers.generate_array = view
    try:
        yield
    finally:
        chainer.initializers.generate_array = generate
