"""What a training run leaves: the weights, and all that is needed to use them."""

import json
from pathlib import Path
from typing import NamedTuple

import chainer
import numpy as np

from pfdet.errors import InputError
from pfdet.files import replace_when_done
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.recipes import build
from pfdet.recipes.experts import cut_head
from pfdet.recipes.recipe import Recipe, from_dict, to_dict


class Model(NamedTuple):
    """A trained network, how it was trained, and its label space."""

    network: FasterRCNN
    recipe: Recipe
    classes: Classes


def write_recipe(directory: Path, recipe: Recipe, classes: Classes, hierarchy: Hierarchy,
                 run: dict) -> None:
    """Write ``recipe.json``.

    Args:
        directory (path): Of the run.
        recipe (Recipe): Resolved.
        classes (Classes): The label space.
        hierarchy (Hierarchy): The classes' relation.
        run (dict): Further facts of the run, such as the number of ranks.
    """
    content = {'recipe': to_dict(recipe), 'run': run,
               'classes': [list(pair) for pair in zip(classes.mids, classes.names, strict=True)],
               'ancestors': np.argwhere(hierarchy.ancestors).tolist()}
    with replace_when_done(directory / 'recipe.json') as path:
        path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def write_weights(directory: Path, network: FasterRCNN) -> None:
    """Write ``model.npz``."""
    with replace_when_done(directory / 'model.npz') as path:
        chainer.serializers.save_npz(str(path), network)


def load_weights(network: FasterRCNN, path: Path, pick: np.ndarray | None = None,
                 n_class: int | None = None) -> None:
    """Load a network's weights.

    Args:
        network (FasterRCNN): Of the same architecture and label space.
        path (path): A ``model.npz``.
        pick (int array): The network's classes, where they are some of the ``n_class`` of the
            file.

    Raises:
        InputError: The file cannot be read or is of another network.
    """
    try:
        if pick is None:
            chainer.serializers.load_npz(str(path), network)
        else:
            with np.load(path) as weights:
                weights = cut_head(dict(weights), pick, n_class, path)
            chainer.serializers.NpzDeserializer(weights).load(network)
    except InputError:
        raise
    except Exception as e:
        # A damaged archive, a missing parameter and a wrong shape raise all kinds of errors.
        raise InputError(f'{path}: not weights of this network: {type(e).__name__}: {e}') from e


def write_rates(directory: Path, rates: np.ndarray) -> None:
    """Write ``rates.npy``: the concurrent rates that the network's score takes."""
    with replace_when_done(directory / 'rates.npy') as path:
        np.save(path, rates)


def read_rates(directory: Path, recipe: Recipe, n_class: int) -> np.ndarray | None:
    """The concurrent rates of a run, or :obj:`None` where its recipe has no use for them.

    Raises:
        InputError: They are missing or damaged.
    """
    if not build.needs_rates(recipe):
        return None
    path = Path(directory) / 'rates.npy'
    try:
        rates = np.load(path)
    except (OSError, ValueError, EOFError) as e:
        raise InputError(f'{path}: expected concurrent rates, but {e}') from e
    if rates.shape != (n_class, n_class):
        raise InputError(f'{path}: has shape {rates.shape}; expected {(n_class, n_class)}')
    return rates


class Description(NamedTuple):
    """What ``recipe.json`` says of a trained network."""

    recipe: Recipe
    classes: Classes
    hierarchy: Hierarchy


def read_recipe(directory: Path) -> Description:
    """Read what a run has trained.

    Args:
        directory (path): With ``recipe.json``.

    Raises:
        InputError: It is missing or damaged.
    """
    path = Path(directory) / 'recipe.json'
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        fields, pairs = content['recipe'], content['classes']
        mids, names = zip(*pairs, strict=True)
        ancestors = np.zeros((len(mids), len(mids)), bool)
        for child, ancestor in content.get('ancestors', ()):
            ancestors[child, ancestor] = True
    except OSError as e:
        raise InputError(f'{path}: {e.strerror}; expected the --out directory of a training run'
                         ) from e
    except (ValueError, KeyError, TypeError, IndexError) as e:
        raise InputError(f'{path}: not written by a training run: {e}') from e
    return Description(from_dict(fields, str(path)), Classes(tuple(mids), tuple(names)),
                       Hierarchy(ancestors))


def read(directory: Path) -> Model:
    """Load what a run has left.

    Args:
        directory (path): With ``recipe.json`` and ``model.npz``.

    Raises:
        InputError: Either is missing or damaged.
    """
    recipe, classes, hierarchy = read_recipe(directory)
    n_class = len(classes)
    network = build.detector(recipe, n_class, rates=read_rates(directory, recipe, n_class),
                             descendants=hierarchy.descendants)
    load_weights(network, Path(directory) / 'model.npz')
    return Model(network, recipe, classes)
