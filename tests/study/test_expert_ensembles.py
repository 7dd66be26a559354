import json
from pathlib import Path

from study import expert_ensembles


def between(args, flag):
    """The values of a flag, up to the next one."""
    rest = args[args.index(flag) + 1 :]
    return rest[: next((k for k, arg in enumerate(rest) if arg.startswith('--')), len(rest))]


def test_each_step_adds_models_and_nothing_is_repeated(commands, rows, tmp_path):
    indexes = {name: tmp_path / f'{name}.index' for name in ('validation', 'test', 'second')}
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
        *((name, str(seed)) for name, seed in expert_ensembles.OTHERS),
    ]
    command_of = {}
    for args in commands:
        if args[0] == 'ensemble':
            command_of[Path(between(args, '--out')[0]).relative_to(rows.out).as_posix()] = args
    n_model = {name: len(between(args, '--detections')) for name, args in command_of.items()}
    for score in 'score', 'score-test':
        steps = [f'{name}/seed0/{score}-detections.parquet' for name, *_ in expert_ensembles.STEPS]
        assert [n_model[step] for step in steps] == [1, 3, 7, 11, 12]
        previous = []
        for step in steps:
            assert '--scores' not in command_of[step]
            models = between(command_of[step], '--detections')
            assert models[: len(previous)] == previous
            previous = models
        weighted = command_of[f'{expert_ensembles.WEIGHTED}/seed0/{score}-detections.parquet']
        assert between(weighted, '--detections') == previous
        # Scores of the same models, on the validation set for both splits.
        assert [Path(p).parent for p in between(weighted, '--scores')] == [
            Path(p).parent for p in previous
        ]
    full = between(command_of['table4-full/seed0/score-detections.parquet'], '--detections')
    assert full == [str(rows.out / 'mini/seed0/detections.parquet')]
    for args in commands:
        if args[0] == 'score' and 'score-test' in between(args, '--out')[0]:
            assert between(args, '--index') == [str(indexes['test'])]
    facts = json.loads((rows.directory('table2-coco', 0) / 'recipe.json').read_text())['run']
    assert facts['models'][0] == 'mini/seed0' and facts['models'][-1] == 'expert-coco/seed0/0'

    commands.clear()
    expert_ensembles.experts_and_ensembles(rows, indexes, 0)
    assert commands == []


def test_other_models_omit_the_seed_of_the_full_model(commands, rows, tmp_path):
    indexes = {name: tmp_path / f'{name}.index' for name in ('validation', 'test', 'second')}
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
