"""The weights that a recipe starts from, and whether a run started from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.recipes import RECIPES, Recipe, known

# The only backbone of the package without public weights
_MINI = 'mini_se_resnext'
# Kinds of weights files: written by pfdet.links.convert, and the model.npz of a run.
BACKBONE, DETECTOR = 'backbone', 'detector'


def check_initial_weights(recipe: Recipe, init: Path | None, random_weights: bool) -> None:
    """Refuse to start a run without the weights that its recipe starts from.

    At mini size, a backbone for which no public weights exist may start from random weights: the
    mini network, or one of an extension.

    Args:
        recipe (Recipe): What to train. Its ``init`` says what it starts from.
        init (path): The weights that are given, of any kind.
        random_weights (bool): Whether random weights are asked for.

    Raises:
        InputError: Weights are missing, ``init`` of the recipe is unknown, or both weights and
            random weights are asked for.
    """
    if recipe.init not in ('imagenet', 'scratch', *RECIPES):
        raise InputError(
            f'init={recipe.init}: expected imagenet, scratch or the name of a recipe (see '
            'pfdet train --list)'
        )
    if random_weights and init is not None:
        raise InputError(f'--random-weights: contradicts the initial weights {init}')
    if random_weights or init is not None or recipe.init == 'scratch':
        return
    start = f'recipe {recipe.name} starts from {_wanted(recipe.init)}: give --init'
    otherwise = 'or --random-weights to start from random weights'
    if recipe.init != 'imagenet':
        raise InputError(f'{start} with the model.npz of its run, {otherwise}')
    public = recipe.backbone in known.BACKBONES and recipe.backbone != _MINI
    if recipe.size == 'full' or public:
        raise InputError(
            f'{start} BACKBONE.npz, made by pfdet convert --arch {recipe.backbone} --weights FILE '
            f'--out BACKBONE.npz, {otherwise}'
        )


def deviation(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Say what a run started from if its recipe starts from something else.

    Args:
        recipe (mapping): ``"recipe"`` of its ``recipe.json``.
        facts (mapping): ``"run"`` of its ``recipe.json``, see
            :func:`~pfdet.training.initial_weights_file.initial_weights_facts`.

    Returns:
        str: ``'from random weights'``, ``'from a backbone'`` or ``'from a detector'``; empty if the
        run started from weights of the kind that its recipe names, or if it is not recorded.
    """
    init = recipe.get('init', Recipe.init)
    if _random(facts):
        return '' if init == 'scratch' else 'from random weights'
    kind = facts.get('init_kind')
    wanted = {'imagenet': BACKBONE, 'scratch': None}.get(init, DETECTOR)
    return '' if kind is None or kind == wanted else f'from a {kind}'


def deviation_sentence(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The :func:`deviation` as a sentence; empty if there is none."""
    started = deviation(recipe, facts)
    if not started:
        return ''
    wanted = _wanted(recipe.get('init', Recipe.init))
    return f'This run started {started}; its recipe starts from {wanted}.'


def described_start(facts: Mapping[str, Any]) -> str:
    """Describe the weights that a run started from, for people to read.

    Args:
        facts (mapping): See :func:`deviation`.

    Returns:
        str: Such as ``'random weights'`` or ``'resnet50.npz (a backbone, SHA-256 0f1e2d3c4b5a)'``;
        empty if it is not recorded.
    """
    if _random(facts):
        return 'random weights'
    if not facts.get('init'):
        return ''
    parts = []
    if facts.get('init_kind'):
        name = f' of {facts["init_recipe"]}' if facts.get('init_recipe') else ''
        parts.append(f'a {facts["init_kind"]}{name}')
    if facts.get('init_sha256'):
        parts.append(f'SHA-256 {facts["init_sha256"][:12]}')
    return f'{facts["init"]} ({", ".join(parts)})' if parts else facts['init']


def _random(facts: Mapping[str, Any]) -> bool:
    # Runs of earlier versions record only the file.
    return bool(facts.get('random_weights', 'init' in facts and facts['init'] is None))


def _wanted(init: str) -> str:
    known = {'imagenet': 'a backbone trained on ImageNet', 'scratch': 'random weights'}
    return known.get(init, f'the weights of {init}')
