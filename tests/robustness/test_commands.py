"""Commands on hostile files: one line, status 2, no file written, nothing executed."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ['--set', 'min_size=(64,64)', 'n_anchor=32', 'n_roi=16', 'batch_size=2']


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def pfdet(*args, timeout=300):
    return subprocess.run(
        [sys.executable, '-m', 'pfdet', *map(str, args)],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        stdin=subprocess.DEVNULL,
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def train(world, out, *args):
    indexes = ['--train-index', world / 'train.index']
    return pfdet('train', '--recipe', 'mini', *indexes, '--out', out, *args, *SETTINGS)


@pytest.fixture(scope='module')
def model(small_world, tmp_path_factory):
    """A training of two iterations with its snapshots."""
    out = tmp_path_factory.mktemp('model') / 'run'
    done = train(small_world, out, '--iterations', 2, '--snapshot-interval', 1)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def copy(model, tmp_path):
    out = tmp_path / 'run'
    shutil.copytree(model, out)
    return out


@pytest.fixture
def proof(tmp_path):
    path = tmp_path / 'proof'
    yield path
    assert not path.exists()


def with_objects(path, proof):
    """Replace arrays of a .npz file by pickled objects."""
    with np.load(path) as file:
        arrays = dict(file)
    for name in arrays:
        arrays[name] = np.array([Payload(proof)], object)
    np.savez(path, **arrays)
    # The payload works.
    with np.load(path, allow_pickle=True) as file:
        file[file.files[0]]
    proof.rmdir()


def assert_refused(done, *words):
    assert done.returncode == 2, (done.returncode, done.stderr)
    *warnings, line = done.stderr.splitlines()
    assert line.startswith('error: '), done.stderr
    # Such as that a snapshot is damaged.
    assert all(w.startswith(('warning: ', 'note: ')) for w in warnings), done.stderr
    for word in words:
        assert word in line


def predict(world, model, out):
    index = ['--index', world / 'validation.index']
    return pfdet('predict', '--model', model, *index, '--out', out)


@pytest.mark.faults('code in files')
def test_model_of_objects(small_world, copy, proof, tmp_path):
    with_objects(copy / 'model.npz', proof)
    out = tmp_path / 'd.parquet'
    assert_refused(predict(small_world, copy, out), 'model.npz: array ', 'pickled Python objects')
    assert not out.exists()


@pytest.mark.faults('code in files')
def test_initial_weights_of_objects(small_world, copy, proof, tmp_path):
    with_objects(copy / 'model.npz', proof)
    out = tmp_path / 'new'
    done = train(small_world, out, '--iterations', 1, '--init', copy / 'model.npz')
    assert_refused(done, 'model.npz: array ', 'pickled Python objects')
    assert not (out / 'model.npz').exists()


@pytest.mark.faults('code in files')
def test_snapshot_of_objects(small_world, copy, proof):
    for path in (copy / 'snapshots').iterdir():
        with_objects(path, proof)
    done = train(small_world, copy, '--iterations', 3, '--resume')
    assert_refused(done, 'all snapshots are damaged')
    assert 'pickled Python objects' in done.stderr


@pytest.mark.faults('values that are not finite')
def test_weights_that_are_not_finite(small_world, copy, tmp_path):
    """They would detect nothing, without a word."""
    with np.load(copy / 'model.npz') as file:
        arrays = dict(file)
    arrays['head/conf/W'][3, 5] = np.nan
    np.savez(copy / 'model.npz', **arrays)
    out = tmp_path / 'd.parquet'
    assert_refused(
        predict(small_world, copy, out), 'model.npz: parameter head/conf/W has nan', 'finite'
    )
    assert not out.exists()


@pytest.mark.faults('hostile files')
@pytest.mark.soak
@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda p: os.symlink('/dev/zero', p)])
@pytest.mark.parametrize('name', ['model.npz', 'recipe.json', 'rates.npy', 'log', 'score.json'])
def test_files_of_a_run_that_are_no_files(small_world, copy, tmp_path, name, make):
    with contextlib.suppress(FileNotFoundError):
        (copy / name).unlink()
    make(copy / name)
    (tmp_path / 'index').mkdir()
    commands = {
        'predict': lambda: predict(small_world, copy, tmp_path / 'd.parquet'),
        'resume': lambda: train(small_world, copy, '--iterations', 3, '--resume'),
        'report': lambda: pfdet(
            'compare-tables', '--runs', copy, '--out', tmp_path / 'report.html'
        ),
    }
    for command in commands.values():
        done = command()
        assert done.returncode in (0, 2) and 'Traceback' not in done.stderr, done.stderr
        if done.returncode:
            assert_refused(done)


@pytest.mark.faults('hostile files')
@pytest.mark.soak
@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda p: os.symlink('/dev/zero', p)])
def test_images_that_are_no_files(small_world, model, tmp_path, make):
    world = tmp_path / 'world'
    shutil.copytree(small_world, world)
    images = sorted((world / 'data' / 'validation').glob('*.jpg'))
    images[0].unlink()
    make(images[0])
    assert_refused(predict(world, model, tmp_path / 'd.parquet'), images[0].name)
    data = world / 'data'
    done = pfdet(
        *('index', '--boxes', data / 'validation-annotations-bbox.csv'),
        *('--labels', data / 'validation-annotations-human-imagelabels.csv'),
        *('--classes', data / 'class-descriptions.csv', '--hierarchy', data / 'hierarchy.json'),
        *('--images', data / 'validation', '--out', tmp_path / 'x.index'),
    )
    assert 'Traceback' not in done.stderr and images[0].stem in done.stdout + done.stderr
