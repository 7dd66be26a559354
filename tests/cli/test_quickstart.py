"""The quickstart from end to end, on a few images and for a few iterations."""

import json
import sys

import pfdet.compat  # noqa: F401

import numpy as np

from pfdet.cli import quickstart
from pfdet.openimages.index import AnnotationIndex


def run(monkeypatch, *args: object) -> None:
    monkeypatch.setattr(sys, 'argv', ['quickstart', *map(str, args)])
    quickstart.main()


SMALL = [
    '--',
    '--iterations',
    2,
    '--log-interval',
    1,
    '--set',
    'min_size=(64, 64)',
    'test_size=64',
    'batch_size=2',
    'n_anchor=32',
    'n_roi=16',
    'epochs=0.25',
    'score_thresh=0.0',
    'max_per_image=20',
]


def test_a_tiny_quickstart(tmp_path, monkeypatch, capfd):
    out = tmp_path / 'quickstart'
    run(monkeypatch, '--out', out, '--images', 16, '--ranks', 2, *SMALL)
    printed = capfd.readouterr().out
    assert printed.splitlines()[-1].startswith('quickstart: mAP=0.')
    # Each step is printed as the command it is.
    commands = [line for line in printed.splitlines() if line.startswith('$ ')]
    for step in 'make-mini', 'index', 'train', 'predict', 'score', 'make-submission':
        assert any(f' -m pfdet {step} ' in line for line in commands)

    index = AnnotationIndex.open(out / 'validation.index')
    ids = {index.image_id(i) for i in range(len(index))}
    header, *rows = (out / 'submission.csv').read_text().splitlines()
    assert header == 'ImageId,PredictionString'
    assert {row.split(',')[0] for row in rows} == ids and len(rows) == len(ids)
    score = json.loads((out / 'run' / 'score.json').read_text())
    assert 0 <= score['mAP'] <= 1
    assert [entry['iteration'] for entry in json.loads((out / 'run' / 'log').read_text())] == [1, 2]
    page = (out / 'report.html').read_text()
    assert f'{score["mAP"]:.3f}' in page and 'MiniOpenImages, trained from random weights' in page
    # No flag was needed to start from random weights, and the report says so.
    run_facts = json.loads((out / 'run' / 'recipe.json').read_text())['run']
    assert run_facts['random_weights'] is True
    assert 'This run started from random weights; its recipe starts from a backbone' in page

    # Resumed, the training is kept as it is.
    before = dict(np.load(out / 'run' / 'model.npz'))
    run(monkeypatch, '--out', out, '--images', 16, '--ranks', 2, '--resume', *SMALL)
    assert 'trained already, 2 iterations' in capfd.readouterr().out
    after = dict(np.load(out / 'run' / 'model.npz'))
    assert after.keys() == before.keys()
    assert all((after[name] == before[name]).all() for name in before)
