"""Comparison with the papers' tables: values, missing runs, bad directories, the command."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.evaluation.run_directory import Run, find_runs, read_run
from pfdet.openimages.classes import challenge_classes
from pfdet.recipes.paper_tables import Measure, paper_tables, table_of
from pfdet.report.comparison import (
    Cell,
    classes_of_rank,
    compare,
    group_by_setting,
    measure_value,
    other_runs,
)
from pfdet.report.comparison_plots import FIGURE_5, frequency_figures, training_curves
from pfdet.report.comparison_text import difference_text, here_text, markdown, terminal

ROOT = Path(__file__).resolve().parents[2]
TABLES = {table.key: table for table in paper_tables()}


def _run(name, value, seed=0, scale='mini', log=(), aps=None, **fields):
    """A run with an mAP of ``value`` percent, and that AP in every class."""
    aps = aps or {'/m/a': value / 100, '/m/b': value / 100}
    return Run(
        Path(f'runs/{name}/{seed}'),
        {'name': name, 'size': scale, **fields},
        {'seed': seed, 'images': 100, 'global_batch_size': 10, 'iterations': 40},
        {
            'mAP': value / 100,
            'AP': aps,
            'name': {'/m/a': 'A', '/m/b': 'B'},
            'n_ground_truth': {'/m/a': 5, '/m/b': 3},
        },
        log,
    )


def _row(compared, recipe):
    return next(row for table in compared for row in table.rows if row.row.recipe == recipe)


def test_values_of_the_papers_give_the_differences_of_the_papers():
    mids = challenge_classes().mids
    ranks = {mid: k for k, mid in enumerate(mids)}
    runs = []
    for table in TABLES.values():
        for row in table.rows:
            aps = dict.fromkeys(mids, 0.5)
            for measure, value in zip(table.measures, row.values):
                if measure.of == 'classes' and measure.name != 'Average':
                    aps.update(dict.fromkeys(measure.mids, value / 100))
                if measure.of == 'ranks':
                    first, last = measure.ranks
                    aps.update(dict.fromkeys(mids[first - 1 : last], value / 100))
            if row.recipe and row.values[0] is not None:
                runs.append(_run(row.recipe, row.values[0], scale='full', aps=aps))
    compared = compare(runs, ranks)
    assert [table.table for table in compared] == list(TABLES.values())
    n_difference = 0
    for table in compared:
        for row in table.rows:
            for cell, measure in zip(row.cells, table.table.measures):
                if not row.runs or not measure.of:
                    assert cell.here == () and cell.differences == ()
                    continue
                # The average over 47 classes in the paper is computed from unrounded values.
                atol = 0.06 if measure.name == 'Average' else 1e-9
                assert cell.mean == pytest.approx(cell.paper, abs=atol)
                if cell.paper_difference is None:
                    assert cell.differences == ()
                else:
                    assert cell.difference == pytest.approx(cell.paper_difference, abs=2 * atol)
                    agreement = '' if cell.paper_difference == 0 else 'as in the paper'
                    assert cell.agreement == agreement
                    n_difference += 1
    assert n_difference == 8 + 4 + 19 + 6 + 7 + 3 + 7 + 10 + 6
    assert 'mini scale' not in terminal(compared) and 'not run' in terminal(compared)


def test_seeds_and_differences_by_hand():
    base = [_run('table1-baseline', v, s) for s, v in ((0, 50), (1, 52), (2, 54))]
    above = [_run('table1-multiscale', v, s) for s, v in ((2, 55), (0, 52), (1, 51))]
    cell = _row(compare(base + above), 'table1-multiscale').cells[0]
    assert cell.here == pytest.approx((55, 52, 51)) and cell.paired
    assert cell.differences == pytest.approx((1, 2, -1)) and cell.agreement == 'seeds differ'
    assert here_text(cell) == '52.7 (55.0, 52.0, 51.0)'
    assert difference_text(cell) == '+0.7 (+1.0, +2.0, -1.0)'
    # With different seeds, the means are compared.
    cell = _row(compare(base + above[:1]), 'table1-multiscale').cells[0]
    assert not cell.paired and cell.differences == pytest.approx((55 - 52,))
    assert cell.agreement == 'as in the paper'
    # There are no runs to compare with.
    cell = _row(compare(above), 'table1-multiscale').cells[0]
    assert cell.differences == () and difference_text(cell) == '–'
    assert here_text(Cell(60.0, None, tuple(range(10)))) == (
        '4.5 (0.0 to 9.0, standard deviation 3.0, 10 runs)'
    )


@pytest.mark.parametrize(
    'differences, agreement',
    [
        ((0.3,), 'as in the paper'),
        ((-0.3,), 'opposite'),
        ((0.04, -0.04), 'no difference'),
        ((0.3, -0.3), 'seeds differ'),
        ((0.3, 0), 'seeds differ'),
        ((), ''),
    ],
)
def test_agreement(differences, agreement):
    assert Cell(60.3, 0.3, (60.0,), differences).agreement == agreement
    assert Cell(60.3, 0.0, (60.0,), differences).agreement == ''
    mirrored = Cell(60.3, -0.3, (60.0,), tuple(-d for d in differences))
    assert mirrored.agreement == agreement


def test_classes_of_rank():
    mids = [f'/m/{k}' for k in range(500)]
    images = {mid: (k * 7919) % 500 for k, mid in enumerate(mids)}
    chosen = classes_of_rank(images, mids, (11, 100))
    assert sorted(images[mid] for mid in chosen) == list(range(10, 100))
    # Ranks are scaled to the number of classes. A class without images is the rarest.
    few = mids[:40] + ['/m/none']
    assert '/m/none' in classes_of_rank(images, few, (11, 100))
    lengths = [len(classes_of_rank(images, few, r)) for r in ((11, 100), (101, 250), (251, 350))]
    assert lengths == [8, 12, 8]


@pytest.mark.parametrize(
    'groups',
    [
        {'rank 11-100': 0.25, 'rank 101-250': 0.5},
        {'11–100': {'mAP': 0.25, 'n_class': 90}},
        {'1011-100': 0.75, 'ranks 11-100': {'mAP': 0.25}},
    ],
)
def test_group_means_in_the_score_are_used(groups):
    score = {**_run('x', 75).score, 'groups': groups}
    assert measure_value(score, Measure('', 'ranks', ranks=(11, 100))) == 25


def test_group_means_in_the_score_may_be_missing():
    score = {
        'mAP': 0.5,
        'AP': {f'/m/{k}': k / 500 for k in range(500)},
        'groups': {'rank 11-100': None},
    }
    images = {mid: k for k, mid in enumerate(score['AP'])}
    assert measure_value(score, Measure('', 'ranks', ranks=(11, 100)), images) == pytest.approx(
        100 * np.mean(np.arange(10, 100) / 500)
    )
    assert measure_value({'mAP': None, 'AP': {}}, Measure('', 'mAP')) is None
    assert (
        measure_value({'mAP': None, 'AP': {'/m/a': None}}, Measure('', 'classes', ('/m/a',)))
        is None
    )


def test_settings_are_not_mixed():
    base = [_run('table1-baseline', 50, epochs=e) for e in (4, 8)]
    base[1] = replace(base[1], score={**base[1].score, 'mAP': 0.6})
    above = _run('table1-multiscale', 63, epochs=8)
    assert [(setting, len(runs)) for setting, runs in group_by_setting(base)] == [
        ({'epochs': 4}, 1),
        ({'epochs': 8}, 1),
    ]
    compared = compare([*base, above])
    rows = compared[0].rows
    assert [row.setting for row in rows[:3]] == ['epochs=4', 'epochs=8', '']
    # Compared with the runs that have the same number of epochs.
    assert rows[2].cells[0].differences == pytest.approx((3,))
    assert 'Baseline (FPN with SE-ResNeXt-101) [epochs=4]' in terminal(compared)
    # Without such runs, there is no difference.
    compared = compare([*base, _run('table1-multiscale', 63, epochs=16)])
    assert _row(compared, 'table1-multiscale').cells[0].differences == ()


def test_scales_are_not_mixed():
    runs = [_run('table1-baseline', 50), _run('table1-multiscale', 70, scale='full')]
    compared = [table for table in compare(runs) if table.n_run]
    assert [(table.table.key, table.scale, table.n_run) for table in compared] == [
        ('table1', 'full', 1),
        ('table1', 'mini', 1),
    ]
    assert all(not row.cells[0].differences for table in compared for row in table.rows)


def test_text_has_all_tables_rows_and_runs():
    runs = [
        _run('table1-baseline', 50),
        _run('mini', 40),
        _run('mini', 42, 1),
        _run('mini', 30, flip=False),
    ]
    compared, others = compare(runs), other_runs(runs)
    assert [(row.setting, len(row.runs)) for row in others] == [('flip=None', 2), ('flip=False', 1)]
    text = markdown(compared, others)
    for table in TABLES.values():
        assert table.caption in text
        for row in table.rows:
            assert row.name in text
    # One line per recipe without runs; Table 3 of PFDet has two recipes per line.
    n_recipe = sum(row.recipe is not None for t in TABLES.values() for row in t.rows)
    n_rank = 3 * 2
    assert text.count('not run') == n_recipe - 1 - 2 + n_rank + 2 * 19
    assert '41.0 (40.0, 42.0)' in text and 'mini scale' in text
    lines = [line for line in text.splitlines() if line.startswith('|')]
    assert all(line.endswith('|') for line in lines)
    assert 'Tables without runs: PFDet, Table 2; ' in terminal(compared, others)
    assert 'PFDet, Table 1, at mini scale' in terminal(compared, others)


def test_curves_over_epochs_and_figure_5():
    log = [{'iteration': 10 * k, 'validation/mAP': 0.1 * k} for k in (1, 2, 3)]
    runs = [_run(name, 30, seed, log=log) for name in FIGURE_5[1] for seed in (0, 1)]
    table = next(t for t in compare(runs) if t.table.key == 'cs-table3')
    svg = training_curves(table)
    assert 'Soft-balance, 0.7' in svg and 'epoch' in svg
    run = _run('table1-baseline', 30, log=log[:1])
    assert training_curves(compare([run])[0]) is None
    figures = frequency_figures(runs, {'/m/a': 100, '/m/b': 3}, 'training images')
    assert len(figures) == 1 and '2 of cs-table3-soft-0.7' in figures[0][0]
    assert figures[0][1].index('>A<') < figures[0][1].index('>B<')


def _write(directory, name='table1-baseline', seed=0, value=0.5, **files):
    directory.mkdir(parents=True, exist_ok=True)
    run = _run(name, 100 * value, seed)
    contents = {
        'recipe.json': {'recipe': run.recipe, 'run': run.facts, 'classes': []},
        'score.json': run.score,
        'log': [],
        **files,
    }
    for file, content in contents.items():
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (directory / file).write_text(text)


def test_find_runs(tmp_path):
    _write(tmp_path / 'a' / 'seed0')
    _write(tmp_path / 'a' / 'seed1', seed=1)
    _write(tmp_path / 'b', **{'score.json': None})
    runs, unfinished = find_runs([tmp_path, tmp_path / 'a' / 'seed0'])
    assert [run.path.name for run in runs] == ['seed0', 'seed1']
    assert [run.seed for run in runs] == [0, 1] and runs[0].name == 'table1-baseline'
    assert unfinished == [tmp_path / 'b']
    assert read_run(tmp_path / 'a' / 'seed0').epoch(20) == 2


@pytest.mark.parametrize(
    'files, where, expected',
    [
        ({'recipe.json': '{'}, 'recipe.json', 'JSON'),
        ({'recipe.json': []}, 'recipe.json', 'recipe that has a name'),
        ({'recipe.json': {'recipe': {}}}, 'recipe.json', 'recipe that has a name'),
        ({'score.json': None}, 'score.json', 'evaluate/score.py'),
        ({'score.json': 'not JSON'}, 'score.json', 'JSON'),
        ({'score.json': {'mAP': 0.5}}, 'score.json', 'mAP and AP by class'),
        ({'score.json': {'mAP': 2, 'AP': {}}}, 'score.json', 'from 0 to 1'),
        ({'score.json': '{"mAP": NaN, "AP": {}}'}, 'score.json', 'from 0 to 1'),
        ({'score.json': {'mAP': 0.5, 'AP': {'/m/a': 'x'}}}, 'score.json', '/m/a'),
        ({'log': '{}'}, 'log', 'LogReport'),
    ],
)
def test_bad_directories(tmp_path, files, where, expected):
    _write(tmp_path / 'run', **files)
    with pytest.raises(InputError) as e:
        find_runs([tmp_path / 'run'])
    assert str(tmp_path / 'run' / where) in str(e.value) and expected in str(e.value)


def test_directories_without_runs(tmp_path):
    with pytest.raises(InputError, match='no such directory'):
        find_runs([tmp_path / 'missing'])
    with pytest.raises(InputError, match='no recipe.json'):
        find_runs([tmp_path])


def _command(*args):
    return subprocess.run(
        [sys.executable, ROOT / 'evaluate' / 'compare_tables.py', *map(str, args)],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_command(tmp_path):
    for seed in 0, 1:
        _write(tmp_path / 'runs' / f'base{seed}', seed=seed)
        _write(tmp_path / 'runs' / f'multi{seed}', 'table1-multiscale', seed, 0.6)
    _write(tmp_path / 'runs' / 'mini', 'mini <b>')
    done = _command(
        '--runs',
        tmp_path / 'runs',
        '--out',
        tmp_path / 'report.html',
        '--markdown',
        tmp_path / 'report.md',
    )
    assert done.returncode == 0, done.stderr
    assert '60.0 (60.0, 60.0)  +10.0 (+10.0, +10.0)  as in the paper' in done.stdout
    page = (tmp_path / 'report.html').read_text()
    assert '+10.0 (+10.0, +10.0)' in page and 'mini &lt;b&gt;' in page and 'mini <b>' not in page
    # The other rows of the table; tables without a run are only named.
    assert 5 < page.count('not run') < 20 and 'Tables without runs: PFDet, Table 2; ' in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)
    assert not re.search(r'(src|href)="(?!#|data:)|url\((?!#)|<script|@import', page)
    assert 'mini <b>' in (tmp_path / 'report.md').read_text()


def test_command_on_a_bad_directory(tmp_path):
    _write(tmp_path / 'runs' / 'a', **{'score.json': None})
    for runs, message in (
        (tmp_path / 'runs', 'no score.json'),
        (tmp_path / 'x', 'no such directory'),
    ):
        done = _command('--runs', runs, '--out', tmp_path / 'report.html')
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert message in done.stderr
    assert not (tmp_path / 'report.html').exists()


def test_table_of_each_recipe():
    assert all(
        table_of(row.recipe) is table
        for table in TABLES.values()
        for row in table.rows
        if row.recipe
    )
