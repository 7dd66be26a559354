"""Every page of a run says when it started from other weights than its recipe."""

import json
import sys
from pathlib import Path

import pytest

from pfdet.cli import compare_tables
from pfdet.evaluation.run_directory import Run
from pfdet.recipes.initial_weights import described_start, deviation, deviation_sentence
from pfdet.report.comparison import compare, other_runs
from pfdet.report.comparison_text import START_NOTE, markdown, terminal
from pfdet.report.run_page import write_report

RANDOM = {'random_weights': True, 'init': None}
BACKBONE = {'random_weights': False, 'init': 'b.npz', 'init_kind': 'backbone'}
DETECTOR = {'random_weights': False, 'init': 'run/model.npz', 'init_kind': 'detector'}
FINE_TUNED = 'cs-table4-scratch-20'


@pytest.mark.parametrize(
    'init, facts, expected',
    [
        ('imagenet', RANDOM, 'from random weights'),
        ('imagenet', BACKBONE, ''),
        ('imagenet', DETECTOR, 'from a detector'),
        ('scratch', RANDOM, ''),
        ('scratch', BACKBONE, 'from a backbone'),
        ('scratch', DETECTOR, 'from a detector'),
        (FINE_TUNED, RANDOM, 'from random weights'),
        (FINE_TUNED, BACKBONE, 'from a backbone'),
        (FINE_TUNED, DETECTOR, ''),
        # Runs of earlier versions record the file alone.
        ('imagenet', {'init': None}, 'from random weights'),
        ('imagenet', {'init': 'x.npz'}, ''),
        ('scratch', {'init': None}, ''),
        # Nothing is recorded: rows that are not a training.
        ('imagenet', {}, ''),
        (FINE_TUNED, {'seed': 3}, ''),
    ],
)
def test_deviation(init, facts, expected):
    recipe = {'name': 'mine', 'init': init}
    assert deviation(recipe, facts) == expected
    assert Run(Path('x'), recipe, facts, {'mAP': 0.5, 'AP': {}}).deviation == expected
    sentence = deviation_sentence(recipe, facts)
    wanted = {'imagenet': 'a backbone trained on ImageNet', 'scratch': 'random weights'}
    if expected:
        wanted = wanted.get(init, f'the weights of {init}')
        assert sentence == f'This run started {expected}; its recipe starts from {wanted}.'
    else:
        assert sentence == ''


@pytest.mark.parametrize(
    'facts, expected',
    [
        (RANDOM, 'random weights'),
        ({}, ''),
        ({'init': 'x.npz'}, 'x.npz'),
        (BACKBONE, 'b.npz (a backbone)'),
        (
            {**DETECTOR, 'init_recipe': 'mini', 'init_sha256': '0123456789abcdef'},
            'run/model.npz (a detector of mini, SHA-256 0123456789ab)',
        ),
    ],
)
def test_described_start(facts, expected):
    assert described_start(facts) == expected


def make_run(name, facts, init='imagenet', seed=0, value=0.5):
    score = {'mAP': value, 'AP': {'/m/a': value}, 'name': {'/m/a': 'A'}}
    score['n_ground_truth'] = {'/m/a': 5}
    facts = {'seed': seed, 'images': 100, 'global_batch_size': 10, 'iterations': 4, **facts}
    return Run(
        Path(f'runs/{name}/{seed}'), {'name': name, 'size': 'mini', 'init': init}, facts, score
    )


def test_rows_are_marked():
    """From scratch is not compared with "ImageNet" that was none without a word."""
    runs = [
        make_run('cs-table4-non-balance-7', RANDOM),
        make_run('cs-table4-scratch-20', RANDOM, 'scratch', value=0.6),
        make_run('table1-baseline', BACKBONE),
        make_run('mine', DETECTOR),
    ]
    compared, others = compare(runs), other_runs(runs)
    marked = {row.row.recipe: row.deviation for table in compared for row in table.rows if row.runs}
    assert marked == {
        'cs-table4-non-balance-7': 'from random weights',
        'cs-table4-scratch-20': '',
        'table1-baseline': '',
    }
    for text in terminal(compared, others), markdown(compared, others):
        assert text.count('(from random weights)') == 1
        assert text.count('mine (mini) (from a detector)') == 1
        assert text.count(START_NOTE) == 1
    quiet = [run for run in runs if not run.deviation]
    assert START_NOTE not in terminal(compare(quiet)) + markdown(compare(quiet))


def test_runs_from_different_weights_are_not_averaged():
    runs = [
        make_run('table1-baseline', RANDOM, seed=0, value=0.4),
        make_run('table1-baseline', RANDOM, seed=1, value=0.5),
        make_run('table1-baseline', BACKBONE, seed=2, value=0.9),
    ]
    table = next(table for table in compare(runs) if table.n_run)
    rows = [row for row in table.rows if row.row.recipe == 'table1-baseline']
    assert [(row.deviation, row.cells[0].here) for row in rows] == [
        ('from random weights', (40, 50)),
        ('', (90,)),
    ]
    # The mark says it; it is not repeated as a setting.
    assert 'run.deviation' not in markdown(compare(runs))


def write_run(directory, run):
    directory.mkdir(parents=True)
    content = {'recipe': run.recipe, 'run': run.facts, 'classes': []}
    (directory / 'recipe.json').write_text(json.dumps(content))
    (directory / 'score.json').write_text(json.dumps(run.score))


@pytest.mark.parametrize('facts, marked', [(RANDOM, True), (DETECTOR, True), (BACKBONE, False)])
def test_the_comparison_page_and_the_terminal(facts, marked, tmp_path, monkeypatch, capsys):
    run = make_run('table1-baseline', facts)
    write_run(tmp_path / 'runs' / 'a', run)
    page = tmp_path / 'report.html'
    arguments = ['--runs', tmp_path / 'runs', '--out', page, '--markdown', tmp_path / 'report.md']
    monkeypatch.setattr(sys, 'argv', ['compare-tables', *map(str, arguments)])
    compare_tables.main()
    texts = capsys.readouterr().out, (tmp_path / 'report.md').read_text(), page.read_text()
    for text in texts:
        text = text.replace('&#34;', '"')
        assert (START_NOTE in text) == marked
        assert bool(run.deviation) == marked and (f'({run.deviation})' in text) == marked
    assert f'started from {described_start(facts)}' in texts[-1]
    assert ('its recipe starts from a backbone' in texts[-1]) == marked


@pytest.mark.parametrize('facts, marked', [(RANDOM, True), (DETECTOR, True), (BACKBONE, False)])
def test_the_report_of_a_run(facts, marked, tmp_path):
    run = make_run('table1-baseline', facts)
    path = tmp_path / 'report.html'
    write_report(path, 'A run', run.recipe, [], run.score, run=run.facts, notes=['Another note.'])
    page = path.read_text()
    assert 'Started from' in page and described_start(facts) in page and 'Another note.' in page
    assert ('its recipe starts from a backbone trained on ImageNet.' in page) == marked
