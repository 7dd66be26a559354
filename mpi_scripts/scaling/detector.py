"""Sizes of the detector that the model uses: counted from the network, and stored in a file."""

import json
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name('detector.json')
N_CLASS = 500


class Detector(NamedTuple):
    """Sizes of a recipe's network.

    Attributes:
        recipe (str): Name of the recipe.
        n_parameter (int): Number of parameters.
        bn_channels (tuple of int): Channels of every batch normalization.
        flops_per_pixel (float): Operations of a forward pass up to the region proposals, per padded
            pixel.
        flops_per_image (float): Operations of a forward pass of the head, with the regions of
            training.
        stride (int): Images are padded to multiples of it.
        min_size (pair of int): Range of the shorter edge.
        max_size (int): Limit of the longer edge.
        epochs (float): Epochs of training.
    """

    recipe: str
    n_parameter: int
    bn_channels: tuple[int, ...]
    flops_per_pixel: float
    flops_per_image: float
    stride: int
    min_size: tuple[int, int]
    max_size: int
    epochs: float


def read_detector(path: Path = FILE) -> Detector:
    """Read the file of :func:`write_detector`."""
    fields = json.loads(path.read_text())
    return Detector(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def write_detector(detector: Detector, path: Path = FILE) -> None:
    """Write a detector's sizes as JSON."""
    from pfdet.atomic_write import replace_when_done

    with replace_when_done(path) as unfinished:
        unfinished.write_text(json.dumps(detector._asdict(), indent=1) + '\n')


def count_detector(name: str | None = None) -> Detector:
    """Build a recipe's network and count its parameters and operations.

    Args:
        name (str): The recipe; by default PFDet's final single model.
    """
    import pfdet.compat  # noqa: F401

    import chainer.links as L

    from pfdet import recipes
    from pfdet.links.complexity import detector_flops, n_parameter
    from pfdet.training import build

    recipe = recipes.find(name or recipes.DEFAULT)
    network = build.detector(recipe, N_CLASS)
    size = network.stride, network.stride
    maps = detector_flops(network, size, 0)
    return Detector(
        recipe.name,
        n_parameter(network),
        tuple(
            link.avg_mean.size for link in network.links() if isinstance(link, L.BatchNormalization)
        ),
        maps / size[0] / size[1],
        float(detector_flops(network, size, recipe.n_roi) - maps),
        network.stride,
        recipe.min_size,
        recipe.max_size,
        recipe.epochs,
    )
