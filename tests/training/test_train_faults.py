"""Ranks that are killed, signals, a full disk, a NaN: nothing is lost, and nothing hangs.

``PFDET_KILLS=20 pytest -s tests/training/test_train_faults.py -k killed`` kills a run 20
times instead of 3, and prints what happened; it takes some minutes.
"""

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
N_KILL = int(os.environ.get('PFDET_KILLS', 3))
# Of the run that is killed: three for each kill, and some to end with.
N_ITERATION = 3 * N_KILL + 4
IMAGES = 24


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
        '--snapshot-interval',
        1,
        *more,
        '--set',
        'min_size=(64,64)',
        'n_anchor=32',
        'n_roi=16',
        'batch_size=2',
        f'epochs={N_ITERATION * 4 / IMAGES}',
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
def whole(small_world, tmp_path_factory, mpiexec):
    """The run that nothing happens to."""
    out = tmp_path_factory.mktemp('whole')
    mpiexec(2, TRAIN, *arguments(small_world, out))
    assert log(out, 'iteration') == list(range(1, N_ITERATION + 1))
    return out


def test_a_run_killed_again_and_again_ends_as_if_nothing_had_happened(
    small_world, whole, tmp_path, launch
):
    """Either rank, at random moments from the start of the processes on; two snapshots damaged."""
    rng = np.random.default_rng(int(os.environ.get('PFDET_KILL_SEED', 0)))
    out = tmp_path / 'killed'
    done, longest, moments, damaged, noticed = 0, 0.0, [], {}, set()

    def still_damaged():
        return [p for p in damaged if p.exists() and p.read_bytes() == damaged[p]]

    for kill in range(N_KILL):
        expected = still_damaged()
        # Up to five more iterations, but no more than leave some for the kills to come.
        most = min(5, N_ITERATION - done - 2 * (N_KILL - kill) - 2)
        n = int(rng.integers(0, max(0, most) + 1))
        if kill == N_KILL - 1:
            n = max(n, 3)
        run = launch(2, *arguments(small_world, out, '--resume'), hold=done + n + 1)
        ranks = run.ranks(2)
        if n == 0:
            # in the start
            run.wait_for(1, timeout=rng.uniform(0, 3))
        else:
            # in the iteration that follows, or its snapshot
            run.wait_for(n)
            time.sleep(rng.uniform(0, 0.1))
        rank = int(rng.integers(2))
        assert run.process.poll() is None, run.output()
        killed = time.monotonic()
        run.send(signal.SIGKILL, ranks[rank])
        assert run.wait(timeout=600) != 0 and run.left_over(timeout=600) == []
        longest = max(longest, time.monotonic() - killed)
        noticed |= damage_noticed(run, expected)
        done = max([done, *run.trained()])
        moments.append((rank, (run.trained() or [0])[-1]))
        found = checkpoints.snapshots(out / 'snapshots')
        if kill == N_KILL - 1:
            n_damage = 2 - len(damaged)
        else:
            n_damage = int(kill >= N_KILL / 2 and not damaged and len(found) > 1)
        for path in found[:n_damage]:
            damage(path, ['truncated', 'flipped'][len(damaged)])
            damaged[path] = path.read_bytes()
    expected = still_damaged()
    run = launch(2, *arguments(small_world, out, '--resume'))
    assert run.wait(timeout=600) == 0, run.output()
    noticed |= damage_noticed(run, expected)
    assert noticed == set(damaged) and len(damaged) == 2 and run.left_over() == []
    print(
        f'\n{N_KILL} kills (rank, iteration): {moments}; damaged: '
        f'{[p.name for p in damaged]}; the longest end of a job: {longest:.2f} s'
    )

    assert log(out, 'main/loss') == log(whole, 'main/loss')
    assert log(out, 'lr') == log(whole, 'lr')
    a, b = weights(whole), weights(out)
    assert a.keys() == b.keys()
    assert all(a[k].tobytes() == b[k].tobytes() for k in a)
    assert snapshot_names(out) == snapshot_names(whole)
    assert len(snapshot_names(out)) == 3
    # nothing half-written is left
    assert sorted(os.listdir(out)) == ['log', 'model.npz', 'recipe.json', 'snapshots']


def damage_noticed(run, damaged):
    """The damaged snapshots, if the run got as far as to name each in one line and to go on."""
    if not run.trained():
        return set()
    warnings = [line for line in run.errors if 'damaged' in line]
    assert len(warnings) == len(damaged), run.output()
    for path in damaged:
        assert sum(str(path) in line for line in warnings) == 1
        assert not any('resuming' in line and str(path) in line for line in run.lines)
    return set(damaged)


