"""Own data in the other commands: the same loss from three formats, and names without MIDs."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pfdet.openimages.own.command import main

ROOT = Path(__file__).resolve().parents[3]


def pfdet(*arguments):
    done = subprocess.run(
        [sys.executable, '-m', 'pfdet', *map(str, arguments)],
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def few(own, tmp_path_factory):
    """A directory with the indexes of six images by three formats."""
    root, data = tmp_path_factory.mktemp('few'), own.draw_data(6)
    images = own.write_images(root / 'images', data)
    own.write_yolo(root, data)
    (root / 'classes.txt').write_text('\n'.join(own.names))
    (root / 'labels' / 'train').rename(root / 'flat')
    (root / 'labels').rmdir()
    (root / 'flat').rename(root / 'labels')
    given = {
        'coco': [own.write_coco(root, data), '--images', images],
        'voc': [own.write_voc(root, data), '--images', images],
        'yolo': [root / 'classes.txt'],
    }
    given['voc'] += ['--classes', own.write_classes(root / 'classes.csv')]
    for name, flags in given.items():
        flags = ['--format', name, '--annotations', *flags, '--out', root / f'{name}.index']
        main(list(map(str, flags)))
    return root


def test_three_formats_give_the_same_loss(few):
    def train(name):
        indexes = ['--train-index', few / f'{name}.index', '--iterations', 2, '--seed', 3]
        pfdet('train', '--recipe', 'mini', *indexes, '--out', few / name, '--log-interval', 1)
        log = json.loads((few / name / 'log').read_text())
        with np.load(few / name / 'model.npz') as weights:
            return [entry['main/loss'] for entry in log], {k: weights[k] for k in weights.files}

    losses, weights = train('coco')
    assert len(losses) == 2 and all(loss > 0 for loss in losses)
    for name in 'voc', 'yolo':
        other_losses, others = train(name)
        assert other_losses == losses
        assert all(others[key].tobytes() == value.tobytes() for key, value in weights.items())


def test_names_are_ids_in_all_commands(few, own):
    """Training with the recipe and nothing else, then prediction and scoring, by CSV files, too."""
    run, index = few / 'run', few / 'yolo.index'
    assert 'trained' in pfdet('train', '--recipe', 'mini', '--train-index', index, '--out', run)
    for name in 'd.parquet', 'd.csv':
        pfdet('predict', '--model', run, '--index', index, '--out', run / name)
    with open(run / 'd.csv', newline='', encoding='utf-8') as f:
        found = {row['LabelName'] for row in csv.DictReader(f)}
    assert found and found <= set(own.names)
    scores = []
    for name in 'd.parquet', 'd.csv':
        given = ['--index', index, '--detections', run / name, '--out', run / 'score.json']
        printed = pfdet('score', *given)
        assert all(label in printed for label in own.names)
        scores.append(json.loads((run / 'score.json').read_text())['AP'])
    assert scores[0].keys() == set(own.names) and scores[0] == scores[1]
    pfdet('report', run, '--index', index, '--train-index', index)
    page = (run / 'report.html').read_text()
    assert all(label in page for label in own.names)
