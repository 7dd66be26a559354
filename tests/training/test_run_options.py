"""Runs of train_multi.py with options for many ranks and little memory."""

import json
from pathlib import Path

import numpy as np
import pytest

from pfdet import recipes

TRAIN = Path(__file__).resolve().parents[2] / 'train' / 'train_multi.py'
SMALL = ['--set', 'min_size=(48,64)', 'n_anchor=16', 'n_roi=8', 'epochs=4']


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
        *SMALL,
    ]


def log(out):
    return json.loads((out / 'log').read_text())


def weights(out):
    with np.load(out / 'model.npz') as file:
        return {name: file[name] for name in file.files}


def test_groups_accumulation_and_float16_resume_bit_identically(small_world, tmp_path, mpiexec):
    """Two groups of two ranks with different statistics, two batches per update, float16."""
    options = ['--bn-group-size', 2, '--accumulate', 2, '--allreduce-dtype', 'float16']
    more = ['batch_size=1']
    uninterrupted, resumed = tmp_path / 'uninterrupted', tmp_path / 'resumed'
    done = mpiexec(
        4, TRAIN, *arguments(small_world, uninterrupted, *options, '--iterations', 5), *more
    )
    assert 'trained 5 iterations of 8 images' in done.stdout
    assert 'waiting for data: ' in done.stdout
    # The global batch is 8 images, to which the base learning rate refers.
    lr = recipes.find('mini').base_lr
    assert log(uninterrupted)[2]['lr'] == pytest.approx(lr * (1 + np.cos(np.pi * 2 / 12)) / 2)
    assert all(0 <= entry['waiting_for_data'] <= 1 for entry in log(uninterrupted))
    mpiexec(
        4,
        TRAIN,
        *arguments(small_world, resumed, *options, '--iterations', 3, '--snapshot-interval', 3),
        *more,
    )
    mpiexec(
        4, TRAIN, *arguments(small_world, resumed, *options, '--iterations', 5, '--resume'), *more
    )
    a, b = weights(uninterrupted), weights(resumed)
    assert a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)


@pytest.mark.parametrize(
    'options, words',
    [
        (['--bn-group-size', 3], ['--bn-group-size 3', 'divisor', '2']),
        (['--double-buffering'], ['--double-buffering', 'pure_nccl']),
        (['--communicator', 'naive', '--allreduce-dtype', 'float16'], ['float16', 'naive']),
        (['--accumulate', 0], ['--accumulate 0']),
    ],
)
def test_invalid_options_are_one_line(small_world, tmp_path, mpiexec, options, words):
    done = mpiexec(2, TRAIN, *arguments(small_world, tmp_path / 'x', *options), check=False)
    assert done.returncode == 2
    lines = {line for line in done.stderr.splitlines() if line.startswith('error: ')}
    assert len(lines) == 1 and all(word in min(lines) for word in words)
