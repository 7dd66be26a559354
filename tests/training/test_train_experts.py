"""Runs of train_experts.py."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.evaluation.detections import read_detections
from pfdet.files.json_file import write_json
from pfdet.openimages.index import AnnotationIndex
from pfdet.training.communicators import create_communicator
from pfdet.training.train import train as train_on_ranks

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


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    done = train(mpiexec, 2, full, small_world, out)
    directories = sorted(d for d in out.iterdir() if d.is_dir())
    assert [d.name for d in directories] == ['classes-01-10', 'classes-11-20', 'classes-21-30']
    seen, sizes, n_seen = [], [], []
    for d in directories:
        content = json.loads((d / 'recipe.json').read_text())
        assert len(content['classes']) == 10 and content['run']['iterations'] == 2
        seen += [mid for mid, _ in content['classes']]
        assert content['run']['init_sha256'] == sha256(full / 'model.npz')
        assert content['run']['init_kind'] == 'detector' and content['run']['init_recipe'] == 'mini'
        # One rank per expert: batch normalization is frozen.
        assert content['recipe']['frozen_bn'] == 'all'
        sizes.append(content['run']['images'])
        n_seen.append(content['recipe']['epochs'] * content['run']['images'])
    assert len(set(seen)) == 30
    # By default all are trained on equally many images, however few their own are.
    assert len(set(sizes)) > 1 and n_seen == pytest.approx([round(8 * np.mean(sizes))] * 3)
    assert f'each expert is trained on {n_seen[0]:,.0f} images, by 1 rank; batch' in done.stdout
    assert "is frozen (frozen_bn='all')" in done.stdout

    # Frozen: statistics, scale and shift are the full model's, while convolutions are trained.
    start, ends = dict(np.load(full / 'model.npz')), dict(np.load(directories[0] / 'model.npz'))
    frozen = [k.rpartition('/')[0] for k in start if k.endswith('avg_mean')]
    assert len(frozen) > 10
    for name in frozen:
        for array in 'avg_mean', 'avg_var', 'gamma', 'beta':
            np.testing.assert_array_equal(ends[f'{name}/{array}'], start[f'{name}/{array}'])
    changed = {k for k in ends if ends[k].shape == start[k].shape and (ends[k] != start[k]).any()}
    assert any(k.endswith('conv/W') for k in changed)

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

    for more, message in (
        (['--seed', 1], 'another seed: seed=0, not 1'),
        (['--images-seen', 1], f'another images_seen: images_seen={n_seen[0]:.0f}, not 1'),
        (['--epochs-of-own-images'], f'another images_seen: images_seen={n_seen[0]:.0f}, not None'),
        (['--range', '1-20'], 'other classes; give another --out'),
        (['--set', 'frozen_bn='], "another recipe: frozen_bn='all', not '';"),
    ):
        refused = train(mpiexec, 1, full, small_world, out, *more, check=False)
        assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
        assert f'experts.json: was started with {message}' in refused.stderr

    # Other weights in the same file.
    path = out / 'experts.json'
    content = json.loads(path.read_text())
    assert content['init_sha256'] == sha256(full / 'model.npz')
    whole = path.read_text()
    for key, message in (
        ('init_sha256', 'other weights of --init, although the name of the file is the same'),
        ('train_index_checksums', 'another content of --train-index, although the name'),
    ):
        write_json(path, {**content, key: 'another'})
        refused = train(mpiexec, 1, full, small_world, out, check=False)
        assert refused.returncode == 2 and f'was started with {message}' in refused.stderr
    path.write_text(whole)

    # An expert's directory is resumed neither as a model of all classes nor by pfdet train.
    described = (directories[0] / 'recipe.json').read_text()
    for settings, message in (
        ((), 'written by a run with'),
        (('--set', 'expert_size=10'), 'trains experts, not one model of all classes: pfdet train-'),
    ):
        resume = ['--recipe', 'mini', '--train-index', small_world / 'train.index', '--resume']
        refused = mpiexec(1, TRAIN, *resume, '--out', directories[0], *settings, check=False)
        assert refused.returncode == 2 and message in refused.stderr
    assert (directories[0] / 'recipe.json').read_text() == described

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


def test_epochs_of_own_images_on_two_ranks_per_expert(full, small_world, tmp_path, mpiexec):
    out = tmp_path / 'experts'
    more = '--epochs-of-own-images', '--ranks-per-expert', 2, '--set', 'expert_size=15'
    done = train(mpiexec, 2, full, small_world, out, *more)
    assert 'each expert is trained on 8 epochs of its own images, by 2 ranks; batch' in done.stdout
    resolved = [json.loads(path.read_text())['recipe'] for path in out.glob('*/recipe.json')]
    assert [(r['epochs'], r['frozen_bn'], r['expert_size']) for r in resolved] == [(8, '', 15)] * 2
    assert json.loads((out / 'experts.json').read_text())['images_seen'] is None


def test_dry_run_prints_the_plan(full, small_world, mpiexec):
    """It needs neither weights nor a directory, and counts ranks that do not exist."""
    arguments = ['--recipe', 'expert-class10', '--scale', 'mini', '--range', '1-30']
    arguments += ['--train-index', small_world / 'train.index', '--images-seen', 40]
    done = mpiexec(2, EXPERTS, *arguments, '--dry-run', 4, '--ranks-per-expert', 2)
    first, choices, header, *rows, last = done.stdout.splitlines()
    what = '3 experts of up to 10 classes on 2 groups of 2 ranks'
    assert first == f'dry run of expert-class10: {what}'
    assert choices.startswith('each expert is trained on 40 images, by 2 ranks; batch norm')
    assert header.split() == ['expert', 'classes', 'images', 'epochs', 'iterations', 'group']
    # The batch of the mini size is 4 images per rank: 5 iterations of 8 images.
    table = [row.split() for row in rows]
    assert [(r[0], r[1], r[4]) for r in table] == [
        (f'classes-{a}-{b}', '10', '5') for a, b in (('01', '10'), ('11', '20'), ('21', '30'))
    ]
    for _, _, n_image, epochs, _, _ in table:
        assert float(epochs) == pytest.approx(40 / int(n_image), abs=0.051)
    assert sorted(r[5] for r in table) == ['1', '1', '2']
    assert last == 'longest group: 10 iterations of 8 images'

    refused = mpiexec(1, EXPERTS, *arguments, '--dry-run', '--ranks-per-expert', 2, check=False)
    assert refused.returncode == 2 and '--ranks-per-expert 2: expected 1 to 1' in refused.stderr


def test_training_all_classes_by_the_recipe_of_an_expert_is_refused(small_world, tmp_path):
    """Whoever calls the function: its results would be called an expert's."""
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.find('expert-class10', 'mini')
    with pytest.raises(InputError, match='expert_size=10, but no classes were picked'):
        train_on_ranks(recipe, index, tmp_path / 'run', create_communicator('naive'))
    assert not (tmp_path / 'run').exists()


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
