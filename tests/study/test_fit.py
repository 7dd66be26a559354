import json

from pfdet.evaluation.run_directory import Run
from study.fit import fit_table, score_training_images


def test_each_training_is_scored_on_its_training_images_once(commands, rows):
    score_training_images(rows, 0)
    by_output = {args[args.index('--out') + 1]: args for args in commands if args[0] != 'train'}
    assert [args[0] for args in commands].count('train') == 9
    for name in 'table1-baseline', 'table1-senet154':
        directory = rows.directory(name, 0)
        for file in 'detections-train.parquet', 'score-train.json':
            args = by_output[str(directory / file)]
            assert args[args.index('--index') + 1] == str(rows.train_index)
        args = by_output[str(directory / 'score.json')]
        assert args[args.index('--index') + 1] == str(rows.val_index)
    commands.clear()
    score_training_images(rows, 0)
    assert commands == []


def test_fit_table(tmp_path):
    runs = []
    for name, seed, train, validation in (
        ('table1-baseline', 0, 0.9, 0.8),
        ('table1-baseline', 1, 0.8, 0.75),
        ('table1-cosine', 0, 0.7, 0.9),
        ('table1-scale', 0, None, 0.5),
        ('mini', 0, 0.5, 0.5),
    ):
        path = tmp_path / name / f'seed{seed}'
        path.mkdir(parents=True)
        if train is not None:
            (path / 'score-train.json').write_text(json.dumps({'mAP': train}))
        runs.append(Run(path, {'name': name}, {'seed': seed}, {'mAP': validation}))
    lines = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in fit_table(runs).strip().split('\n')[2:]
    ]
    assert lines == [
        ['Baseline (FPN with SE-ResNeXt-101)', '85.0', '77.5', '-7.5', '2'],
        ['+ Cosine Annealing', '70.0', '90.0', '+20.0', '1'],
    ]
    assert fit_table(runs[3:]) is None
