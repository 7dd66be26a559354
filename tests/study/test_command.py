import sys

import pytest

from pfdet import recipes
from pfdet.errors import InputError
from study import __main__ as study


@pytest.mark.parametrize(
    'flags, said',
    [
        (
            ('--row', 'cs-table9'),
            r'--row cs-table9: no such row; expected one of table1-baseline, ',
        ),
        (('--row', 'expert-class10'), r'--row expert-class10: no such row'),
        (
            ('--only', 'mini', 'cs-table9'),
            r'--only cs-table9: not in the plan of the study; expected mini, ',
        ),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_drawn(flags, said, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['study', '--out', str(tmp_path / 'out'), *flags])
    with pytest.raises(InputError, match=said):
        study.main()
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_of_recipes_and_says_nothing_twice():
    assert len(set(study.PLAN)) == len(study.PLAN)
    for name, _ in study.PLAN:
        assert name in study.PARTS or name in recipes.RECIPES
