"""The pretrained backbones that the rows of a table start from."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pfdet.errors import InputError
from pfdet.recipes import Recipe
from pfdet.recipes.initial_weights import check_initial_weights
from pfdet.training.initial_weights_file import check_backbone


def find_backbones(given: Sequence[str], trained: Collection[Recipe]) -> dict[str, Path]:
    """Match files of weights with the backbones of recipes.

    Args:
        given (sequence of str): ``NAME=FILE``, or a single ``FILE`` if all recipes that start from
            a pretrained backbone have the same one.
        trained (collection of Recipe): All that is to be trained.

    Returns:
        dict: Files by the name of the backbone.

    Raises:
        InputError: A file is missing or not one of weights of a backbone, or it is not clear which
            backbone it belongs to, or no recipe has that backbone.
    """
    needed = list(dict.fromkeys(r.backbone for r in trained if r.init == 'imagenet'))
    found: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.rpartition('=')
        if not needed:
            raise InputError(
                f'--backbone {text}: no row starts from a pretrained backbone; expected no file'
            )
        if not equals:
            if len(needed) > 1:
                raise InputError(
                    f'--backbone {text}: the rows have several backbones; expected '
                    + ' '.join(f'{backbone}=FILE' for backbone in needed)
                )
            name = needed[0]
        if name not in needed or name in found:
            raise InputError(
                f'--backbone {text}: expected one file for each of {", ".join(needed)}'
            )
        check_backbone(Path(path))
        found[name] = Path(path)
    return found


def check_backbones(trained: Iterable[Recipe], found: Collection[str]) -> None:
    """Refuse to train recipes without the pretrained backbone that they start from.

    The mini network may start from random weights, see
    :func:`~pfdet.recipes.initial_weights.check_initial_weights`.

    Args:
        trained (iterable of Recipe): What is to be trained.
        found (collection of str): Names of the backbones that there are weights of.

    Raises:
        InputError: Weights of a backbone are missing.
    """
    missing = [
        r
        for r in trained
        if r.init == 'imagenet' and r.backbone not in found and not _may_be_random(r)
    ]
    if missing:
        first = missing[0].backbone
        names = list(dict.fromkeys(r.backbone for r in missing))
        rows = ', '.join(r.name for r in missing)
        raise InputError(
            f'for {rows}, give the backbone trained on ImageNet: --backbone '
            + ' '.join(f'{name}=FILE.npz' for name in names)
            + f' (pfdet convert --arch {first} --weights FILE --out FILE.npz), or --random-weights '
            'to start from random weights'
        )


def note_on_random_weights(trained: Iterable[Recipe], found: Collection[str]) -> str:
    """A line that says which recipes start from random weights instead of a pretrained backbone.

    Args:
        trained (iterable of Recipe): What is trained.
        found (collection of str): Names of the backbones that there are weights of.

    Returns:
        str: The line, with a warning if recipes from scratch are compared with them; empty if there
        are no such recipes.
    """
    trained = list(trained)
    random = [r.name for r in trained if r.init == 'imagenet' and r.backbone not in found]
    if not random:
        return ''
    scratch = [r.name for r in trained if r.init == 'scratch']
    note = f'note: no pretrained backbone is given: random weights for {", ".join(random)}'
    if scratch:
        note += (
            f', as for {", ".join(scratch)}; their differences say nothing about pretraining on '
            'ImageNet'
        )
    return note


def _may_be_random(recipe: Recipe) -> bool:
    """Whether a training may start from random weights without being asked to."""
    try:
        check_initial_weights(recipe, None, False)
    except InputError:
        return False
    return True
