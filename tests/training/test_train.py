"""Whole runs of the scripts, on one rank and on two."""

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


def test_two_ranks_learn_what_one_learns_with_the_whole_batch(small_world, tmp_path, mpiexec):
    """Multi-node batch normalization, all-reduce, padding, sampling and sharding together.

    In double precision: in single precision rounding soon makes one proposal more or less.
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


def test_resuming_is_going_on(small_world, tmp_path, mpiexec):
    settings = [*SMALL, 'batch_size=2', 'epochs=2']
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    # --resume with nothing to go on from begins
    mpiexec(
        2,
        TRAIN,
        *arguments(
            small_world,
            whole,
            '--resume',
            '--val-index',
            small_world / 'validation.index',
            *settings,
        ),
    )
    entries = json.loads((whole / 'log').read_text())
    # 24 images in batches of 4, two epochs of them, half an epoch of warm-up
    assert [entry['lr'] for entry in entries] == pytest.approx(
        [
            learning_rate(i, 12, linear_scaling(find('mini').base_lr, 8, 4), 'cosine', n_warmup=3)
            for i in range(12)
        ]
    )
    mpiexec(
        2,
        TRAIN,
        *arguments(small_world, cut, '--iterations', 7, '--snapshot-interval', 5, *settings),
    )
    # at the interval and at the end
    assert sorted(p.name for p in (cut / 'snapshots').iterdir()) == [
        'iter_00000005.npz',
        'iter_00000007.npz',
    ]
    # what came after the first is lost, as when the run is killed
    (cut / 'model.npz').unlink()
    (cut / 'snapshots' / 'iter_00000007.npz').unlink()
    mpiexec(
        2,
        TRAIN,
        *arguments(
            small_world, cut, '--resume', '--val-index', small_world / 'validation.index', *settings
        ),
    )
    assert losses(cut) == losses(whole)
    a, b = weights(whole / 'model.npz'), weights(cut / 'model.npz')
    assert a.keys() == b.keys()
    assert all((a[k] == b[k]).all() for k in a)
    assert (whole / 'score.json').read_text() == (cut / 'score.json').read_text()


@pytest.fixture(scope='module')
def model(small_world, tmp_path_factory, mpiexec):
    out = tmp_path_factory.mktemp('model')
    mpiexec(1, TRAIN, *arguments(small_world, out, '--iterations', 2, *SMALL))
    return out


def test_ranks_predict_what_one_predicts(small_world, model, tmp_path, mpiexec):
    index = AnnotationIndex.open(small_world / 'validation.index')
    found = {}
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
        found[ranks] = read_detections(out, index.classes)
    assert len(found[1]) > 0 and list(found[1].image_ids) == list(found[3].image_ids)
    for name in 'image', 'label':
        np.testing.assert_array_equal(getattr(found[1], name), getattr(found[3], name))
    np.testing.assert_allclose(found[1].score, found[3].score, atol=1e-5)
    np.testing.assert_allclose(found[1].bbox, found[3].bbox, atol=1e-4)


def run(script, *args):
    return subprocess.run(
        [sys.executable, str(script), *map(str, args)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=600,
    )


def refused(result, *words):
    """Ended with status 2 and one line that has the words."""
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and lines[0].startswith('error: '), result.stderr
    for word in words:
        assert word in lines[0]


def test_starts_from_a_backbone_alone(small_world, model, tmp_path):
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
    begun, before = weights(out / 'model.npz'), weights(model / 'model.npz')
    same = {k for k in begun if (begun[k] == before[k]).all()}
    assert {k for k in begun if k.startswith('extractor/base/')} <= same
    assert 'head/fc1/W' not in same


def test_list_and_show():
    listed = run(TRAIN, '--list').stdout
    assert 'PFDet 2018, Table 1: single model\n  table1-baseline ' in listed
    assert '  cs-table4-hybrid-s20 ' in listed
    shown = run(TRAIN, '--recipe', 'mini', '--set', 'epochs=3', '--show').stdout
    assert 'epochs             3.0' in shown


def test_bad_input_of_training(small_world, tmp_path):
    refused(run(TRAIN), '--train-index', 'build_index')
    refused(run(TRAIN, '--recipe', 'none'), '--recipe none')
    refused(
        run(TRAIN, '--train-index', tmp_path / 'absent.index', '--out', tmp_path / 'x'),
        'absent.index',
    )
    refused(
        run(TRAIN, *arguments(small_world, tmp_path / 'x', '--init', TRAIN)),
        'train_multi.py',
        'not a .npz file',
    )
    refused(
        run(TRAIN, *arguments(small_world, tmp_path / 'x', '--set', 'backbone=vgg')),
        'backbone vgg',
        'mini_se_resnext',
    )
    refused(
        run(TRAIN, '--recipe', 'cs-table4-soft-balance', '--train-index', 'x', '--out', 'y'),
        'starts from the weights of cs-table4-scratch-20',
        '--init',
    )


def test_truncated_image_ends_all_ranks_with_its_name(small_world, tmp_path, mpiexec):
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


def test_concurrent_rates_travel_with_the_model(small_world, tmp_path, mpiexec):
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
    refused(run(PREDICT, *predict), 'rates.npy', 'concurrent rates')


def test_corrupt_image_at_prediction(
    small_world, model, tmp_path, mpiexec, assert_same_up_to_rounding
):
    """Named and refused; or skipped, with its row kept and the others' detections as before."""
    world = tmp_path / 'world'
    shutil.copytree(small_world, world)
    index = AnnotationIndex.open(world / 'validation.index')
    predict = ['--model', model, '--index', index.path, '--score-thresh', 0.001, '--out']
    mpiexec(1, PREDICT, *predict, tmp_path / 'whole.csv')
    path = index.image_path(3)
    path.write_bytes(path.read_bytes()[:400])
    refused(run(PREDICT, *predict, tmp_path / 'd.csv'), path.name)
    assert not (tmp_path / 'd.csv').exists()
    done = mpiexec(2, PREDICT, *predict, tmp_path / 'skipped.csv', '--corrupt', 'skip')
    assert '1 of 8' in done.stdout and 'no detections' in done.stdout
    whole, skipped = (
        read_detections(tmp_path / name, index.classes) for name in ('whole.csv', 'skipped.csv')
    )
    others = whole.image != 3
    assert not (skipped.image == 3).any() and not others.all()
    # Its batch has one image less, so the others are as before up to rounding.
    assert_same_up_to_rounding(
        dataclasses.replace(
            whole,
            **{name: getattr(whole, name)[others] for name in ('image', 'label', 'score', 'bbox')},
        ),
        skipped,
    )


def test_bad_input_of_prediction(small_world, model, tmp_path):
    index = small_world / 'validation.index'
    refused(
        run(PREDICT, '--model', tmp_path, '--index', index, '--out', tmp_path / 'd.csv'),
        'recipe.json',
        'training run',
    )
    refused(
        run(PREDICT, '--model', model, '--index', index, '--out', tmp_path / 'd.txt'),
        'd.txt',
        '.parquet',
    )
    broken = tmp_path / 'broken'
    shutil.copytree(model, broken)
    (broken / 'model.npz').write_bytes((model / 'model.npz').read_bytes()[:1000])
    refused(
        run(PREDICT, '--model', broken, '--index', index, '--out', tmp_path / 'd.csv'), 'model.npz'
    )
    assert not (tmp_path / 'd.csv').exists()
