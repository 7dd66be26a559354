"""Hours and memory of training on one node, by the model of the step."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from scaling.detector import N_CLASS, Detector, count_detector
from scaling.inputs import Inputs
from scaling.ranges import likeliest_reading, variations
from scaling.step import hours, with_option

# The papers' final network and their baselines.
RECIPES = 'table1-senet154', 'table1-baseline', 'cs-table1-softmax'
GPUS = 1, 2, 4, 8
# Weights, gradients, velocity and the buffer of the all-reduce.
_COPIES = 4
_FLOAT32 = 4


class Job(NamedTuple):
    """A recipe on small numbers of GPUs, with one image per GPU.

    Attributes:
        detector (Detector): Sizes of the network.
        hours (list of tuple): Hours of the run by number of GPUs: in the likeliest reading of the
            paper, and the least and the most over all possible readings and inputs.
        fixed_bytes (int): Memory of weights, gradients, velocity and all-reduce.
        activation_bytes (int): Memory of all intermediate arrays of the largest image.
    """

    detector: Detector
    hours: list[tuple[float, float, float]]
    fixed_bytes: int
    activation_bytes: int


def activations(name: str, size: tuple[int, int]) -> int:
    """Bytes of the activations of an image of a recipe."""
    import pfdet.compat  # noqa: F401

    from pfdet import recipes
    from pfdet.links.complexity import activation_bytes
    from pfdet.training import build

    recipe = recipes.find(name)
    return activation_bytes(build.detector(recipe, N_CLASS), size, recipe.n_roi)


def jobs(
    known: Detector,
    names: Sequence[str] = RECIPES,
    memory: Callable[[str, tuple[int, int]], int] = activations,
) -> Iterator[Job]:
    """The hours and the memory of recipes.

    The rate of operations is the one that fits the paper's hours, also for the other recipes.

    Args:
        known (Detector): The network of the paper's hours.
        names (sequence of str): Recipes.
        memory (callable): Bytes of the activations of a recipe, by the size of the image.
    """
    inputs = Inputs()
    setting, fit = likeliest_reading(known, inputs)
    possible = [v for v in variations(known) if v.fit.hop_factor >= 0]
    for name in names:
        detector = known if name == known.recipe else count_detector(name)
        by_gpus = []
        for n in GPUS:
            shared = with_option(setting, 'shared sizes')
            others = [
                hours(detector, v.inputs, v.fit, with_option(v.setting, 'shared sizes'), n)
                for v in possible
            ]
            by_gpus.append((hours(detector, inputs, fit, shared, n), min(others), max(others)))
        yield Job(
            detector,
            by_gpus,
            _COPIES * _FLOAT32 * detector.n_parameter,
            memory(name, largest_size(detector)),
        )


def largest_size(detector: Detector) -> tuple[int, int]:
    """Height and width of the largest padded image."""
    height, width = (
        -(-n // detector.stride) * detector.stride
        for n in (detector.min_size[1], detector.max_size)
    )
    return height, width
