"""The output directory of a training run: weights, recipe, label space and concurrent rates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import chainer
import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.files.checksum import file_checksum
from pfdet.files.json_file import read_json, read_object, write_json
from pfdet.files.npz import open_npz, read_npy
from pfdet.files.reading import reading
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.links.load_arrays import load_arrays
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.label_space import RUN, parse_label_space
from pfdet.recipes.recipe import Recipe, fields_that
from pfdet.recipes.settings import from_dict, override, to_dict
from pfdet.training import build, checkpoints

if TYPE_CHECKING:
    from pfdet.inference.predict import PredictSettings


_WEIGHTS = 'weights of this network'
#: Prefix of the names of the network's arrays in a snapshot.
_NETWORK_IN_SNAPSHOT = 'updater/model:main/detector/'


class Model(NamedTuple):
    """A trained network with its recipe and label space.

    Attributes:
        network (FasterRCNN): The network with its weights.
        recipe (Recipe): The recipe of the training, with the overrides for testing.
        classes (Classes): The label space.
        rates (array): Concurrent rates :math:`(C, C)` used by the score, or :obj:`None`.
        weights (path): The file of the network's weights, if it was read from one.
    """

    network: FasterRCNN
    recipe: Recipe
    classes: Classes
    rates: np.ndarray | None
    weights: Path | None = None


def write_recipe(
    directory: Path, recipe: Recipe, classes: Classes, hierarchy: Hierarchy, run: dict
) -> None:
    """Write ``recipe.json``.

    Args:
        directory (path): Output directory of the run.
        recipe (Recipe): The resolved recipe.
        classes (Classes): The label space.
        hierarchy (Hierarchy): The hierarchy of the classes.
        run (dict): Further facts about the run, such as the number of ranks.
    """
    content = {
        'recipe': to_dict(recipe),
        'run': run,
        'classes': [list(pair) for pair in zip(classes.mids, classes.names, strict=True)],
        'ancestors': np.argwhere(hierarchy.ancestors).tolist(),
    }
    write_json(directory / 'recipe.json', content)


def write_weights(directory: Path, network: FasterRCNN, name: str = 'model.npz') -> None:
    """Write ``model.npz``, or weights of another name."""
    with replace_when_done(directory / name) as path:
        chainer.serializers.save_npz(str(path), network)


def load_weights(network: FasterRCNN, path: Path) -> None:
    """Load a network's weights.

    Args:
        network (FasterRCNN): A network of the same architecture and label space.
        path (path): A ``model.npz``, or a snapshot of the training.

    Raises:
        InputError: The file cannot be read, has the weights of another network, or has values that
            are not finite.
    """
    with open_npz(path) as arrays:
        load_arrays(network, network_arrays(arrays), path, _WEIGHTS)


def network_arrays(archive: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The arrays of the network in a snapshot, read now; a ``model.npz`` as it is."""
    in_snapshot = {
        name.removeprefix(_NETWORK_IN_SNAPSHOT): archive[name]
        for name in archive
        if name.startswith(_NETWORK_IN_SNAPSHOT)
    }
    return in_snapshot or archive


def weights_file(directory: Path) -> Path:
    """The file with the weights of a run: ``model.npz``, or the newest snapshot before the end.

    Damaged snapshots are skipped with a warning on standard error.

    Args:
        directory (path): Output directory of the run.

    Raises:
        InputError: The run has neither, or all of its snapshots are damaged.
    """
    final = Path(directory) / 'model.npz'
    if final.exists():
        return final
    # The run may be writing another snapshot now, so nothing is removed.
    snapshot, damaged = checkpoints.newest_undamaged(final.parent / 'snapshots')
    if snapshot is not None:
        return snapshot
    if damaged:
        raise InputError(
            f'{final}: missing, and all snapshots of the run are damaged ({len(damaged)}); '
            f'expected {RUN}'
        )
    raise InputError(f'{final}: missing, and the run has no snapshot; expected {RUN}')


def weights_note(model: Model) -> str:
    """A line that says which snapshot a model was read from; empty for its final weights."""
    if model.weights is None or model.weights.name == 'model.npz':
        return ''
    directory = model.weights.parent.parent
    if model.weights.parent.name != 'snapshots' or (directory / 'model.npz').exists():
        return f'note: the weights are those of {model.weights}'
    return (
        f'note: {directory} has no model.npz, since its training has not ended; the weights are '
        f'those of the snapshot {model.weights}'
    )


def write_rates(directory: Path, rates: np.ndarray) -> str:
    """Write ``rates.npy``: the concurrent rates that the network's score uses.

    Returns:
        str: The SHA-256 of the file, which ``recipe.json`` has as ``rates_sha256``, since the
        format has no checksum.
    """
    with replace_when_done(directory / 'rates.npy') as path:
        np.save(path, rates)
        return file_checksum(path)


