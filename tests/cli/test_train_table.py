"""``train_table.py`` on rows of a few iterations."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.links.backbone_file import write_backbone

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
        (['--table', 'table9'], '--table table9: did you mean table'),
        (['--table', 'experts'], '--table experts: expected one of table1, table2'),
        (
            ['--table', 'table1', '--rows', 'cs-table1-softmax'],
            'no row of table1; expected one of table1-baseline',
        ),
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


@pytest.fixture
def backbone(tmp_path):
    path = tmp_path / 'backbone.npz'
    write_backbone(path, {'x': np.zeros(1, np.float32)})
    return path


MINI = '--scale', 'mini', '--table', 'table4'
OF_TABLE_1 = 'se_resnext101=FILE senet154=FILE'


@pytest.mark.parametrize(
    'arguments, message',
    [
        # Rows that start from ImageNet, at full size
        (
            ['--table', 'table1', '--rows', 'table1-psp'],
            'for table1-psp, give the backbone trained on ImageNet: --backbone '
            'se_resnext101=FILE.npz (pfdet convert --arch se_resnext101 --weights FILE --out '
            'FILE.npz), or --random-weights',
        ),
        (
            ['--table', 'table4'],
            'for table1-senet154, give the backbone trained on ImageNet: --backbone senet154=',
        ),
        (
            ['--table', 'cs-table4', '--rows', 'cs-table4-hybrid-i14'],
            'for cs-table4-non-balance-14, give the backbone',
        ),
        (
            ['--table', 'table1', '--backbone', 'senet154=BACKBONE'],
            'table1-context, give the backbone trained on ImageNet: --backbone se_resnext101=',
        ),
        (
            ['--table', 'table1', '--backbone', 'BACKBONE'],
            f'the rows have several backbones; expected {OF_TABLE_1}',
        ),
        (
            ['--table', 'table1', '--backbone', 'resnet50=BACKBONE'],
            'expected one file for each of se_resnext101, senet154',
        ),
        (
            ['--table', 'cs-table1', '--backbone', 'BACKBONE', 'BACKBONE'],
            'expected one file for each of resnet50',
        ),
        (['--table', 'cs-table1', '--backbone', 'missing.npz'], 'missing.npz: '),
        (['--table', 'cs-table1', '--backbone', 'MODEL/model.npz'], 'not a backbone file'),
        (
            ['--table', 'cs-table4', '--rows', 'cs-table4-scratch-20', '--backbone', 'BACKBONE'],
            'no row starts from a pretrained backbone',
        ),
        (
            ['--scale', 'mini', '--table', 'cs-table1', '--set', 'backbone=resnet50'],
            'give the backbone trained on ImageNet: --backbone resnet50=FILE.npz',
        ),
        (['--table', 'mini'], '--scale full: recipe mini is defined at mini scale only'),
        # Experts and ensembles
        (
            ['--scale', 'mini', '--table', 'table2', '--rows', 'table2-all', 'table2-coco'],
            '--rows table2-coco: without --second-index INDEX, the images of another data set, '
            'they cannot be run',
        ),
        ([*MINI, '--full', 'nowhere'], '--full nowhere: expected a recipe, or the directory of'),
        ([*MINI, '--full', 'table4-full'], '--full table4-full: expected a recipe'),
        ([*MINI, '--others', 'nowhere'], '--others nowhere: expected recipes, RECIPE/seedS, or'),
        ([*MINI, '--others', 'mini/seed'], '--others mini/seed: expected'),
        ([*MINI, '--class-range', '11'], '--class-range 11: expected two ranks such as 11-100'),
        ([*MINI, '--class-range', '20-11'], '--class-range 20-11: expected two ranks'),
        ([*MINI, '--class-range', '0-11'], '--class-range 0-11: expected two ranks'),
        ([*MINI, '--images-seen', '0'], '--images-seen 0: expected an integer from 1 to'),
        ([*MINI, '--ranks', '0'], '--ranks 0: expected an integer from 1 to'),
        ([*MINI, '--ranks-per-expert', '0'], '--ranks-per-expert 0: expected an integer from 1 to'),
        ([*MINI, '--sizes', '64', '0'], '--sizes 0: expected an integer from 16 to'),
        ([*MINI, '--seeds', '0', '-1'], '--seeds -1: expected an integer from 0 to'),
        ([*MINI, '--split-seed', '-1'], '--split-seed -1: expected an integer from 0 to'),
        ([*MINI, '--weights-index', 'VAL'], '8 of its images are scored too'),
        ([*MINI, '--weights-index', 'missing'], 'missing: '),
        ([*MINI, '--second-index', 'missing'], 'missing: '),
        ([*MINI, '--set', 'epoch=1'], "unknown recipe field 'epoch'"),
    ],
)
def test_arguments_are_checked_before_anything_is_trained(
    arguments, message, backbone, small_world, tmp_path, monkeypatch, capsys
):
    model = tmp_path / 'model'
    model.mkdir()
    np.savez(model / 'model.npz', x=np.zeros(1))
    files = {'BACKBONE': backbone, 'MODEL': model, 'VAL': small_world / 'validation.index'}
    for word, path in files.items():
        arguments = [text.replace(word, str(path)) for text in arguments]
    indexes = [
        *('--train-index', small_world / 'train.index'),
        *('--val-index', small_world / 'validation.index'),
    ]
    assert run(monkeypatch, *arguments, *indexes, '--out', tmp_path / 'out') == 2
    output = capsys.readouterr()
    assert message in output.err and output.err.count('\n') == 1
    assert '$ ' not in output.out
    assert not (tmp_path / 'out').exists()


def noted(monkeypatch, capsys, small_world, tmp_path, *arguments):
    """What is printed before the first command, which fails here."""

    def run_python(*args, **_):
        raise InputError('stopped')

    monkeypatch.setattr('pfdet.training.tables.rows.run_python', run_python)
    indexes = [
        *('--train-index', small_world / 'train.index'),
        *('--val-index', small_world / 'validation.index'),
    ]
    assert run(monkeypatch, *arguments, *indexes, '--out', tmp_path / 'out') == 2
    output = capsys.readouterr()
    assert output.err == 'error: stopped\n'
    return output.out


def test_scratch_is_not_silently_compared_with_scratch(
    small_world, tmp_path, backbone, monkeypatch, capsys
):
    context = monkeypatch, capsys, small_world, tmp_path
    rows = '--table', 'cs-table4', '--rows', 'cs-table4-non-balance-16', 'cs-table4-scratch-20'
    note = (
        'note: no pretrained backbone is given: random weights for cs-table4-non-balance-16, as '
        'for cs-table4-scratch-20; their differences say nothing about pretraining on ImageNet\n'
    )
    assert noted(*context, '--scale', 'mini', *rows) == note
    assert noted(*context, '--random-weights', *rows) == note
    assert noted(*context, '--backbone', backbone, *rows) == ''
    assert noted(*context, '--scale', 'mini', '--backbone', backbone, *rows) == ''
    # Without a row from scratch, no comparison is wrong.
    out = noted(*context, '--scale', 'mini', '--table', 'mini', '--rows', 'mini')
    assert out == 'note: no pretrained backbone is given: random weights for mini\n'


def test_weights_are_not_needed_again(small_world, tmp_path, monkeypatch, capsys):
    """Rows that are trained do not need their backbone."""
    directory = tmp_path / 'out' / 'cs-table1-softmax' / 'seed0'
    directory.mkdir(parents=True)
    (directory / 'model.npz').touch()
    recipe = recipes.to_dict(recipes.find('cs-table1-softmax'))
    (directory / 'recipe.json').write_text(
        json.dumps({'recipe': recipe, 'run': {'init': 'resnet50.npz'}})
    )
    options = '--table', 'cs-table1', '--rows', 'cs-table1-softmax'
    assert noted(monkeypatch, capsys, small_world, tmp_path, *options) == ''


def test_only_finished_rows_are_compared(small_world, tmp_path, monkeypatch):
    """A model of an ensemble has the score of its last validation, but is not a row."""
    recipe = recipes.to_dict(recipes.find('cs-table1-softmax', 'mini'))
    for seed in 0, 1, 2:
        directory = tmp_path / 'cs-table1-softmax' / f'seed{seed}'
        directory.mkdir(parents=True)
        (directory / 'recipe.json').write_text(
            json.dumps({'recipe': recipe, 'run': {'seed': seed, 'init': None}})
        )
        (directory / 'model.npz').touch()
        (directory / 'score.json').write_text(json.dumps({'mAP': 0.5, 'AP': {}}))
        if seed != 1:
            (directory / 'done').touch()
    compared = []
    monkeypatch.setattr('pfdet.subprocesses.run_python', lambda *args, **_: compared.append(args))
    arguments = [
        *('--scale', 'mini', '--table', 'cs-table1', '--rows', 'cs-table1-softmax'),
        *('--train-index', small_world / 'train.index'),
        *('--val-index', small_world / 'validation.index', '--out', tmp_path),
    ]
    assert run(monkeypatch, *arguments) == 0
    (args,) = compared
    row = tmp_path / 'cs-table1-softmax'
    assert args[3:-2] == ('--runs', row / 'seed0', row / 'seed2')
