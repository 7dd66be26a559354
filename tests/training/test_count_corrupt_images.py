"""Training on a data set with corrupt images: the extension, and runs of the script."""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.corrupt_images import CorruptImages
from pfdet.training.count_corrupt_images import CountCorruptImages

TRAIN = Path(__file__).resolve().parents[2] / 'train' / 'train_multi.py'


def trainer():
    return SimpleNamespace(observation={})


def test_counts_prints_and_stops():
    corrupt = CorruptImages(0.3, min_count=3)
    out = io.StringIO()
    extension = CountCorruptImages(corrupt, SimpleNamespace(size=1, rank=0), out=out)
    observed = []
    for image in range(0, 20, 2):
        corrupt.n_image += 1
        if image in (4, 6):
            corrupt.add(image, InputError(f'{image}.jpg: truncated'))
        t = trainer()
        extension(t)
        observed.append(t.observation['images/corrupt'])
    assert observed == [0, 0, 1, 2, 2, 2, 2, 2, 2, 2]
    assert out.getvalue() == (
        'warning: 4.jpg: truncated; replaced by another image\n'
        'warning: 6.jpg: truncated; replaced by another image\n'
    )
    for image in range(20, 26):
        corrupt.add(image, InputError(f'{image}.jpg: truncated'))
    with pytest.raises(InputError, match='8 of 18 images cannot be read'):
        extension(trainer())
    assert len(out.getvalue().splitlines()) == 5  # Only the first ones are printed.


def test_counts_resume_from_a_snapshot():
    comm = SimpleNamespace(size=1, rank=0)
    corrupt = CorruptImages()
    corrupt.merge(10, 2, [(1, 'a')])
    before, after = (
        CountCorruptImages(c, comm, out=io.StringIO()) for c in (corrupt, CorruptImages())
    )
    before(trainer())
    file = io.BytesIO()
    chainer.serializers.save_npz(file, before)
    file.seek(0)
    chainer.serializers.load_npz(file, after)
    assert (after.total.n_image, after.total.n_corrupt) == (10, 2)
    # A snapshot of a run without --corrupt skip.
    file = io.BytesIO()
    np.savez(file, other=1)
    file.seek(0)
    chainer.serializers.load_npz(file, after)


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
        '--set',
        'min_size=(64,64)',
        'n_anchor=32',
        'n_roi=16',
        'dtype=float64',
    ]


def log(out, key='main/loss'):
    return [entry[key] for entry in json.loads((out / 'log').read_text())]


@pytest.fixture
def world(small_world, tmp_path):
    """A copy in which two of the 24 training images are corrupt."""
    world = tmp_path / 'world'
    shutil.copytree(small_world, world)
    paths = sorted((world / 'data' / 'train').iterdir())
    paths[5].write_bytes(paths[5].read_bytes()[:700])
    paths[17].unlink()
    return world


def test_skipping_is_equal_on_any_number_of_ranks(world, tmp_path, mpiexec):
    paths = sorted((world / 'data' / 'train').iterdir())
    logs = {}
    for ranks, batch_size in (1, 4), (2, 2):
        out = tmp_path / str(ranks)
        result = mpiexec(
            ranks,
            TRAIN,
            *arguments(
                world, out, '--iterations', 9, '--snapshot-interval', 4, '--corrupt', 'skip'
            ),
            f'batch_size={batch_size}',
        )
        logs[ranks] = log(out), log(out, 'images/corrupt')
        warnings = [line for line in result.stderr.splitlines() if line.startswith('warning: ')]
        assert any(str(paths[5]) in w and 'truncated' in w for w in warnings), result.stderr
        last = result.stdout.splitlines()[-2]
        n_corrupt = int(logs[ranks][1][-1])
        assert last.startswith(f'{n_corrupt} of {36 + n_corrupt} images cannot be read')
        assert last.endswith('replaced by other images')
    np.testing.assert_allclose(logs[2][0], logs[1][0], atol=1e-4)
    # Both corrupt images are drawn in the first epoch of 24 images.
    assert logs[2][1] == logs[1][1] and logs[1][1][5] >= 2
    # Resume the run of two ranks on one rank, from the snapshot at iteration 4.
    two = tmp_path / '2'
    (two / 'snapshots' / 'iter_00000008.npz').unlink()
    mpiexec(
        1,
        TRAIN,
        *arguments(world, two, '--iterations', 9, '--resume', '--corrupt', 'skip'),
        'batch_size=4',
    )
    np.testing.assert_allclose(log(two), logs[1][0], atol=1e-4)
    assert log(two, 'images/corrupt') == logs[1][1]


def error_line(result):
    """The error message of a failed run, which must be a single line."""
    lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert result.returncode == 2 and len(lines) == 1, result.stderr
    assert 'Traceback' not in result.stderr
    return lines[0]


def test_error_is_one_line_and_the_run_resumes_with_skip(world, tmp_path, mpiexec):
    out = tmp_path / 'out'
    line = error_line(
        mpiexec(
            2,
            TRAIN,
            *arguments(world, out, '--iterations', 6, '--snapshot-interval', 1),
            'batch_size=1',
            check=False,
        )
    )
    assert '.jpg: ' in line and ('truncated' in line or 'No such file' in line)
    assert not (out / 'model.npz').exists()
    # A run that stopped at a corrupt image resumes without it.
    mpiexec(
        2,
        TRAIN,
        *arguments(world, out, '--iterations', 20, '--resume', '--corrupt', 'skip'),
        'batch_size=1',
    )
    assert (out / 'model.npz').exists()


def test_too_many_corrupt_images_end_all_ranks(world, tmp_path, mpiexec):
    for path in sorted((world / 'data' / 'train').iterdir())[::2]:
        path.write_bytes(b'')
    line = error_line(
        mpiexec(
            2,
            TRAIN,
            *arguments(world, tmp_path / 'out', '--corrupt', 'skip', '--max-corrupt-share', 0.2),
            'batch_size=2',
            check=False,
        )
    )
    assert 'images cannot be read' in line and 'empty file' in line
    assert line.endswith('expected at most 20 %')


def test_share_out_of_range_is_rejected(world, tmp_path, mpiexec):
    result = mpiexec(
        1, TRAIN, *arguments(world, tmp_path / 'out', '--max-corrupt-share', 1.5), check=False
    )
    assert '--max-corrupt-share 1.5' in error_line(result)
