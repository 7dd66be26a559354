import sys

import pytest

from pfdet import recipes
from pfdet.errors import InputError
from study import __main__ as study
from study.plan import PARTS, PLAN


@pytest.mark.parametrize(
    'flags, message',
    [
        (
            ('--row', 'cs-table9'),
            r'--row cs-table9: no such row; expected one of table1-baseline, ',
        ),
        (('--row', 'expert-class10'), r'--row expert-class10: no such row'),
        (
            ('--notes', 'no-claim'),
            r'--notes no-claim: no such claim; expected cooccurrence-parts, cooccurrence, ',
        ),
        (
            ('--only', 'mini', 'cs-table9'),
            r'--only cs-table9: not in the plan of the study; expected mini, ',
        ),
    ],
)
def test_unknown_names_are_refused_before_data_are_drawn(flags, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['study', '--out', str(tmp_path / 'out'), *flags])
    with pytest.raises(InputError, match=message):
        study.main()
    assert list(tmp_path.iterdir()) == []


def test_plan_has_recipes_and_no_duplicates():
    assert len(set(PLAN)) == len(PLAN)
    for name, _ in PLAN:
        assert name in PARTS or name in recipes.RECIPES
