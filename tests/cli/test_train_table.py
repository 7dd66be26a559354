"""``train_table.py`` on rows of a few iterations."""

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'train' / 'train_table.py'
SMALL = [
    '--set',
    'min_size=(64, 64)',
    'test_sizes=64',
    'batch_size=2',
    'fpn_channel=16',
    'head_unit=32',
    'epochs=0.2',
    'score_thresh=0.0',
    'test_proposals=(20, 10)',
]


def run(monkeypatch, *args: object) -> int:
    monkeypatch.setattr(sys, 'argv', [str(SCRIPT), *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name='__main__')
    return ended.value.code


def test_rows_are_trained_scored_and_compared(small_world, tmp_path, monkeypatch, capfd):
    arguments = [
        '--table',
        'table1',
        '--rows',
        'table1-baseline',
        'table1-psp',
        '--scale',
        'mini',
        '--train-index',
        small_world / 'train.index',
        '--val-index',
        small_world / 'validation.index',
        '--out',
        tmp_path,
        '--ranks',
        1,
        *SMALL,
    ]
    assert run(monkeypatch, *arguments) == 0
    scores = {}
    for row in 'table1-baseline', 'table1-psp':
        directory = tmp_path / row / 'seed0'
        assert json.loads((directory / 'recipe.json').read_text())['recipe']['name'] == row
        scores[row] = json.loads((directory / 'score.json').read_text())['mAP']
        assert 0 <= scores[row] <= 1
    page = (tmp_path / 'table1.html').read_text()
    assert 'table1-psp' in page

    # Again: everything is done, only the comparison is written anew.
    capfd.readouterr()
    assert run(monkeypatch, *arguments) == 0
    commands = [line for line in capfd.readouterr().out.splitlines() if line.startswith('$ ')]
    assert len(commands) == 1 and 'compare-tables' in commands[0]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--table', 'table9'], '--table table9: expected one of table1'),
        (['--table', 'table1', '--rows', 'cs-table1-softmax'], 'expected rows of table1: '),
        (['--table', 'table1'], 'give --train-index INDEX or set $PFDET_TRAIN_INDEX'),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, monkeypatch, capsys, tmp_path):
    for name in 'PFDET_TRAIN_INDEX', 'PFDET_VAL_INDEX':
        monkeypatch.delenv(name, raising=False)
    assert run(monkeypatch, *arguments, '--out', tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()
