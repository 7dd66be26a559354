"""Runs of the training and prediction scripts on one rank and on several."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pfdet.evaluation.detections import read_detections
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import find
from pfdet.training.schedules import learning_rate, linear_scaling

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / 'train' / 'train_multi.py'
PREDICT = ROOT / 'evaluate' / 'predict.py'
SMALL = ['--set', 'min_size=(64,64)', 'n_anchor=32', 'n_roi=16']


def arguments(world, out, *more):
    return [
        '--recipe',
        'mini',
        '--train-index',
        world / 'train.index',
        '--out',
        out,
        '--log-interval',
        1,
        *more,
    ]


def losses(out):
    return [entry['main/loss'] for entry in json.loads((out / 'log').read_text())]


def weights(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_two_ranks_train_like_one_rank_with_the_whole_batch(small_world, tmp_path, mpiexec):
    """Covers multi-node batch normalization, all-reduce, padding, sampling and sharding.

    In float64, because float32 rounding soon changes the set of proposals.
    """
    for ranks, batch_size in (2, 2), (1, 4):
        mpiexec(
            ranks,
            TRAIN,
            *arguments(
                small_world,
                tmp_path / str(ranks),
                '--iterations',
                20,
                *SMALL,
                'flip=False',
                'dtype=float64',
                f'batch_size={batch_size}',
            ),
        )
    two, one = losses(tmp_path / '2'), losses(tmp_path / '1')
    assert len(one) == 20 and max(one) > 1.1 * min(one)
    np.testing.assert_allclose(two, one, atol=1e-4)
    one, two = (weights(tmp_path / n / 'model.npz') for n in '12')
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


def test_resumed_run_is_bit_identical(small_world, tmp_path, mpiexec):
    settings = [*SMALL, 'batch_size=2', 'epochs=2']
    uninterrupted, resumed = tmp_path / 'uninterrupted', tmp_path / 'resumed'
    # Without a snapshot, --resume starts a new run.
    mpiexec(
        2,
        TRAIN,
        *arguments(
            small_world,
            uninterrupted,
            '--resume',
            '--val-index',
            small_world / 'validation.index',
            *settings,
        ),
    )
    entries = json.loads((uninterrupted / 'log').read_text())
    # Two epochs of 24 images in batches of 4, with half an epoch of warm-up.
    assert [entry['lr'] for entry in entries] == pytest.approx(
        [
            learning_rate(i, 12, linear_scaling(find('mini').base_lr, 8, 4), 'cosine', n_warmup=3)
            for i in range(12)
        ]
    )
    mpiexec(
        2,
        TRAIN,
        *arguments(small_world, resumed, '--iterations', 7, '--snapshot-interval', 5, *settings),
    )
    # At the interval and at the end.
    assert sorted(p.name for p in (resumed / 'snapshots').iterdir()) == [
        'iter_00000005.npz',
        'iter_00000007.npz',
    ]
    # Keep only the first snapshot, as if the run had been killed.
    (resumed / 'model.npz').unlink()
    (resumed / 'snapshots' / 'iter_00000007.npz').unlink()
    mpiexec(
        2,
        TRAIN,
        *arguments(
            small_world,
            resumed,
            '--resume',
            '--val-index',
            small_world / 'validation.index',
            *settings,
        ),
    )
    assert losses(resumed) == losses(uninterrupted)
    a, b = weights(uninterrupted / 'model.npz'), weights(resumed / 'model.npz')
    assert a.keys() == b.keys()
    assert all((a[k] == b[k]).all() for k in a)
    assert (uninterrupted / 'score.json').read_text() == (resumed / 'score.json').read_text()


@pytest.fixture(scope='module')
def model(small_world, tmp_path_factory, mpiexec):
    out = tmp_path_factory.mktemp('model')
    mpiexec(1, TRAIN, *arguments(small_world, out, '--iterations', 2, *SMALL))
    return out


def test_three_ranks_predict_like_one_rank(small_world, model, tmp_path, mpiexec):
    index = AnnotationIndex.open(small_world / 'validation.index')
    detections = {}
    for ranks, name in (1, 'one.parquet'), (3, 'three.csv'):
        out = tmp_path / name
        mpiexec(
            ranks,
            PREDICT,
            '--model',
            model,
            '--index',
            index.path,
            '--out',
            out,
            '--score-thresh',
            0.001,
        )
        detections[ranks] = read_detections(out, index.classes)
    one, three = detections[1], detections[3]
    assert len(one) > 0 and list(one.image_ids) == list(three.image_ids)
    for name in 'image', 'label':
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))
    np.testing.assert_allclose(one.score, three.score, atol=1e-5)
    np.testing.assert_allclose(one.bbox, three.bbox, atol=1e-4)


def run(script, *args):
    return subprocess.run(
        [sys.executable, str(script), *map(str, args)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=600,
    )


def assert_one_error(result, *words):
    """Check for exit status 2 and a single error line that contains the words."""
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and lines[0].startswith('error: '), result.stderr
    for word in words:
        assert word in lines[0]


def test_starts_from_a_backbone(small_world, model, tmp_path):
    from pfdet.links.backbone_file import arrays_of, write_backbone
    from pfdet.training import model_directory

    base = model_directory.read(model).network.extractor.base
    write_backbone(tmp_path / 'backbone.npz', arrays_of(base))
    out = tmp_path / 'out'
    done = run(
        TRAIN,
        *arguments(
            small_world, out, '--iterations', 0, '--seed', 9, '--init', tmp_path / 'backbone.npz'
        ),
    )
    assert done.returncode == 0, done.stderr
    initial, source = weights(out / 'model.npz'), weights(model / 'model.npz')
    same = {k for k in initial if (initial[k] == source[k]).all()}
    assert {k for k in initial if k.startswith('extractor/base/')} <= same
    assert 'head/fc1/W' not in same


def test_list_and_show():
    listed = run(TRAIN, '--list').stdout
    assert 'PFDet 2018, Table 1: single model\n  table1-baseline ' in listed
    assert '  cs-table4-hybrid-s20 ' in listed
    shown = run(TRAIN, '--recipe', 'mini', '--set', 'epochs=3', '--show').stdout
    assert 'epochs             3.0' in shown


def test_invalid_input_of_training(small_world, tmp_path):
    assert_one_error(run(TRAIN), '--train-index', 'build_index')
    assert_one_error(run(TRAIN, '--recipe', 'none'), '--recipe none')
    assert_one_error(
        run(
            TRAIN,
            *('--train-index', tmp_path / 'absent.index', '--out', tmp_path / 'x'),
            '--random-weights',
        ),
        'absent.index',
    )
    assert_one_error(
        run(TRAIN, *arguments(small_world, tmp_path / 'x', '--init', TRAIN)),
        'train_multi.py',
        'expected a .npz file',
    )
    assert_one_error(
        run(TRAIN, *arguments(small_world, tmp_path / 'x', '--set', 'backbone=vgg')),
        "backbone='vgg'",
        'mini_se_resnext',
    )
    assert_one_error(
        run(TRAIN, '--recipe', 'cs-table4-soft-balance', '--train-index', 'x', '--out', 'y'),
        'starts from the weights of cs-table4-scratch-20',
        '--init',
    )


def test_truncated_image_ends_all_ranks_and_is_named(small_world, tmp_path, mpiexec):
    shutil.copytree(small_world, tmp_path / 'world')
    for image in (tmp_path / 'world' / 'data' / 'train').iterdir():
        image.write_bytes(image.read_bytes()[:500])
    result = mpiexec(
        2,
        TRAIN,
        *arguments(tmp_path / 'world', tmp_path / 'out', '--iterations', 2, *SMALL),
        check=False,
    )
    assert result.returncode == 2
    assert '.jpg' in result.stderr and 'truncated' in result.stderr
    assert not (tmp_path / 'out' / 'model.npz').exists()


def test_concurrent_rates_are_stored_with_the_model(small_world, tmp_path, mpiexec):
    out = tmp_path / 'model'
    mpiexec(
        2,
        TRAIN,
        *arguments(
            small_world,
            out,
            '--iterations',
            1,
            *SMALL,
            'loss=concurrent_softmax',
            'effective_beta=0.99',
        ),
    )
    rates = np.load(out / 'rates.npy')
    index = AnnotationIndex.open(small_world / 'train.index')
    assert rates.shape == (len(index.classes),) * 2 and (rates > 0).any()
    assert (rates[index.hierarchy.ancestors] == 1).all()
    predict = [
        '--model',
        out,
        '--index',
        small_world / 'validation.index',
        '--out',
        tmp_path / 'd.csv',
    ]
    assert run(PREDICT, *predict).returncode == 0
    (out / 'rates.npy').unlink()
    assert_one_error(run(PREDICT, *predict), 'rates.npy', 'concurrent rates')


def test_corrupt_image_in_prediction(
    small_world, model, tmp_path, mpiexec, assert_same_up_to_rounding
):
    """It is an error; or it is skipped, and the detections of the other images do not change."""
    world = tmp_path / 'world'
    shutil.copytree(small_world, world)
    index = AnnotationIndex.open(world / 'validation.index')
    predict = ['--model', model, '--index', index.path, '--score-thresh', 0.001, '--out']
    mpiexec(1, PREDICT, *predict, tmp_path / 'all.csv')
    path = index.image_path(3)
    path.write_bytes(path.read_bytes()[:400])
    assert_one_error(run(PREDICT, *predict, tmp_path / 'd.csv'), path.name)
    assert not (tmp_path / 'd.csv').exists()
    done = mpiexec(2, PREDICT, *predict, tmp_path / 'skipped.csv', '--corrupt', 'skip')
    assert '1 of 8' in done.stdout and 'no detections' in done.stdout
    complete, skipped = (
        read_detections(tmp_path / name, index.classes) for name in ('all.csv', 'skipped.csv')
    )
    others = complete.image != 3
    assert not (skipped.image == 3).any() and not others.all()
    # Its batch has one image less, so the other detections are equal up to rounding.
    assert_same_up_to_rounding(
        dataclasses.replace(
            complete,
            **{
                name: getattr(complete, name)[others]
                for name in ('image', 'label', 'score', 'bbox')
            },
        ),
        skipped,
    )


def test_invalid_input_of_prediction(small_world, model, tmp_path):
    index = small_world / 'validation.index'
    assert_one_error(
        run(PREDICT, '--model', tmp_path, '--index', index, '--out', tmp_path / 'd.csv'),
        'model.npz: missing, and the run has no snapshot',
        'training run',
    )
    assert_one_error(
        run(PREDICT, '--model', model, '--index', index, '--out', tmp_path / 'd.txt'),
        'd.txt',
        '.parquet',
    )
    broken = tmp_path / 'broken'
    shutil.copytree(model, broken)
    (broken / 'model.npz').write_bytes((model / 'model.npz').read_bytes()[:1000])
    assert_one_error(
        run(PREDICT, '--model', broken, '--index', index, '--out', tmp_path / 'd.csv'), 'model.npz'
    )
    assert not (tmp_path / 'd.csv').exists()