@pytest.mark.parametrize('number, to', [(signal.SIGTERM, 'rank 1'), (signal.SIGUSR1, 'mpiexec')])
def test_asked_to_stop_all_ranks_do_after_the_same_iteration(
    number, to, small_world, whole, tmp_path, launch
):
    out = tmp_path / 'out'
    run = launch(2, *arguments(small_world, out), '--snapshot-interval', 100, hold=3)
    ranks = run.ranks(2)
    run.wait_for(2)
    run.send(number, ranks[1] if to == 'rank 1' else None)
    assert run.wait(600) == 75, run.output()
    assert run.left_over() == []
    n = run.trained()[-1]
    assert snapshot_names(out) == [f'iter_{n:08d}.npz'] and 2 <= n <= 4
    assert f'stopped by {number.name} after iteration {n}' in run.lines[-1]
    assert run.errors == [] and not (out / 'model.npz').exists()
    if to == 'rank 1':
        again = launch(2, *arguments(small_world, out, '--resume'))
        assert again.wait(600) == 0, again.output()
        assert again.trained() == list(range(n + 1, N_ITERATION + 1))
        a, b = weights(whole), weights(out)
        assert all(a[k].tobytes() == b[k].tobytes() for k in a)


# Notes which images each rank puts into its batches, and trains.
NOTE_IMAGES = """
    import runpy
    import sys

    from mpi4py import MPI
    import pfdet.compat
    from pfdet.training import transforms

    script, notes, *sys.argv[1:] = sys.argv[1:]
    convert = transforms.Converter.__call__

    def note(self, samples, device=None):
        with open(f'{notes}-{MPI.COMM_WORLD.rank}', 'a') as file:
            for sample in samples:
                print(sample.position, sample.image_id, file=file)
        return convert(self, samples, device)

    transforms.Converter.__call__ = note
    runpy.run_path(script, run_name='__main__')
"""


@pytest.fixture(scope='module')
def half(small_world, tmp_path_factory, mpiexec):
    """Half an epoch on two ranks, with notes of the images."""
    directory = tmp_path_factory.mktemp('half')
    mpiexec(
        2,
        NOTE_IMAGES,
        TRAIN,
        directory / 'notes',
        *arguments(small_world, directory / 'out', '--iterations', 3),
        'epochs=1.25',
    )
    return directory


@pytest.mark.parametrize('ranks', [1, 4])
def test_on_other_ranks_the_sequence_of_images_goes_on(ranks, small_world, half, tmp_path, mpiexec):
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    out = tmp_path / 'out'
    done = mpiexec(
        ranks,
        NOTE_IMAGES,
        TRAIN,
        tmp_path / 'notes',
        *arguments(small_world, out, '--resume'),
        'epochs=1.25',
    )
    assert 'iter_00000003.npz: iteration 3, epoch 0.50, written by 2 ranks' in done.stdout

    noted = [
        line.split() for path in tmp_path.glob('notes-*') for line in path.read_text().splitlines()
    ]
    noted = sorted((int(position), image_id) for position, image_id in noted)
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = json.loads((out / 'recipe.json').read_text())['recipe']
    sampler = SequentialSampler(
        IMAGES, 0, build.aspect_groups(index.columns['image_size']), recipe['aspect_chunk']
    )
    n = -(-(30 - 12) // (2 * ranks)) * 2 * ranks + 12
    assert noted == [(p, index.image_id(sampler[p])) for p in range(n)]

    # The rate is that of the place in the sequence, for the images of an iteration.
    places = [*range(0, 12, 4), *range(12, n, 2 * ranks)]
    batches = [4] * 3 + [2 * ranks] * (len(places) - 3)
    expected = [
        learning_rate(
            p / b,
            -(-30 // b),
            linear_scaling(find('mini').base_lr, 8, b),
            'cosine',
            n_warmup=round(12 / b),
        )
        for p, b in zip(places, batches, strict=True)
    ]
    assert log(out, 'lr') == pytest.approx(expected)
    assert log(out, 'iteration') == list(range(1, len(places) + 1))


def test_nan_loss_of_one_rank_stops_all_with_its_images(small_world, tmp_path, mpiexec):
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
    # the snapshots are those from before
    assert snapshot_names(out) == ['iter_00000001.npz', 'iter_00000002.npz']
    assert log(out, 'iteration') == [1, 2]
    path, _ = checkpoints.newest(out / 'snapshots')
    with np.load(path) as file:
        assert all(np.isfinite(file[k]).all() for k in file.files if k.startswith('updater/model'))


def test_full_disk_is_one_line_and_leaves_the_last_snapshot(small_world, whole, tmp_path, mpiexec):
    """A limit of the size of files stands for the disk: the log has room, the snapshot has not."""
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
    shutil.copytree(whole, out)
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


def test_finished_run_is_left_alone(small_world, whole, tmp_path, mpiexec):
    """As it is, when it is resumed, and when by mistake another is begun in its place."""
    out = tmp_path / 'out'
    shutil.copytree(whole, out)

    def content():
        return {p: p.read_bytes() for p in out.rglob('*') if p.is_file()}

    before = content()
    for more, words in (['--resume', '--seed', '5'], 'seed=0'), ([], '--resume'):
        done = mpiexec(1, TRAIN, *arguments(small_world, out, *more), check=False)
        assert done.returncode == 2 and words in done.stderr
        assert done.stderr.count('\n') == 1
        assert content() == before
    done = mpiexec(1, TRAIN, *arguments(small_world, out, '--resume'))
    assert f'trained already, {N_ITERATION} iterations' in done.stdout
    after, again = weights(whole), weights(out)
    assert all(after[k].tobytes() == again[k].tobytes() for k in after)
    assert snapshot_names(out) == snapshot_names(whole)
