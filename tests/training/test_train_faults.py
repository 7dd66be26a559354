"""Faults during training: killed ranks, signals, a full disk, a NaN. No run is lost or hangs."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from pfdet.iterators.samplers import SequentialSampler
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import find
from pfdet.training import build, checkpoints
from pfdet.training.schedules import learning_rate, linear_scaling

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / 'train' / 'train_multi.py'
IMAGES = 24
N_ITERATION = 13


def arguments(world, out, *more, n_iteration=N_ITERATION):
    return [
        '--recipe',
        'mini',
        '--train-index',
        world / 'train.index',
        '--out',
        out,
        '--log-interval',
        1,
        '--snapshot-interval',
        1,
        *more,
        '--set',
        'min_size=(64,64)',
        'n_anchor=32',
        'n_roi=16',
        'batch_size=2',
        f'epochs={n_iteration * 4 / IMAGES}',
    ]


def weights(out):
    with np.load(out / 'model.npz') as file:
        return {name: file[name] for name in file.files}


def log(out, key):
    return [entry[key] for entry in json.loads((out / 'log').read_text())]


def snapshot_names(out):
    return sorted(os.listdir(out / 'snapshots'))


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == 'truncated':
        del content[len(content) // 3 :]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope='module')
def uninterrupted(small_world, tmp_path_factory, mpiexec):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp('uninterrupted')
    mpiexec(2, TRAIN, *arguments(small_world, out))
    assert log(out, 'iteration') == list(range(1, N_ITERATION + 1))
    return out


@pytest.mark.faults('kills')
@pytest.mark.parametrize('n_kill', [3, pytest.param(100, marks=pytest.mark.soak)])
def test_repeatedly_killed_run_is_bit_identical(
    n_kill, small_world, request, tmp_path, mpiexec, launch, tried
):
    """Kill random ranks at random times, also during start-up, and damage two snapshots."""
    tried(n_kill)
    rng = np.random.default_rng(n_kill)
    # Three per kill, and four at the end.
    n_iteration = 3 * n_kill + 4
    if n_iteration == N_ITERATION:
        uninterrupted = request.getfixturevalue('uninterrupted')
    else:
        uninterrupted = tmp_path / 'uninterrupted'
        mpiexec(2, TRAIN, *arguments(small_world, uninterrupted, n_iteration=n_iteration))
    out = tmp_path / 'killed'
    resume = arguments(small_world, out, '--resume', n_iteration=n_iteration)
    done, slowest_end, kills, damaged, detected = 0, 0.0, [], {}, set()

    def still_damaged():
        return [p for p in damaged if p.exists() and p.read_bytes() == damaged[p]]

    for kill in range(n_kill):
        expected = still_damaged()
        # Up to five more iterations, but leave some for the remaining kills.
        limit = min(5, n_iteration - done - 2 * (n_kill - kill) - 2)
        n = int(rng.integers(0, max(0, limit) + 1))
        if kill == n_kill - 1:
            n = max(n, 3)
        run = launch(2, *resume, hold=done + n + 1)
        ranks = run.ranks(2)
        if n == 0:
            # Kill during start-up.
            run.wait_for(1, timeout=rng.uniform(0, 3))
        else:
            # Kill during the next iteration or its snapshot.
            run.wait_for(n)
            time.sleep(rng.uniform(0, 0.1))
        rank = int(rng.integers(2))
        assert run.process.poll() is None, run.output()
        kill_time = time.monotonic()
        run.send(signal.SIGKILL, ranks[rank])
        assert run.wait(timeout=600) != 0 and run.remaining(timeout=600) == []
        slowest_end = max(slowest_end, time.monotonic() - kill_time)
        detected |= detected_damage(run, expected)
        done = max([done, *run.logged_iterations()])
        kills.append((rank, (run.logged_iterations() or [0])[-1]))
        snapshots = checkpoints.snapshots(out / 'snapshots')
        if kill == n_kill - 1:
            n_damage = 2 - len(damaged)
        else:
            n_damage = int(kill >= n_kill / 2 and not damaged and len(snapshots) > 1)
        for path in snapshots[:n_damage]:
            damage(path, ['truncated', 'flipped'][len(damaged)])
            damaged[path] = path.read_bytes()
    expected = still_damaged()
    run = launch(2, *resume)
    assert run.wait(timeout=600) == 0, run.output()
    detected |= detected_damage(run, expected)
    assert detected == set(damaged) and len(damaged) == 2 and run.remaining() == []
    print(
        f'\n{n_kill} kills (rank, iteration): {kills}; damaged: '
        f'{[p.name for p in damaged]}; slowest end of a job: {slowest_end:.2f} s'
    )

    assert log(out, 'main/loss') == log(uninterrupted, 'main/loss')
    assert log(out, 'lr') == log(uninterrupted, 'lr')
    a, b = weights(uninterrupted), weights(out)
    assert a.keys() == b.keys()
    assert all(a[k].tobytes() == b[k].tobytes() for k in a)
    assert snapshot_names(out) == snapshot_names(uninterrupted)
    assert len(snapshot_names(out)) == 3
    # No temporary files remain.
    assert sorted(os.listdir(out)) == ['log', 'model.npz', 'recipe.json', 'snapshots']


def detected_damage(run, damaged):
    """Check the warnings about damaged snapshots, if the run reached its first iteration."""
    if not run.logged_iterations():
        return set()
    warnings = [line for line in run.errors if 'damaged' in line]
    assert len(warnings) == len(damaged), run.output()
    for path in damaged:
        assert sum(str(path) in line for line in warnings) == 1
        assert not any('resuming' in line and str(path) in line for line in run.lines)
    return set(damaged)


@pytest.mark.faults('signals')
@pytest.mark.parametrize(
    'number, target', [(signal.SIGTERM, 'rank 1'), (signal.SIGUSR1, 'mpiexec')]
)
def test_all_ranks_stop_after_the_same_iteration_on_a_signal(
    number, target, small_world, uninterrupted, tmp_path, launch
):
    out = tmp_path / 'out'
    run = launch(2, *arguments(small_world, out), '--snapshot-interval', 100, hold=3)
    ranks = run.ranks(2)
    run.wait_for(2)
    run.send(number, ranks[1] if target == 'rank 1' else None)
    assert run.wait(600) == 75, run.output()
    assert run.remaining() == []
    n = run.logged_iterations()[-1]
    assert snapshot_names(out) == [f'iter_{n:08d}.npz'] and 2 <= n <= 4
    assert f'stopped by {number.name} after iteration {n}' in run.lines[-1]
    assert all(line.startswith('note: ') for line in run.errors), run.output()
    assert not (out / 'model.npz').exists()
    if target == 'rank 1':
        again = launch(2, *arguments(small_world, out, '--resume'))
        assert again.wait(600) == 0, again.output()
        assert again.logged_iterations() == list(range(n + 1, N_ITERATION + 1))
        a, b = weights(uninterrupted), weights(out)
        assert all(a[k].tobytes() == b[k].tobytes() for k in a)


# Train, and record the images in the batches of each rank.
RECORD_IMAGES = """
    import runpy
    import sys

    from mpi4py import MPI
    import pfdet.compat
    from pfdet.training import transforms

    script, record, *sys.argv[1:] = sys.argv[1:]
    convert = transforms.Converter.__call__

    def convert_and_record(self, samples, device=None):
        with open(f'{record}-{MPI.COMM_WORLD.rank}', 'a') as file:
            for sample in samples:
                print(sample.position, sample.image_id, file=file)
        return convert(self, samples, device)

    transforms.Converter.__call__ = convert_and_record
    runpy.run_path(script, run_name='__main__')
