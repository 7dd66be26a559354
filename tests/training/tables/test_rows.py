"""Tests of running the rows of the papers' tables."""

import dataclasses
import json
from pathlib import Path

import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.training.tables.rows import Rows

SMALL = (
    'min_size=(64, 64)',
    'test_sizes=64',
    'batch_size=2',
    'fpn_channel=16',
    'head_unit=32',
    'epochs=0.2',
    'score_thresh=0.0',
    'test_proposals=(20, 10)',
)


@pytest.fixture
def rows(small_world, tmp_path):
    return Rows(
        tmp_path, small_world / 'train.index', small_world / 'validation.index', 'mini', 1, SMALL
    )


def test_shared_training_is_run_once(rows, capsys):
    plain = rows.run('cs-table2-softmax-softmax', 1)
    other = rows.run('cs-table2-softmax-concurrent', 1)
    commands = capsys.readouterr().out
    assert commands.count('pfdet train') == 1 and commands.count('pfdet predict') == 2
    trained = rows.directory('cs-table1-softmax-balanced', 1)
    assert (trained / 'model.npz').exists() and not (other / 'model.npz').exists()
    for directory, name, score in (
        (plain, 'softmax-softmax', ''),
        (other, 'softmax-concurrent', 'concurrent_softmax'),
    ):
        content = json.loads((directory / 'recipe.json').read_text())
        assert content['recipe']['name'] == f'cs-table2-{name}'
        assert content['recipe']['score'] == score
        assert content['run']['trained'] == 'cs-table1-softmax-balanced/seed1'
        assert 'groups' in json.loads((directory / 'score.json').read_text())
    assert (plain / 'detections.parquet').read_bytes() != (
        other / 'detections.parquet'
    ).read_bytes()

    rows.run('cs-table2-softmax-softmax', 1)
    assert capsys.readouterr().out == ''


def test_rows_with_the_same_training(rows):
    assert rows.same_training('table3-cooccurrence') == 'table1-cooccurrence'
    assert rows.same_training('cs-table3-class-aware') == 'cs-table1-softmax-balanced'
    # Class-aware sampling equals soft-balance with lambda 1.
    assert rows.same_training('cs-table3-soft-1.0') == 'cs-table1-softmax-balanced'
    # At mini size, all rows have the same backbone, without ImageNet weights.
    assert rows.same_training('cs-table4-non-balance-7') == 'cs-table1-softmax'
    full = Rows(rows.out, rows.train_index, rows.val_index, 'full', 1)
    assert full.same_training('cs-table4-non-balance-7') == 'cs-table4-non-balance-7'
    for name in recipes.RECIPES:
        first = rows.same_training(name)
        assert rows.same_training(first) == first


def test_rows_start_from_a_backbone_as_in_the_papers(rows, monkeypatch):
    commands = {}

    def record(*args, **_):
        args = [str(a) for a in args]
        out = Path(args[args.index('--out') + 1])
        commands[out.parent.name] = args
        out.mkdir(parents=True)
        (out / 'model.npz').touch()

    monkeypatch.setattr('pfdet.training.tables.rows.run_python', record)
    with_backbone = dataclasses.replace(
        rows,
        backbones={'mini_se_resnext': rows.out / 'backbone.npz'},
        validations=2,
        validated=('cs-table3-non-balance',),
    )
    for name in 'mini', 'cs-table4-hybrid-s20', 'cs-table4-non-balance-7':
        with_backbone.train(name, 0)
    init = {
        name: args[args.index('--init') + 1] if '--init' in args else None
        for name, args in commands.items()
    }
    assert init == {
        'mini': str(rows.out / 'backbone.npz'),
        'cs-table4-scratch-20': None,
        'cs-table4-hybrid-s20': str(rows.directory('cs-table4-scratch-20', 0) / 'model.npz'),
        'cs-table1-softmax': str(rows.out / 'backbone.npz'),
    }
    # The row of Table 3 without balancing shares its training with Table 1.
    assert {name for name, args in commands.items() if '--val-index' in args} == {
        'cs-table1-softmax'
    }


def test_error_of_a_failed_step_names_its_log(rows):
    with pytest.raises(InputError, match=r'failed with status 2; see .*output.txt'):
        Rows(rows.out, rows.train_index.with_name('missing'), rows.val_index, 'mini', 1, SMALL).run(
            'cs-table1-softmax', 0
        )
    log = rows.directory('cs-table1-softmax', 0) / 'output.txt'
    assert 'missing' in log.read_text()


@pytest.fixture
def trained(rows, monkeypatch):
    """A function that writes the directory of a trained row, and the commands that are run."""
    commands = []
    monkeypatch.setattr(
        'pfdet.training.tables.rows.run_python', lambda *args, **_: commands.append(args)
    )

    def write(name, init, rows=rows, **fields):
        directory = rows.directory(name, 0)
        directory.mkdir(parents=True)
        recipe = {**recipes.to_dict(rows.recipe(name)), **fields}
        (directory / 'recipe.json').write_text(
            json.dumps({'recipe': recipe, 'run': {'init': init}})
        )
        (directory / 'model.npz').touch()
        (directory / 'log').write_text('[]')
        return directory

    return write, commands


