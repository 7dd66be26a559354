import json
from pathlib import Path

import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.training.tables.rows import Rows
from study.expert_ensembles import FULL
from study.results import digest, is_current, read_results, restore_results, write_results

NAME = 'cs-table1-softmax'


def rows_in(directory, *settings):
    return Rows(directory, Path('train.index'), Path('validation.index'), 'mini', 1, settings)


def write_run(rows, name, seed, recipe, **facts):
    directory = rows.directory(name, seed)
    directory.mkdir(parents=True)
    (directory / 'recipe.json').write_text(
        json.dumps({'recipe': recipe, 'run': {'seed': seed, 'images': 9, **facts}, 'classes': []})
    )
    for file, value in (('score', 0.5 + seed / 10), ('score-test', 0.25)):
        (directory / f'{file}.json').write_text(
            json.dumps(
                {
                    'mAP': value,
                    'AP': {'/m/a': value, '/m/b': None},
                    'precision': {'/m/a': [1.0] * 99},
                }
            )
        )
    (directory / 'log').write_text(
        json.dumps(
            [
                {
                    'iteration': k,
                    'main/loss': 1 / k,
                    'lr': 0.1,
                    **({'validation/mAP': 0.1} if k == 2 else {}),
                }
                for k in (1, 2, 3, 4)
            ]
        )
    )
    (directory / 'done').write_text('abc123\n')


@pytest.fixture
def written(tmp_path):
    rows = rows_in(tmp_path / 'other')
    for seed in 0, 2:
        write_run(rows, NAME, seed, recipes.to_dict(rows.recipe(NAME)))
    write_run(
        rows,
        'table2-all',
        0,
        {'name': 'table2-all', 'about': '', 'size': 'mini'},
        scores={'score': {'full': recipes.to_dict(rows.recipe(FULL))}},
    )
    # Not scored yet.
    (rows.directory(NAME, 1)).mkdir()
    (rows.directory(NAME, 1) / 'recipe.json').write_text('{}')
    # Still in training, with the score of a validation.
    write_run(rows, NAME, 3, recipes.to_dict(rows.recipe(NAME)))
    (rows.directory(NAME, 3) / 'done').unlink()
    assert write_results(rows, 'data-0', tmp_path / 'docs' / 'results.jsonl') == 3
    return tmp_path / 'docs' / 'results.jsonl'


def test_restored_runs_are_not_run_again(written, tmp_path, capsys):
    rows = rows_in(tmp_path / 'here')
    assert restore_results(rows, 'data-0', written) == 3
    directory = rows.directory(NAME, 2)
    assert json.loads((directory / 'score.json').read_text()) == {'mAP': 0.7, 'AP': {'/m/a': 0.7}}
    assert json.loads((directory / 'score-test.json').read_text())['mAP'] == 0.25
    # Entries with a validation, and the last one.
    assert [e['iteration'] for e in json.loads((directory / 'log').read_text())] == [2, 4]
    # Nothing is run, and the commit of each run is kept.
    assert rows.run(NAME, 2) == directory and capsys.readouterr().out == ''
    again = tmp_path / 'again.jsonl'
    write_results(rows, 'data-0', again)
    assert again.read_text() == written.read_text()
    assert {line['commit'] for line in read_results(again)[1]} == {'abc123'}


def test_existing_runs_are_kept_and_changed_recipes_skipped(written, tmp_path):
    rows = rows_in(tmp_path / 'here')
    write_run(rows, NAME, 0, {'name': NAME})
    assert restore_results(rows, 'data-0', written) == 2
    assert 'precision' in json.loads((rows.directory(NAME, 0) / 'score.json').read_text())
    changed = rows_in(tmp_path / 'changed', 'epochs=3')
    assert restore_results(changed, 'data-0', written) == 0
    assert not changed.out.exists()
    # For a page of these results
    assert restore_results(changed, 'data-0', written, changed=True) == 3


FULL_RECIPE = recipes.to_dict(recipes.find(FULL))


@pytest.mark.parametrize(
    'name, recipe, facts, current',
    [
        (NAME, {}, {}, True),
        (NAME, {'about': 'in other words'}, {}, True),
        (NAME, {'epochs': 1.5}, {}, False),
        (NAME, {'no_such_field': 1}, {}, False),
        (NAME, {'loss': 'no such loss'}, {}, False),
        # Fields of earlier versions: one value where there are several now, and fewer fields.
        (NAME, {'test_sizes': None, 'test_size': 160}, {}, True),
        (NAME, {'test_sizes': None, 'test_size': 144}, {}, False),
        ('table2-all', {}, {'scores': {'score': {'full': FULL_RECIPE}}}, True),
        ('table2-all', {}, {'full': FULL_RECIPE}, True),
        ('table2-all', {}, {'full': {**FULL_RECIPE, 'epochs': 1.5}}, False),
        ('table2-all', {}, {}, False),
    ],
)
def test_a_run_is_current_if_its_recipe_has_not_changed(name, recipe, facts, current, tmp_path):
    rows = rows_in(tmp_path)
    known = recipes.to_dict(rows.recipe(name)) if name in recipes.RECIPES else {'name': name}
    fields = {key: value for key, value in {**known, **recipe}.items() if value is not None}
    assert is_current(rows, fields, facts) == current


def test_results_of_other_data_and_damaged_results_are_refused(written, tmp_path):
    with pytest.raises(
        InputError,
        match=r'results.jsonl: its runs used other data \(data-0\) than is drawn here \(data-1\)',
    ):
        restore_results(rows_in(tmp_path / 'here'), 'data-1', written)
    lines = written.read_text().splitlines()
    for damaged, message in (
        ([*lines[:2], lines[2][:40]], 'line 3: '),
        (['[]'], 'line 1: '),
        ([lines[0], '{"run": "x"}'], 'line 2: no commit'),
        ([], 'empty'),
    ):
        written.write_text('\n'.join(damaged))
        with pytest.raises(InputError, match=message):
            read_results(written)
    with pytest.raises(InputError, match='missing.jsonl'):
        read_results(tmp_path / 'missing.jsonl')


def test_digest_depends_on_annotation_files_alone(tmp_path):
    digests = set()
    for text in 'a', 'b':
        (tmp_path / 'first').mkdir(exist_ok=True)
        (tmp_path / 'first' / 'train-annotations-bbox.csv').write_text(text)
        (tmp_path / 'first' / 'other.txt').write_text(text)
        digests.add(digest(tmp_path))
    assert len(digests) == 2
