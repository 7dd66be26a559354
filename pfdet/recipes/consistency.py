"""Values of a recipe that contradict each other."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pfdet.recipes import known

if TYPE_CHECKING:
    from pfdet.recipes.recipe import Recipe


def contradictions(recipe: 'Recipe') -> Iterator[str]:
    """Name the fields whose values do not go together.

    Args:
        recipe (Recipe): A recipe whose values are in the domains of their fields.

    Yields:
        str: Field, value and what is expected, for a message.
    """
    for field, value, limit, other in (
        ('min_size', recipe.min_size[1], recipe.max_size, 'max_size'),
        (
            'rpn_negative_iou',
            recipe.rpn_negative_iou,
            recipe.rpn_positive_iou,
            'rpn_positive_iou',
        ),
    ):
        if value > limit:
            yield f'{field}={getattr(recipe, field)!r}: expected at most {other}={limit!r}'
    for number, share in (
        ('n_anchor', 'rpn_positive_share'),
        ('n_roi', 'roi_foreground_share'),
    ):
        n, part = getattr(recipe, number), getattr(recipe, share)
        if int(n * part) < 1:
            yield f'{share}={part!r}: expected at least 1 of {number}={n}'
    # The network's builder checks losses and scores of extensions.
    shipped = recipe.loss in known.LOSSES and recipe.score in known.SCORES
    if shipped and (recipe.score == 'sigmoid') != (recipe.loss in known.WITHOUT_BACKGROUND):
        yield f'score={recipe.score!r}: does not go with loss={recipe.loss!r}'
