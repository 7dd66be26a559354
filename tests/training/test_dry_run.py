"""Dry runs: the plan is checked by independent arithmetic, and faults of ranks are detected."""

import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet import recipes
from pfdet.iterators.samplers import SequentialSampler
from pfdet.iterators.sharded import ShardedIterator
from pfdet.links.complexity import n_parameter
from pfdet.openimages.hierarchy import challenge_hierarchy
from pfdet.training import build
from pfdet.training.dry_run import oversubscription, plan, run
from pfdet.training.dry_run.synthetic_index import ImagesOrNoise, synthetic_index

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / 'train' / 'train_multi.py'


@pytest.mark.parametrize('ranks', [1, 2, 4])
def test_plan_of_the_started_ranks(ranks, mpiexec, tmp_path):
    done = mpiexec(
        ranks,
        TRAIN,
        '--recipe',
        'mini',
        '--dry-run',
        '--out',
        tmp_path,
        '--set',
        'batch_size=3',
        'epochs=2.5',
        'base_lr=0.01',
        'warmup_epochs=0.5',
    )
    assert done.stderr == ''
    result = json.loads((tmp_path / 'dry_run.json').read_text())
    plan, measured = result['plan'], result['found']

    images, batch = 1_674_979, 3 * ranks
    assert (plan['images'], plan['ranks'], plan['global_batch']) == (images, ranks, batch)
    assert plan['iterations_per_epoch'] == pytest.approx(images / batch)
    n = plan['iterations'] = math.ceil(2.5 * images / batch)
    assert plan['shard'] == [images // ranks, images // ranks + (images % ranks > 0)]
    lr, warmup = 0.01 * batch / 8, round(0.5 * images / batch)
    rates = {i: rate for _, i, rate in plan['learning_rates']}
    assert {0, warmup, n - 1} <= rates.keys() and len(rates) == 10
    for i, rate in rates.items():
        expected = lr * 0.5 * (1 + math.cos(math.pi * i / n)) * min(1, 0.1 + 0.9 * i / warmup)
        assert rate == pytest.approx(expected)
    for epoch, i, _ in plan['learning_rates']:
        assert epoch == pytest.approx(i * batch / images)
    network = build.detector(recipes.find('mini'), 500)
    assert plan['parameters'] == n_parameter(network)
    for name in 'gradients', 'velocity', 'all-reduce':
        assert plan['memory'][name] == 4 * plan['parameters']
    statistics = sum(value.size for name, value in arrays(network) if 'avg_' in name)
    assert (
        4 * (plan['parameters'] + statistics)
        <= plan['memory']['weights']
        < 4 * (plan['parameters'] + statistics) * 1.01
    )

    assert measured['ranks'] == ranks and not measured['narrow']
    assert measured['positions'] == math.ceil(images / batch) * batch
    assert measured['draws'] == measured['images_drawn'] == 4 * ranks
    assert measured['parameters'] == plan['parameters']
    assert measured['images_made'] == 2 * ranks and measured['images_read'] == 0
    assert len(measured['losses']) == 2 and all(0 < loss < 100 for loss in measured['losses'])
    assert 0 <= measured['padding'] < 1
    # Python and NumPy alone are more than 10 MB, and nothing here is near a gigabyte.
    assert 10e6 < measured['started']['private_mean'] < measured['ended']['private_max'] < 1e9
    assert ranks * 10e6 < measured['ended']['proportional_sum'] < ranks * 1e9
    assert 0 < measured['started']['seconds'] < measured['ended']['seconds']
    for words in (
        f'x 3 = {batch:,} images',
        f'{n:,} iterations',
        'disjoint and complete',
        'the same weights on all ranks',
        f'Done on {ranks} rank',
    ):
        assert words in done.stdout


def arrays(link):
    from chainer.serializers import DictionarySerializer

    serializer = DictionarySerializer()
    serializer.save(link)
    return [(name, np.asarray(value)) for name, value in serializer.target.items()]


def test_plan_of_512_ranks_by_three_ranks_with_an_index(mpiexec, small_world, tmp_path):
    index = small_world / 'train.index'
    done = mpiexec(
        3,
        TRAIN,
        '--recipe',
        'mini',
        '--dry-run',
        512,
        '--train-index',
        index,
        '--out',
        tmp_path,
        '--set',
        'sampler=soft_balance',
        'loss=concurrent_softmax',
        'effective_beta=0.99',
        'batch_size=1',
    )
    result = json.loads((tmp_path / 'dry_run.json').read_text())
    plan, measured = result['plan'], result['found']
    assert (plan['images'], plan['ranks'], plan['global_batch']) == (24, 512, 512)
    assert plan['shard'] == [0, 1] and plan['iterations'] == 1
    assert plan['memory']['index'] == index.stat().st_size
    assert measured['ranks'] == 3 and measured['positions'] == 512
    assert measured['images_read'] == 6 and measured['images_made'] == 0
    assert str(index) in done.stdout and 'aspect_chunk=512' in done.stdout


def test_narrower_layers_without_memory(mpiexec):
    done = mpiexec(
        2,
        """
        import sys
        sys.argv = ['train_multi.py']
        from pfdet import recipes
        from pfdet.training.dry_run import run
        from pfdet.training.communicators import communicator
        run.available_memory = lambda: 1
        comm, device = communicator()
        run.dry_run(recipes.find(recipes.DEFAULT), None, comm)
    """,
    )
    assert 'narrower layers for lack of memory' in done.stdout


@pytest.mark.parametrize('name', ['table1-baseline', 'table1-context', recipes.DEFAULT])
def test_parameters_are_counted_without_allocation(name):
    recipe = recipes.find(name, 'mini')
    hierarchy = challenge_hierarchy()
    network = build.detector(recipe, hierarchy.n_class)
    before = build.detector(recipe, 3).rpn.conv.W.array
    assert plan.network_size(recipe, hierarchy)[0] == n_parameter(network)
    # Later networks have the same weights as before.
    np.testing.assert_array_equal(build.detector(recipe, 3).rpn.conv.W.array, before)
    assert before.std() > 0


def test_learning_rates_of_a_step_schedule():
    recipe = recipes.find('table1-baseline')
    length = plan.RunLength(1000, 12, 8)
    rates = {i: rate for _, i, rate in plan.learning_rate_points(recipe, length)}
    assert rates == pytest.approx(
        {0: 0.001, 62: 0.01, 999: 0.01, 1000: 0.001, 1374: 0.001, 1375: 0.0001, 1499: 0.0001}
    )


class Ranks:
    """A communicator of rank 0, with given data of the other ranks."""

    def __init__(self, *others):
        self.size, self.rank = 1 + len(others), 0
        self.mpi_comm = SimpleNamespace(gather=lambda own: [own, *others])


def test_repeated_position_is_detected(monkeypatch):
    assert run.check_split(10, 4, 3, Ranks()) == {'positions': 12}
    monkeypatch.setattr(
        ShardedIterator,
        'positions',
        lambda self, start: range(
            start + self.rank, start + self.global_batch_size + 1, self.n_rank
        )[: self.batch_size - 1],
    )
    with pytest.raises((RuntimeError, ValueError)):
        run.check_split(10, 4, 3, Ranks())
    monkeypatch.setattr(
        ShardedIterator, 'positions', lambda self, start: range(start, start + self.batch_size)
    )
    with pytest.raises(RuntimeError, match='4 ranks do not cover each of the first 12 positions'):
        run.check_split(10, 4, 3, Ranks())


def test_draws_from_different_sequences_are_detected():
    sampler, other = SequentialSampler(20, 0), SequentialSampler(20, 1)
    other_ranks = [np.array([s[p] for p in range(1, 20, 2)]) for s in (sampler, other)]
    assert run.check_draws(sampler, Ranks(other_ranks[0])) == {'draws': 20, 'images_drawn': 20}
    with pytest.raises(RuntimeError, match='different sequences'):
        run.check_draws(sampler, Ranks(other_ranks[1]))

    class Twice(SequentialSampler):
        def __getitem__(self, position):
            return position // 2

    with pytest.raises(RuntimeError, match='each of 20 images once'):
        run.check_draws(Twice(20, 0), Ranks())


@pytest.mark.parametrize(
    'change, words',
    [
        ({'positions': np.array([[0, 2], [1, 2]])}, 'positions once'),
        ({'sizes': [[(64, 64)], [(64, 80)]]}, 'different sizes'),
        ({'losses': np.array([[1.0, np.nan], [1.0, 1.0]])}, 'loss of rank 0'),
        ({'checksums': (1, 2)}, 'different weights'),
    ],
)
def test_disagreement_of_ranks_is_detected(change, words):
    good = {
        'positions': np.array([[0, 2], [1, 3]]),
        'sizes': [[(64, 64)]] * 2,
        'losses': np.ones((2, 2)),
        'checksums': (1, 1),
    }
    run._check_steps(**good)
    with pytest.raises(RuntimeError, match=words):
        run._check_steps(**{**good, **change})


def test_synthetic_annotations_are_valid():
    index, again = synthetic_index(30), synthetic_index(30)
    assert len(index) == 30 and len(index.classes) == 500 and index.hierarchy.ancestors.any()
    for i in range(30):
        annotation = index.annotation(i)
        assert 1 <= len(annotation.bbox) <= 5 and annotation.label.sum() == len(annotation.bbox)
        assert (annotation.bbox[:, :2] < annotation.bbox[:, 2:]).all()
        assert (annotation.bbox >= 0).all() and (annotation.bbox <= 1).all()
        np.testing.assert_array_equal(annotation.positive, annotation.label.any(axis=0))
        np.testing.assert_array_equal(annotation.bbox, again.annotation(i).bbox)
    assert index.image_id(3) == '0000000000000003' and index.find(index.image_id(7)) == 7


def test_images_or_noise(small_world, tmp_path):
    from pfdet.openimages.dataset import OpenImagesDataset
    from pfdet.openimages.index import AnnotationIndex

    index = AnnotationIndex.open(small_world / 'train.index')
    images = ImagesOrNoise(index)
    np.testing.assert_array_equal(
        images.get_resized(2, 64, 100), OpenImagesDataset(index).get_resized(2, 64, 100)
    )
    missing = ImagesOrNoise(AnnotationIndex.open(index.path, tmp_path))
    assert missing.get_resized(2, 64, 100).shape == images.get_resized(2, 64, 100).shape
    assert (images.n_read, images.n_noise, missing.n_read, missing.n_noise) == (2, 0, 0, 1)


def test_settings_are_applied_only_to_oversubscribed_nodes():
    def environment_after(**environment):
        oversubscription.prepare(environment)
        return environment

    assert environment_after() == {}
    assert environment_after(MPI_LOCALNRANKS='1', PMI_SIZE='1') == {
        'MPI_LOCALNRANKS': '1',
        'PMI_SIZE': '1',
    }
    many = environment_after(MPI_LOCALNRANKS='9999', PMI_SIZE='9999', OMP_NUM_THREADS='2')
    assert many['OMP_NUM_THREADS'] == '2' and many['OPENBLAS_NUM_THREADS'] == '1'
    assert many['UCX_TLS'] == 'posix,self'
    assert 'UCX_TLS' not in environment_after(MPI_LOCALNRANKS='9999', PMI_SIZE='19998')


def test_process_stats():
    # In a new process: a large process may release memory during the test.
    program = """
        import mmap
        from pfdet.training.dry_run import process_stats
        private, proportional = process_stats.memory()
        # Not with malloc, which may have as much free memory already.
        with mmap.mmap(-1, 40_000_000, flags=mmap.MAP_PRIVATE) as held:
            held.write(b'1' * len(held))
            grown = process_stats.memory()
        assert 39_000_000 < grown.private - private < 45_000_000, (private, grown)
        assert grown.proportional >= grown.private
        assert process_stats.available_memory() > 40_000_000
        assert process_stats.seconds_since_start() > 0
    """
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_invalid_recipe_is_an_error(mpiexec):
    done = mpiexec(2, TRAIN, '--recipe', 'mini', '--dry-run', '--set', 'sampler=none', check=False)
    assert done.returncode == 2 and "sampler='none'" in done.stderr
