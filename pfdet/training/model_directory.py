"""What a training run leaves: the weights, and all that is needed to use them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import chainer
import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.recipe import Recipe, fields_that, from_dict, override, to_dict
from pfdet.training import build
from pfdet.training.experts import cut_head

if TYPE_CHECKING:
    from pfdet.inference.predict import PredictSettings


class Model(NamedTuple):
    """A trained network, how it was trained, and its label space.

    Attributes:
        network (FasterRCNN): With its weights.
        recipe (Recipe): Of the training, or as overridden for the test.
        classes (Classes): The label space.
        rates (array): The concurrent rates that its score takes, or :obj:`None`.
    """

    network: FasterRCNN
    recipe: Recipe
    classes: Classes
    rates: np.ndarray | None


def write_recipe(
    directory: Path, recipe: Recipe, classes: Classes, hierarchy: Hierarchy, run: dict
) -> None:
    """Write ``recipe.json``.

    Args:
        directory (path): Of the run.
        recipe (Recipe): Resolved.
        classes (Classes): The label space.
        hierarchy (Hierarchy): The classes' relation.
        run (dict): Further facts of the run, such as the number of ranks.
    """
    content = {
        'recipe': to_dict(recipe),
        'run': run,
        'classes': [list(pair) for pair in zip(classes.mids, classes.names, strict=True)],
        'ancestors': np.argwhere(hierarchy.ancestors).tolist(),
    }
    with replace_when_done(directory / 'recipe.json') as path:
        path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def write_weights(directory: Path, network: FasterRCNN) -> None:
    """Write ``model.npz``."""
    with replace_when_done(directory / 'model.npz') as path:
        chainer.serializers.save_npz(str(path), network)


def load_weights(
    network: FasterRCNN, path: Path, pick: np.ndarray | None = None, n_class: int | None = None
) -> None:
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


def read_rates(
    path: Path, classes: Classes, hierarchy: Hierarchy, hierarchy_rate: float
) -> np.ndarray:
    """Concurrent rates for a network's score.

    Args:
        path (path): A run's ``rates.npy``, which is taken as it is; or what to count them in, an
            annotation index, or the ``.npz`` file that ``pfdet.openimages.statistics`` wrote.
        classes (Classes): Of the network.
        hierarchy (Hierarchy): Over these.
        hierarchy_rate (float): See :class:`~pfdet.recipes.recipe.Recipe`.

    Returns:
        array: :math:`(C, C)`.

    Raises:
        InputError: The file is missing, damaged, or of other classes.
    """
    # It loads much of SciPy, which training has no other use for.
    from pfdet.openimages.concurrent_rates import (
        concurrent_rates,
        read_concurrent_rates,
        with_hierarchy,
    )

    path = Path(path)
    if path.suffix == '.npz':
        rates = read_concurrent_rates(path, classes).rates
    elif path.suffix == '.npy':
        try:
            rates = np.load(path)
        except (OSError, ValueError, EOFError) as e:
            raise InputError(f'{path}: expected concurrent rates, but {e}') from e
        if rates.shape != (len(classes),) * 2:
            raise InputError(f'{path}: has shape {rates.shape}; expected {(len(classes),) * 2}')
        return rates
    else:
        index = AnnotationIndex.open(path)
        missing = [mid for mid in classes.mids if mid not in index.classes.ids]
        if missing:
            raise InputError(
                f'{path}: lacks class {missing[0]}; expected an index of the classes of the network'
            )
        own = [index.classes.ids[mid] for mid in classes.mids]
        rates = concurrent_rates(index).rates[np.ix_(own, own)]
    return with_hierarchy(rates, hierarchy, hierarchy_rate)


def for_test(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Apply ``KEY=VALUE`` settings that leave a trained network as it is.

    Args:
        recipe (Recipe): Of the training.
        settings (sequence of str): See :func:`~pfdet.recipes.recipe.override`.

    Raises:
        InputError: A field that is not one of :data:`fields_that(at_test=True)`, or what
            :func:`~pfdet.recipes.recipe.override` refuses.
    """
    for setting in settings:
        key = setting.partition('=')[0]
        if key in to_dict(recipe) and key not in fields_that(at_test=True):
            raise InputError(
                f'--set {setting}: belongs to the training; expected one of '
                + ', '.join(fields_that(at_test=True))
            )
    return override(recipe, settings)


def predict_settings(recipe: Recipe) -> 'PredictSettings':
    """How a recipe has images predicted."""
    from pfdet.inference.predict import PredictSettings

    return PredictSettings(
        (recipe.test_size,),
        recipe.max_size,
        score_thresh=recipe.score_thresh,
        nmw_thresh=recipe.nmw_thresh,
        max_per_image=recipe.max_per_image,
        batch_size=recipe.batch_size,
    )


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
        raise InputError(
            f'{path}: {e.strerror}; expected the --out directory of a training run'
        ) from e
    except (ValueError, KeyError, TypeError, IndexError) as e:
        raise InputError(f'{path}: not written by a training run: {e}') from e
    return Description(
        from_dict(fields, str(path)), Classes(tuple(mids), tuple(names)), Hierarchy(ancestors)
    )


def read(directory: Path, settings: Sequence[str] = (), rates: Path | None = None) -> Model:
    """Load what a run has left.

    Args:
        directory (path): With ``recipe.json`` and ``model.npz``.
        settings (sequence of str): Overrides for the test; see :func:`for_test`.
        rates (path): Concurrent rates; see :func:`read_rates`. By default the run's own. They
            matter where the score takes them.

    Raises:
        InputError: Any of these is missing or damaged, or settings do not fit.
    """
    recipe, classes, hierarchy = read_recipe(directory)
    recipe = for_test(recipe, settings)
    found = None
    if build.needs_rates(recipe):
        own = Path(directory) / 'rates.npy'
        if rates is None and not own.exists():
            raise InputError(
                f'{own}: missing; expected concurrent rates, which '
                f'score={recipe.score or recipe.loss} takes: give --rates INDEX, the '
                'index that the model was trained on'
            )
        found = read_rates(rates or own, classes, hierarchy, recipe.hierarchy_rate)
    network = build.detector(recipe, len(classes), rates=found, descendants=hierarchy.descendants)
    load_weights(network, Path(directory) / 'model.npz')
    return Model(network, recipe, classes, found)
