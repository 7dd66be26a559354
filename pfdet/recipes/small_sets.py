"""Recipes for some hundred photographs, without pretrained weights, on two CPU cores.

The network is that of mini size. What differs from the quickstart:

- The length is given in iterations. In epochs, a run on 50 images would have a tenth of the updates
  of a run on 500.
- Crops and changes of color, since each photograph is seen often.
- Images in prediction near the upper end of the training range, because crops enlarge objects.

The other rows change one thing each, to measure the papers' methods on a set of photographs.
``pfdet train-table --table small`` runs all of them.
"""

from dataclasses import replace

from pfdet.recipes.composite import Table
from pfdet.recipes.pfdet_2018 import MINI
from pfdet.recipes.recipe import Recipe

SMALL = replace(
    MINI,
    name='small',
    about='Small sets of photographs: 5,000 iterations from random weights, with crops and changes '
    'of color',
    init='scratch',
    iterations=5000,
    warmup_iterations=50,
    test_sizes=(192,),
    crop=0.4,
    color_jitter=0.3,
)


def _row(base: Recipe, name: str, about: str, **fields) -> Recipe:
    return replace(base, name=f'small-{name}', about=f'Small sets: {about}', **fields)


# One label per object: the rules of Peng et al. (2020), as in pfdet.recipes.peng_2020.
_SOFTMAX = _row(
    SMALL,
    'softmax',
    'softmax in training and testing',
    loss='softmax',
    expand_scores=True,
    cooccurrence=False,
    ignore_descendants=False,
)
TABLES = {
    'small': Table(
        'Small sets of photographs, at mini scale only',
        (
            SMALL,
            _row(SMALL, 'without-cooccurrence', 'without co-occurrence loss', cooccurrence=False),
            _row(
                SMALL,
                'without-ancestors',
                'an object is positive for its own class only',
                expand_ancestors=False,
            ),
            _row(
                SMALL,
                'with-descendants',
                "the descendants of an object's class are negative, not ignored",
                ignore_descendants=False,
            ),
            _row(SMALL, 'soft-balance', 'soft-balance sampling', sampler='soft_balance'),
            _SOFTMAX,
            _row(
                _SOFTMAX,
                'concurrent',
                'concurrent softmax in training and testing',
                loss='concurrent_softmax',
                score='concurrent_softmax',
            ),
        ),
    )
}
