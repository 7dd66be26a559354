"""Prediction on a data set with corrupt images."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pfdet.evaluation.detections import read_detections
from pfdet.openimages.build_index import build_index
from pfdet.openimages.index import AnnotationIndex

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / 'train' / 'train_multi.py'
PREDICT = ROOT / 'evaluate' / 'predict.py'


@pytest.fixture(scope='module')
def world(small_world, tmp_path_factory):
    """A copy in which two of eight validation images are corrupt, one before indexing."""
    world = tmp_path_factory.mktemp('corrupt') / 'world'
    shutil.copytree(small_world, world)
    data = world / 'data'
    paths = sorted((data / 'validation').iterdir())
    paths[5].write_bytes(b'')
    with contextlib.redirect_stdout(io.StringIO()):
        build_index(
            data / 'validation-annotations-bbox.csv',
            data / 'validation-annotations-human-imagelabels.csv',
            data / 'class-descriptions.csv',
            data / 'hierarchy.json',
            data / 'validation',
            world / 'validation.index',
            keep_missing=True,
        )
    paths[2].write_bytes(paths[2].read_bytes()[:900])
    return world


@pytest.fixture(scope='module')
def model(world, tmp_path_factory, mpiexec):
    """A model trained with ``--corrupt skip``; validation during training skips them, too."""
    out = tmp_path_factory.mktemp('model')
    mpiexec(
        2,
        TRAIN,
        '--recipe',
        'mini',
        '--train-index',
        world / 'train.index',
        '--val-index',
        world / 'validation.index',
        '--out',
        out,
        '--iterations',
        2,
        '--corrupt',
        'skip',
        '--set',
        'min_size=(64,64)',
        'n_anchor=32',
        'n_roi=16',
        'batch_size=2',
    )
    assert 0 <= json.loads((out / 'score.json').read_text())['mAP'] <= 1
    return out


def test_corrupt_images_have_no_detections(world, model, tmp_path, mpiexec):
    index = AnnotationIndex.open(world / 'validation.index')
    predict = [
        PREDICT,
        '--model',
        model,
        '--index',
        index.path,
        '--score-thresh',
        0.001,
        '--corrupt',
        'skip',
        '--out',
    ]
    found = []
    for ranks in 1, 3:
        out = tmp_path / f'{ranks}.parquet'
        result = mpiexec(ranks, *predict, out)
        lines = result.stdout.splitlines()
        assert '2 of 8 images cannot be read (25 %): ' in lines[0]
        assert 'truncated' in lines[0] and 'empty file' in lines[0]
        found.append(read_detections(out, index.classes))
        assert list(found[-1].image_ids) == [index.image_id(i) for i in range(8)]
    assert set(found[0].image) == set(found[1].image) == {0, 1, 3, 4, 6, 7}


def test_without_skip_the_first_corrupt_image_is_an_error(world, model, tmp_path):
    result = subprocess.run(
        [
            sys.executable,
            str(PREDICT),
            '--model',
            model,
            '--index',
            world / 'validation.index',
            '--out',
            tmp_path / 'd.csv',
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 2 and not (tmp_path / 'd.csv').exists()
    [line] = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert '.jpg: ' in line