"""


@pytest.fixture(scope='module')
def half(small_world, tmp_path_factory, mpiexec):
    """Half an epoch on two ranks, with a record of the images."""
    directory = tmp_path_factory.mktemp('half')
    mpiexec(
        2,
        RECORD_IMAGES,
        TRAIN,
        directory / 'images',
        *arguments(small_world, directory / 'out', '--iterations', 3),
        'epochs=1.25',
    )
    return directory


@pytest.mark.parametrize('ranks', [1, 4])
def test_other_ranks_continue_the_sequence_of_images(ranks, small_world, half, tmp_path, mpiexec):
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    out = tmp_path / 'out'
    done = mpiexec(
        ranks,
        RECORD_IMAGES,
        TRAIN,
        tmp_path / 'images',
        *arguments(small_world, out, '--resume'),
        'epochs=1.25',
    )
    assert 'iter_00000003.npz: iteration 3, epoch 0.50, written by 2 ranks' in done.stdout

    recorded = [
        line.split() for path in tmp_path.glob('images-*') for line in path.read_text().splitlines()
    ]
    recorded = sorted((int(position), image_id) for position, image_id in recorded)
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = json.loads((out / 'recipe.json').read_text())['recipe']
    sampler = SequentialSampler(
        IMAGES, 0, build.aspect_groups(index.columns['image_size']), recipe['aspect_chunk']
    )
    n = -(-(30 - 12) // (2 * ranks)) * 2 * ranks + 12
    assert recorded == [(p, index.image_id(sampler[p])) for p in range(n)]

    # The learning rate follows the position in the sequence and the current global batch size.
    positions = [*range(0, 12, 4), *range(12, n, 2 * ranks)]
    batches = [4] * 3 + [2 * ranks] * (len(positions) - 3)
    expected = [
        learning_rate(
            p / b,
            -(-30 // b),
            linear_scaling(find('mini').base_lr, 8, b),
            'cosine',
            n_warmup=round(12 / b),
        )
        for p, b in zip(positions, batches, strict=True)
    ]
    assert log(out, 'lr') == pytest.approx(expected)
    assert log(out, 'iteration') == list(range(1, len(positions) + 1))


def test_nan_loss_of_one_rank_stops_all_ranks_and_its_images_are_saved(
    small_world, tmp_path, mpiexec
):
    program = """
        import runpy
        import sys

        from mpi4py import MPI
        import pfdet.compat
        from pfdet.training import train_chain

        forward = train_chain.TrainChain.forward
        n = 0

        def broken(self, batch):
            global n
            n += 1
            loss = forward(self, batch)
            if MPI.COMM_WORLD.rank == 1 and n == 3:
                loss.array[...] = float('nan')
            return loss

        train_chain.TrainChain.forward = broken
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name='__main__')
    """
    out = tmp_path / 'out'
    done = mpiexec(2, program, TRAIN, *arguments(small_world, out), check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if 'error:' in line]
    assert len(errors) == 1 and 'Traceback' not in done.stderr, done.stderr
    for words in 'iteration 3', 'nan of rank 1', 'bad_batch.json':
        assert words in errors[0]
    bad = json.loads((out / 'bad_batch.json').read_text())
    [rank] = bad['ranks']
    assert bad['iteration'] == 3 and rank['rank'] == 1 and rank['positions'] == [9, 11]
    assert rank['losses']['main/loss'] == 'nan' and rank['losses']['main/loss/rpn_loc'] >= 0
    assert len(rank['image_ids']) == 2
    assert bad['learning_rate'] == pytest.approx(
        learning_rate(
            2, N_ITERATION, linear_scaling(find('mini').base_lr, 8, 4), 'cosine', n_warmup=3
        )
    )
    # The snapshots are from earlier iterations.
    assert snapshot_names(out) == ['iter_00000001.npz', 'iter_00000002.npz']
    assert log(out, 'iteration') == [1, 2]
    path, _ = checkpoints.newest(out / 'snapshots')
    with np.load(path) as file:
        assert all(np.isfinite(file[k]).all() for k in file.files if k.startswith('updater/model'))


def test_full_disk_is_one_line_and_keeps_the_previous_snapshots(
    small_world, uninterrupted, tmp_path, mpiexec
):
    """A limit on the file size simulates a full disk: the log fits, the snapshot does not."""
    program = """
        import resource
        import runpy
        import sys

        from mpi4py import MPI

        resource.setrlimit(resource.RLIMIT_FSIZE, (2 ** 20, resource.RLIM_INFINITY))
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name='__main__')
    """
    out = tmp_path / 'out'
    shutil.copytree(uninterrupted, out)
    newest, *before = checkpoints.snapshots(out / 'snapshots')
    newest.unlink()
    done = mpiexec(2, program, TRAIN, *arguments(small_world, out, '--resume'), check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if 'error:' in line]
    assert len(errors) == 1 and 'Traceback' not in done.stderr, done.stderr
    assert f'{newest}: cannot be written: File too large' in errors[0]
    assert checkpoints.snapshots(out / 'snapshots') == before
    assert not any(checkpoints.problem(path) for path in before)
    assert sorted(os.listdir(out)) == ['log', 'model.npz', 'recipe.json', 'snapshots']


def test_finished_run_is_unchanged(small_world, uninterrupted, tmp_path, mpiexec):
    """Both when it is resumed and when another run is started in its directory by mistake."""
    out = tmp_path / 'out'
    shutil.copytree(uninterrupted, out)

    def content():
        return {p: p.read_bytes() for p in out.rglob('*') if p.is_file()}

    before = content()
    for options, words in (['--resume', '--seed', '5'], 'seed=0'), ([], '--resume'):
        done = mpiexec(1, TRAIN, *arguments(small_world, out, *options), check=False)
        assert done.returncode == 2 and words in done.stderr
        assert done.stderr.count('\n') == 1
        assert content() == before
    done = mpiexec(1, TRAIN, *arguments(small_world, out, '--resume'))
    assert f'trained already, {N_ITERATION} iterations' in done.stdout
    after, again = weights(uninterrupted), weights(out)
    assert all(after[k].tobytes() == again[k].tobytes() for k in after)
    assert snapshot_names(out) == snapshot_names(uninterrupted)
