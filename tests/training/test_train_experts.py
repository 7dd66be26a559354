"""Runs of train_experts.py."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet.evaluation.detections import read_detections
from pfdet.openimages.index import AnnotationIndex

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / 'train' / 'train_multi.py'
EXPERTS = ROOT / 'train' / 'train_experts.py'
PREDICT = ROOT / 'evaluate' / 'predict.py'
SMALL = [
    '--set',
    'min_size=(64, 64)',
    'test_size=64',
    'batch_size=2',
    'fpn_channel=16',
    'head_unit=32',
    'score_thresh=0.0',
    'aspect_chunk=1',
]


@pytest.fixture(scope='module')
def full(small_world, tmp_path_factory, mpiexec):
    out = tmp_path_factory.mktemp('full')
    mpiexec(
        1,
        TRAIN,
        '--recipe',
        'mini',
        '--train-index',
        small_world / 'train.index',
        '--out',
        out,
        '--iterations',
        0,
        *SMALL,
    )
    return out


def train(mpiexec, n, full, small_world, out, *more, check=True):
    return mpiexec(
        n,
        EXPERTS,
        '--recipe',
        'expert-class10',
        '--scale',
        'mini',
        '--range',
        '1-30',
        '--init',
        full / 'model.npz',
        '--train-index',
        small_world / 'train.index',
        '--out',
        out,
        '--iterations',
        2,
        '--snapshot-interval',
        1,
        *more,
        check=check,
    )


def test_three_experts_on_two_ranks(full, small_world, tmp_path, mpiexec):
    out = tmp_path / 'experts'
    train(mpiexec, 2, full, small_world, out)
    directories = sorted(d for d in out.iterdir() if d.is_dir())
    assert [d.name for d in directories] == ['classes-01-10', 'classes-11-20', 'classes-21-30']
    seen = []
    for d in directories:
        content = json.loads((d / 'recipe.json').read_text())
        assert len(content['classes']) == 10 and content['run']['iterations'] == 2
        seen += [mid for mid, _ in content['classes']]
    assert len(set(seen)) == 30

    # Finished experts are kept. A missing one is trained again, with equal weights on one rank.
    again = directories[1] / 'model.npz'
    before = {d: (d / 'model.npz').stat().st_mtime_ns for d in directories}
    weights = dict(np.load(again))
    again.unlink()
    train(mpiexec, 1, full, small_world, out)
    after = {d: (d / 'model.npz').stat().st_mtime_ns for d in directories}
    assert [before[d] == after[d] for d in directories] == [True, False, True]
    for name, array in np.load(again).items():
        np.testing.assert_array_equal(array, weights[name])

    refused = train(mpiexec, 1, full, small_world, out, '--seed', 1, check=False)
    assert refused.returncode == 2
    assert 'experts.json: was started with another seed' in refused.stderr

    refused = train(mpiexec, 1, full, small_world, out, '--images-seen', 100, check=False)
    assert 'experts.json: was started with another images_seen' in refused.stderr

    # The detections have only classes of the expert.
    index = AnnotationIndex.open(small_world / 'validation.index')
    subprocess.run(
        [
            sys.executable,
            PREDICT,
            '--model',
            directories[0],
            '--index',
            index.path,
            '--out',
            tmp_path / 'expert.parquet',
        ],
        check=True,
        capture_output=True,
        env={'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin:/bin', 'OMP_NUM_THREADS': '1'},
    )
    detections = read_detections(tmp_path / 'expert.parquet', index.classes)
    own = [
        index.classes.id_of(mid)
        for mid, _ in json.loads((directories[0] / 'recipe.json').read_text())['classes']
    ]
    assert len(detections.label) and set(detections.label) <= set(own)


def test_recipe_that_is_not_an_expert_is_rejected(tmp_path):
    ended = subprocess.run(
        [
            sys.executable,
            EXPERTS,
            '--recipe',
            'mini',
            '--init',
            'x.npz',
            '--train-index',
            'x',
            '--out',
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin:/bin'},
    )
    assert ended.returncode == 2
    assert 'expected one of expert-class10' in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_stopped_and_killed_experts_resume(full, small_world, tmp_path, mpiexec, launch):
    """After SIGTERM and ``kill -9``, the weights are bit-identical to an uninterrupted run."""
    uninterrupted, resumed = tmp_path / 'uninterrupted', tmp_path / 'resumed'
    longer = ('--iterations', 6)
    train(mpiexec, 2, full, small_world, uninterrupted, *longer)
    arguments = [
        '--recipe',
        'expert-class10',
        '--scale',
        'mini',
        '--range',
        '1-30',
        '--init',
        full / 'model.npz',
        '--train-index',
        small_world / 'train.index',
        '--out',
        resumed,
        '--snapshot-interval',
        1,
        '--log-interval',
        1,
        *longer,
    ]
    for n, (number, status) in enumerate(((signal.SIGTERM, 75), (signal.SIGKILL, None)), 1):
        run = launch(2, *arguments, script=EXPERTS, hold=n)
        run.ranks(2)
        # Each rank trains its own model and waits before its second (third) iteration.
        run.wait_for(1)
        run.send(number)
        returned = run.wait(600)
        assert status is None or returned == status, run.output()
        assert run.remaining() == []
    assert list(resumed.rglob('iter_*.npz')) and not list(resumed.rglob('model.npz'))
    train(mpiexec, 2, full, small_world, resumed, *longer)
    for model in uninterrupted.glob('*/model.npz'):
        again = np.load(resumed / model.parent.name / 'model.npz')
        for name, array in np.load(model).items():
            np.testing.assert_array_equal(again[name], array)