@pytest.mark.parametrize(
    'fields, message',
    [
        ({'about': 'in other words'}, None),
        ({'epochs': 0.4}, 'was started with epochs=0.4, not 0.2; give another --out'),
        ({'min_size': [64, 80]}, r'was started with min_size=\(64, 80\), not \(64, 64\)'),
        ({'score_thresh': 0.5}, 'was started with score_thresh=0.5, not 0.0'),
    ],
)
def test_a_run_with_other_settings_is_not_taken_for_this_one(fields, message, rows, trained):
    write, commands = trained
    directory = write('cs-table1-softmax', None, **fields)
    if message is None:
        assert rows.train('cs-table1-softmax', 0) == directory
        return
    for step in rows.train, rows.run:
        with pytest.raises(InputError, match=f'{directory}: {message}'):
            step('cs-table1-softmax', 0)
    (directory / 'done').touch()
    with pytest.raises(InputError, match=message):
        rows.run('cs-table1-softmax', 0)
    assert commands == []


@pytest.mark.parametrize(
    'size, started_from, backbone, random, message',
    [
        ('mini', None, None, False, None),
        ('mini', 'b.npz', 'b.npz', False, None),
        ('mini', None, 'b.npz', False, 'started from random weights, not from b.npz'),
        ('mini', 'b.npz', None, False, 'started from b.npz, not from random weights'),
        # Without --backbone, what was trained with one is used.
        ('full', 'b.npz', None, False, None),
        ('full', 'b.npz', None, True, 'started from b.npz, not from random weights'),
        ('full', None, 'b.npz', False, 'started from random weights, not from b.npz'),
        ('full', None, None, True, None),
    ],
)
def test_random_and_pretrained_weights_are_not_mixed(
    size, started_from, backbone, random, message, rows, trained
):
    write, _ = trained
    name = 'cs-table1-softmax'
    backbones = {} if backbone is None else dict.fromkeys(('resnet50', 'mini_se_resnext'), backbone)
    rows = dataclasses.replace(rows, size=size, backbones=backbones, random_weights=random)
    directory = write(name, started_from, rows)
    if message is None:
        assert rows.train(name, 0) == directory
    else:
        with pytest.raises(InputError, match=message):
            rows.train(name, 0)


def test_without_weights_imagenet_and_scratch_are_one_training(rows):
    def first(name, **options):
        return dataclasses.replace(rows, **options).same_training(name)

    # The same but for what they start from
    settings = (*SMALL, 'epochs=20')
    pair = 'cs-table4-non-balance-16', 'cs-table4-scratch-20'
    backbones = {'mini_se_resnext': Path('b.npz'), 'resnext152': Path('b.npz')}
    for options, same in (
        ({'size': 'mini'}, True),
        ({'size': 'mini', 'backbones': backbones}, False),
        ({'size': 'full'}, False),
        ({'size': 'full', 'random_weights': True}, True),
        ({'size': 'full', 'random_weights': True, 'backbones': backbones}, False),
    ):
        trainings = {first(name, settings=settings, **options) for name in pair}
        assert (len(trainings) == 1) == same, options


def test_commands_of_rows_without_weights_say_so(rows, trained):
    _, commands = trained
    for options, expected in (
        ({'size': 'mini'}, False),
        ({'size': 'full', 'random_weights': True}, True),
        ({'size': 'full', 'random_weights': True, 'backbones': {'resnet50': Path('b')}}, False),
    ):
        commands.clear()
        dataclasses.replace(rows, **options).train('cs-table1-softmax', 0)
        assert ('--random-weights' in commands[0]) == expected
        assert ('--init' in commands[0]) == ('backbones' in options)


def test_what_a_row_starts_from_comes_first(rows):
    assert rows.with_what_it_starts_from('cs-table4-soft-balance') == [
        'cs-table4-scratch-20',
        'cs-table4-soft-balance',
    ]
    assert rows.with_what_it_starts_from('mini') == ['mini']


@pytest.mark.parametrize(
    'settings, expected',
    [
        (('epochs=3', 'min_size=(64,64)'), {'epochs': 3, 'min_size': [64, 64]}),
        (('min_size=( 64, 64 )', 'epochs=3'), {'epochs': 3, 'min_size': [64, 64]}),
        (('loss=softmax', "sampler='class_aware'"), {'loss': 'softmax', 'sampler': 'class_aware'}),
    ],
)
def test_settings_are_compared_by_value(settings, expected, rows):
    assert dataclasses.replace(rows, settings=settings).given_fields == expected
