"""evaluate/score.py, make_submission.py and validate_submission.py, run as subprocesses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pfdet.evaluation.detections import Detections, write_detections
from pfdet.openimages.classes import Classes
from pfdet.openimages.index import AnnotationIndex

_ROOT = Path(__file__).resolve().parents[2]


def _run(script, *args):
    environment = dict(os.environ, PYTHONPATH=str(_ROOT))
    return subprocess.run(
        [sys.executable, _ROOT / 'evaluate' / script, *map(str, args)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def split(tmp_path):
    (tmp_path / 'classes.csv').write_text('/m/fruit,Fruit\n/m/apple,Apple\n/m/toy,Toy\n')
    (tmp_path / 'hierarchy.json').write_text(
        json.dumps(
            {
                'LabelName': '/m/0bl9f',
                'Subcategory': [
                    {'LabelName': '/m/fruit', 'Subcategory': [{'LabelName': '/m/apple'}]},
                    {'LabelName': '/m/toy'},
                ],
            }
        )
    )
    (tmp_path / 'boxes.csv').write_text(
        'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,/m/apple,0,0.5,0,1,0\n'
    )
    (tmp_path / 'labels.csv').write_text('ImageID,LabelName,Confidence\nb,/m/fruit,0\n')
    classes = Classes(('/m/fruit', '/m/apple', '/m/toy'), ('Fruit', 'Apple', 'Toy'))
    # Both detections in image a are correct. Image b, where Fruit is verified as absent, has an
    # Apple with a higher score.
    write_detections(
        tmp_path / 'd.parquet',
        Detections(
            image_ids=['a', 'b', 'elsewhere'],
            image=np.array([0, 0, 1, 2], np.int32),
            label=np.array([0, 1, 1, 1], np.int32),
            score=np.array([0.5, 0.5, 0.75, 1], np.float32),
            bbox=np.array([[0, 0, 1, 0.5]] * 4, np.float32),
        ),
        classes,
    )
    return tmp_path


def _score_arguments(split, **more):
    arguments = dict(
        boxes=split / 'boxes.csv',
        labels=split / 'labels.csv',
        classes=split / 'classes.csv',
        detections=split / 'd.parquet',
        out=split / 'score.json',
    )
    arguments.update(more)
    return [x for name, value in arguments.items() for x in (f'--{name}', value)]


def test_score(split):
    plain = _run('score.py', *_score_arguments(split))
    assert plain.returncode == 0, plain.stderr
    assert plain.stderr.splitlines() == [
        f"{split / 'd.parquet'}: ignored 1 images ('elsewhere', ...) with 1 detections that are "
        'not in the ground truth'
    ]
    assert 'mAP 1.0000 over 1 classes' in plain.stdout
    score = json.loads((split / 'score.json').read_text())
    assert score['mAP'] == 1
    assert score['AP'] == {'/m/fruit': None, '/m/apple': 1, '/m/toy': None}

    expanded = _run('score.py', *_score_arguments(split, hierarchy=split / 'hierarchy.json'))
    score = json.loads((split / 'score.json').read_text())
    # The negative label of Fruit holds for Apple, too: the detection in b is a false positive.
    assert score['AP'] == {'/m/fruit': 1, '/m/apple': 0.5, '/m/toy': None}
    assert score['mAP'] == 0.75 and 'mAP 0.7500 over 2 classes' in expanded.stdout
    assert score['precision']['/m/apple'] == [0.5] * 101
    assert score['parents'] == ['/m/fruit']
    assert score['n_ground_truth'] == {'/m/fruit': 1, '/m/apple': 1}


def test_bad_input_is_one_line(split):
    (split / 'd.csv').write_text('ImageID,LabelName\n')
    result = _run('score.py', *_score_arguments(split, detections=split / 'd.csv'))
    assert result.returncode == 2 and result.stdout == ''
    assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1
    assert 'd.csv: no column Score' in result.stderr
    assert not (split / 'score.json').exists()


def test_make_submission(split):
    out = split / 'submission.csv'
    result = _run(
        'make_submission.py',
        '--detections',
        split / 'd.parquet',
        '--out',
        out,
        '--classes',
        split / 'classes.csv',
    )
    assert result.returncode == 0, result.stderr
    assert '3 images, 0 of them without detections, 4 of 4 detections' in result.stdout
    assert len(out.read_text().splitlines()) == 4
    out.unlink()
    failed = _run('make_submission.py', '--detections', split / 'd.parquet', '--out', out)
    assert failed.returncode == 2 and "'/m/fruit' is not one of the 500" in failed.stderr
    assert not out.exists()


def test_a_submission_is_validated_and_scored(split):
    out, classes = split / 'submission.csv', split / 'classes.csv'
    _run(
        'make_submission.py',
        '--detections',
        split / 'd.parquet',
        '--out',
        out,
        '--classes',
        classes,
    )
    (split / 'ids.txt').write_text('a\nb\nelsewhere\n')
    for images in split / 'ids.txt', out:
        valid = _run('validate_submission.py', out, '--classes', classes, '--images', images)
        assert valid.returncode == 0, valid.stderr
        assert 'valid; 3 images, 0 of them without detections, 4 detections, at most 2' in (
            valid.stdout
        )
    scored = _run('score.py', *_score_arguments(split, detections=out))
    assert json.loads((split / 'score.json').read_text())['AP']['/m/apple'] == 1, scored.stderr

    (split / 'ids.txt').write_text('ImageId\nb\n')
    for text, options, message in (
        (out.read_text(), ['--images', split / 'ids.txt'], "line 2: image 'a' is not one of"),
        (out.read_text(), ['--images', split / 'none.txt'], 'none.txt: cannot read'),
        (out.read_text().replace('apple', 'pear'), [], "detection 2: MID '/m/pear'"),
        (out.read_text()[:-5], [], 'line 4: 5 fields in PredictionString'),
    ):
        (split / 'bad.csv').write_text(text)
        bad = _run('validate_submission.py', split / 'bad.csv', '--classes', classes, *options)
        assert bad.returncode == 2 and bad.stderr.count('\n') == 1 and message in bad.stderr
    bad = _run(
        'score.py', *_score_arguments(split, detections=split / 'bad.csv', out=split / 'not.json')
    )
    assert bad.returncode == 2 and 'bad.csv, line 4: 5 fields' in bad.stderr
    assert not (split / 'not.json').exists()


def test_scoring_does_not_import_chainer():
    code = (
        'import sys, pfdet.cli.score, pfdet.cli.make_submission, pfdet.cli.ensemble;'
        'sys.exit("chainer" in sys.modules)'
    )
    environment = dict(os.environ, PYTHONPATH=str(_ROOT))
    assert subprocess.run([sys.executable, '-c', code], env=environment, cwd='/').returncode == 0


def test_score_of_an_index_equals_that_of_its_files(small_world, tmp_path):
    index = AnnotationIndex.open(small_world / 'validation.index')
    rng = np.random.default_rng(0)
    n = 400
    corner = np.sort(rng.random((n, 2, 2)), axis=1)
    write_detections(
        tmp_path / 'd.parquet',
        Detections(
            [index.image_id(i) for i in range(len(index))],
            np.sort(rng.integers(0, len(index), n)).astype(np.int32),
            rng.integers(0, len(index.classes), n).astype(np.int32),
            rng.random(n).astype(np.float32),
            corner.reshape(n, 4).astype(np.float32),
        ),
        index.classes,
    )
    data, common = small_world / 'data', ['--detections', tmp_path / 'd.parquet', '--out']
    from_files = _run(
        'score.py',
        *common,
        tmp_path / 'files.json',
        '--boxes',
        data / 'validation-annotations-bbox.csv',
        '--labels',
        data / 'validation-annotations-human-imagelabels.csv',
        '--classes',
        data / 'class-descriptions.csv',
        '--hierarchy',
        data / 'hierarchy.json',
    )
    from_index = _run('score.py', *common, tmp_path / 'index.json', '--index', index.path)
    assert from_files.returncode == from_index.returncode == 0, from_index.stderr
    assert json.loads((tmp_path / 'files.json').read_text()) == json.loads(
        (tmp_path / 'index.json').read_text()
    )
    neither = _run('score.py', *common, tmp_path / 'no.json')
    assert neither.returncode == 2
    assert 'expected --boxes and --classes, or --index' in neither.stderr
