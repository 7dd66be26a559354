import json
from pathlib import Path

import pytest

from study import expert_ensembles


def between(args, flag):
    """The values of a flag, up to the next one."""
    rest = args[args.index(flag) + 1 :]
    return rest[: next((k for k, arg in enumerate(rest) if arg.startswith('--')), len(rest))]


TABLE2 = [row.name for row in expert_ensembles.TABLE2]


@pytest.fixture
def indexes(tmp_path):
    return {name: tmp_path / f'{name}.index' for name in ('validation', 'test', 'second')}


def test_each_step_adds_models_and_nothing_is_repeated(commands, rows, indexes):
    expert_ensembles.experts_and_ensembles(rows, indexes, 0)

    assert len(set(map(tuple, commands))) == len(commands)
    trained = [
        (between(args, '--recipe')[0], *between(args, '--seed'))
        for args in commands
        if args[0] == 'train'
    ]
    assert trained == [
        ('mini', '0'),
        ('mini', '1'),
        ('mini', '2'),
        ('mini-without-cooccurrence', '0'),
        ('cs-table1-co-bce', '0'),
    ]
    experts = [
        (*between(args, '--recipe'), *between(args, '--images-seen'), between_or_none(args))
        for args in commands
        if args[0] == 'train-experts'
    ]
    assert experts == [
        ('expert-class10', '4000', '2-41'),
        ('expert-class40', '4000', '2-41'),
        ('expert-class20', '4000', '2-41'),
        ('expert-coco', '4000', None),
        ('expert-coco', '4000', None),
    ]
    command_of = {}
    for args in commands:
        if args[0] == 'ensemble':
            command_of[Path(between(args, '--out')[0]).relative_to(rows.out).as_posix()] = args
    n_model = {name: len(between(args, '--detections')) for name, args in command_of.items()}
    for prefix in '', 'score-test-':
        steps = [f'{name}/seed0/{prefix}detections.parquet' for name in TABLE2[:-1]]
        assert [n_model[step] for step in steps] == [1, 3, 7, 11, 12]
        previous = []
        for step in steps:
            assert '--scores' not in command_of[step]
            models = between(command_of[step], '--detections')
            assert models[: len(previous)] == previous
            previous = models
        # On the validation images, the weights of one half are computed on the other.
        suffixes = ('',) if prefix else ('-weights-of-half0', '-weights-of-half1')
        for suffix in suffixes:
            weighted = command_of[f'{TABLE2[-1]}/seed0/{prefix}detections{suffix}.parquet']
            assert between(weighted, '--detections') == previous
            scores = [Path(p) for p in between(weighted, '--scores')]
            assert [p.parent for p in scores] == [Path(p).parent for p in previous]
            part = suffix.replace('-weights-of', '') + '-seed0' if suffix else ''
            assert all(p.name.startswith(f'score-validation{part}-') for p in scores)
    full = between(command_of['table4-full/seed0/detections.parquet'], '--detections')
    assert full == [str(rows.out / 'mini/seed0/detections.parquet')]
    for args in commands:
        if args[0] == 'score' and 'score-test' in between(args, '--out')[0]:
            assert between(args, '--index') == [str(indexes['test'])]
        if args[0] == 'predict' and 'outputs' in between(args, '--out')[0]:
            assert between(args, '--sizes') == ['144', '184'] and '--flip' in args
    facts = json.loads((rows.directory('table2-coco', 0) / 'recipe.json').read_text())['run']
    assert facts['models'][0] == 'mini/seed0' and facts['models'][-1] == 'expert-coco/seed0/0'
    longer = json.loads((rows.directory('table4-full-longer', 0) / 'recipe.json').read_text())
    assert longer['run']['models'] == ['full-longer/seed0/0']

    commands.clear()
    expert_ensembles.experts_and_ensembles(rows, indexes, 0)
    assert commands == []


def between_or_none(args):
    return between(args, '--class-range')[0] if '--class-range' in args else None


def test_other_models_omit_the_seed_of_the_full_model(commands, rows, indexes):
    expert_ensembles.experts_and_ensembles(rows, indexes, 1)
    facts = json.loads((rows.directory('table2-all', 1) / 'recipe.json').read_text())['run']
    assert facts['models'][0] == 'mini/seed1'
    assert [model for model in facts['models'][1:] if model.startswith('mini/')] == [
        'mini/seed0',
        'mini/seed2',
    ]


def test_ways_of_testing_share_one_training(commands, rows):
    def score(name):
        return rows.directory('mini', 0) / f'{name}.json'

    expert_ensembles.ways_of_testing(rows, 0)
    assert [args[0] for args in commands].count('train') == 1
    flags = {
        Path(between(args, '--out')[0]).stem: args for args in commands if args[0] == 'predict'
    }
    assert flags.keys() == {'detections', 'detections-nms', 'detections-tta', 'detections-tta-nms'}
    assert {name for name, args in flags.items() if '--flip' in args} == {
        'detections-tta',
        'detections-tta-nms',
    }
    assert {name for name, args in flags.items() if '--suppression' in args} == {
        'detections-nms',
        'detections-tta-nms',
    }
    names = 'score', 'score-nms', 'score-tta', 'score-tta-nms'
    assert all(score(name).exists() and score(f'{name}-iou75').exists() for name in names)
    for args in commands:
        if args[0] == 'score':
            assert ('--iou-thresh' in args) == ('iou75' in between(args, '--out')[0])
    commands.clear()
    expert_ensembles.ways_of_testing(rows, 0)
    assert commands == []
