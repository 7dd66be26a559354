"""What a run will be, told from its recipe before anything is trained."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import chainer
import numpy as np

from pfdet.openimages.hierarchy import Hierarchy
from pfdet.recipes.recipe import Recipe
from pfdet.training import build
from pfdet.training.run_length import RunLength
from pfdet.training.schedules import learning_rate, linear_scaling


@dataclasses.dataclass(frozen=True)
class Plan:
    """The figures of a run.

    Attributes:
        recipe, scale (str): What is trained.
        ranks, images (int): On how many ranks, with how many training images.
        global_batch (int): Images of all ranks an iteration.
        iterations_per_epoch (float): Iterations to see as many images as there are.
        iterations (int): Of the whole run.
        learning_rates (list): Epoch, iteration and learning rate at the begin and end of warm-up,
            at the changes of a step schedule or at eighths of a cosine, and at the last iteration.
        shard (pair of int): Least and most images of a rank in an epoch.
        parameters (int): Of the network.
        memory (dict): Bytes a rank needs for its ``weights``, ``gradients`` and ``velocity``, for
            the ``all-reduce`` and for the ``order`` of an epoch's images; and bytes that the ranks
            of a node share, the ``index``. Activations come on top.
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
    """The figures of a run.

    Args:
        recipe (Recipe): What to train.
        n_image (int): Training images.
        n_rank (int): Ranks.
        hierarchy (Hierarchy): Of the classes.
        accumulate (int): Batches of the recipe's size that a rank goes through in an iteration.
        index_size (int): Bytes of the annotation index.

    Raises:
        InputError: The recipe cannot be built.
    """
    length = RunLength(n_image, recipe.epochs, recipe.batch_size * accumulate * n_rank)
    n_parameter, n_statistic = network_size(recipe, hierarchy)
    item = np.dtype(recipe.dtype).itemsize
    memory = {
        'weights': (n_parameter + n_statistic) * item,
        'gradients': n_parameter * item,
        'velocity': n_parameter * item,
        'all-reduce': n_parameter * item,
        # Two epochs' where prefetching crosses the border.
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
        rates_over_time(recipe, length),
        (n_image // n_rank, -(-n_image // n_rank)),
        n_parameter,
        memory,
    )


def rates_over_time(recipe: Recipe, length: RunLength) -> list[tuple[float, int, float]]:
    """Epoch, iteration and learning rate at the turns of a schedule."""
    n_warmup = round(recipe.warmup_epochs * length.n_epoch_iteration)
    last = length.n_iteration - 1
    if recipe.schedule == 'step':
        turns = [math.ceil(share * length.n_iteration) for share in recipe.steps]
        turns += [turn - 1 for turn in turns]
    else:
        turns = [k * length.n_iteration // 8 for k in range(1, 8)]
    iterations = sorted({i for i in (0, n_warmup, *turns, last) if 0 <= i <= last})
    lr = linear_scaling(recipe.base_lr, recipe.lr_batch_size, length.global_batch)
    return [
        (
            i / length.n_epoch_iteration,
            i,
            learning_rate(i, length.n_iteration, lr, recipe.schedule, recipe.steps, n_warmup),
        )
        for i in iterations
    ]


def network_size(recipe: Recipe, hierarchy: Hierarchy) -> tuple[int, int]:
    """Parameters and running statistics of a recipe's network, counted without making them."""
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
    """Let Chainer initialize parameters as views of one number."""

    def view(initializer, shape, xp, dtype=None, device=None) -> np.ndarray:
        dtype = dtype or getattr(initializer, 'dtype', None) or np.float32
        return np.broadcast_to(np.zeros((), dtype), shape)

    generate = chainer.initializers.generate_array
    chainer.initializers.generate_array = view
    try:
        yield
    finally:
        chainer.initializers.generate_array = generate