def read_rates(
    path: Path, classes: Classes, hierarchy: Hierarchy, hierarchy_rate: float
) -> np.ndarray:
    """Read or compute the concurrent rates for a network's score.

    Args:
        path (path): A run's ``rates.npy``, used unchanged; an annotation index, in which they are
            counted; or an ``.npz`` file written by ``pfdet.openimages.statistics``.
        classes (Classes): Classes of the network.
        hierarchy (Hierarchy): Hierarchy of these classes.
        hierarchy_rate (float): See :class:`~pfdet.recipes.recipe.Recipe`.

    Returns:
        array: Concurrent rates :math:`(C, C)`.

    Raises:
        InputError: The file is missing, damaged, or has other classes.
    """
    # Imported here because it loads much of SciPy, which training does not need otherwise.
    from pfdet.openimages.concurrent_rates import (
        concurrent_rates,
        read_concurrent_rates,
        with_hierarchy,
    )

    path = Path(path)
    if path.suffix == '.npz':
        rates = read_concurrent_rates(path, classes).rates
    elif path.suffix == '.npy':
        _verify_rates(path)
        rates = read_npy(path)
        if rates.shape != (len(classes),) * 2:
            raise InputError(f'{path}: has shape {rates.shape}; expected {(len(classes),) * 2}')
        if rates.dtype.kind != 'f' or not ((rates >= 0) & (rates <= 1)).all():
            raise InputError(f'{path}: not concurrent rates; expected numbers from 0 to 1')
        return rates
    else:
        index = AnnotationIndex.open(path)
        missing = [mid for mid in classes.mids if mid not in index.classes.ids]
        if missing:
            raise InputError(
                f'{path}: lacks class {missing[0]}; expected an index of the classes of the network'
            )
        ids = [index.classes.ids[mid] for mid in classes.mids]
        rates = concurrent_rates(index).rates[np.ix_(ids, ids)]
    return with_hierarchy(rates, hierarchy, hierarchy_rate)


def _verify_rates(path: Path) -> None:
    """Compare the rates of a run with their checksum, if ``recipe.json`` beside them has it."""
    description = path.parent / 'recipe.json'
    if path.name != 'rates.npy' or not description.exists():
        return
    run = read_object(description, RUN).get('run')
    expected = run.get('rates_sha256') if isinstance(run, dict) else None
    with reading(path, 'rates of a run'):
        if expected is not None and file_checksum(path) != expected:
            raise ValueError(f'damaged, does not match its checksum in {description}')


def override_for_test(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Override recipe fields that may change after training.

    Args:
        recipe (Recipe): The recipe of the training.
        settings (sequence of str): ``KEY=VALUE``, see :func:`~pfdet.recipes.settings.override`.

    Raises:
        InputError: A field may not change after training, or
            :func:`~pfdet.recipes.settings.override` rejects a setting.
    """
    for setting in settings:
        key = setting.partition('=')[0]
        if key in to_dict(recipe) and key not in fields_that(at_test=True):
            raise InputError(
                f'--set {setting}: cannot be changed after training; expected one of '
                + ', '.join(fields_that(at_test=True))
            )
    return override(recipe, settings)


def predict_settings(recipe: Recipe) -> 'PredictSettings':
    """The prediction settings of a recipe."""
    from pfdet.inference.predict import PredictSettings

    return PredictSettings(
        recipe.test_sizes,
        recipe.max_size,
        recipe.test_flip,
        recipe.score_thresh,
        recipe.suppression,
        recipe.suppression_iou,
        max_per_image=recipe.max_per_image,
        batch_size=recipe.batch_size,
    )


class Description(NamedTuple):
    """The contents of ``recipe.json``."""

    recipe: Recipe
    classes: Classes
    hierarchy: Hierarchy


def read_recipe(directory: Path) -> Description:
    """Read the recipe, classes and hierarchy of a training run.

    Args:
        directory (path): Output directory of the run, with ``recipe.json``.

    Raises:
        InputError: The file is missing or damaged.
    """
    path = Path(directory) / 'recipe.json'
    content = read_json(path, RUN)
    with reading(path, RUN):
        fields = content['recipe']
        classes, hierarchy = parse_label_space(content, path)
    return Description(from_dict(fields, str(path)), classes, hierarchy)


def read(
    directory: Path,
    settings: Sequence[str] = (),
    rates: Path | None = None,
    weights: Path | None = None,
) -> Model:
    """Load the model of a training run.

    Args:
        directory (path): Output directory of the run, with ``recipe.json`` and ``model.npz``.
        settings (sequence of str): Overrides for testing; see :func:`override_for_test`.
        rates (path): Concurrent rates, for scores that use them; see :func:`read_rates`. By
            default those of the run.
        weights (path): The file of the weights, such as ``best.npz`` or a snapshot. By default
            that of :func:`weights_file`.

    Raises:
        InputError: A file is missing or damaged, or a setting cannot be used.
    """
    recipe, classes, hierarchy = read_recipe(directory)
    recipe = override_for_test(recipe, settings)
    score_rates = None
    if build.needs_rates(recipe):
        default = Path(directory) / 'rates.npy'
        if rates is None and not default.exists():
            raise InputError(
                f'{default}: missing; score={recipe.score or recipe.loss} needs concurrent rates: '
                'give --rates INDEX, the index that the model was trained on'
            )
        score_rates = read_rates(rates or default, classes, hierarchy, recipe.hierarchy_rate)
    network = build.detector(
        recipe, len(classes), rates=score_rates, descendants=hierarchy.descendants
    )
    weights = Path(weights) if weights is not None else weights_file(directory)
    load_weights(network, weights)
    return Model(network, recipe, classes, score_rates, weights)
