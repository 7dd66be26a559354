import sys
from pathlib import Path

import pytest

from pfdet import recipes
from pfdet.errors import InputError
from study import __main__ as study
from study.__main__ import page_file
from study.plan import PARTS, PLAN
from study.results import read_results


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


def test_a_page_of_given_results_leaves_the_runs_of_the_study_alone(
    small_world, tmp_path, monkeypatch, capsys
):
    """Results of recipes that have changed since make a page, but no runs of a later study."""
    root = Path(__file__).resolve().parents[2]
    given = root / 'docs' / 'study' / 'results.jsonl'
    indexes = {key: small_world / f'{key}.index' for key in ('train', 'validation')}
    monkeypatch.setattr(study, 'draw', lambda *_: indexes)
    monkeypatch.setattr(study, 'digest', lambda _: read_results(given)[0])
    page = tmp_path / 'page' / 'study.md'
    flags = '--report', '--given', given, '--report-to', page, '--out', tmp_path / 'out'
    backbone = given.with_name('backbone.npz')
    monkeypatch.setattr(sys, 'argv', ['study', *map(str, flags), '--backbone', str(backbone)])
    monkeypatch.chdir(root)
    study.main()
    n = len(read_results(given)[1])
    assert f'{n} runs taken from' in capsys.readouterr().out
    assert f'from {n} scored runs' in ' '.join(page.read_text().split())
    assert page_file(page, 'results.jsonl').read_text() == given.read_text()
    assert not (tmp_path / 'out').exists()
