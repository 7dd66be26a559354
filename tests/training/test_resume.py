"""Tests of which changes are allowed when a run is resumed."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import pytest

from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import recipe as recipes
from pfdet.training import checkpoints, resume

PATH = Path('out/snapshots/iter_00000005.npz')


@pytest.fixture
def run(small_world):
    index = AnnotationIndex.open(small_world / 'train.index')

    def run(seed=0, n_rank=2, index=index, classes=index.classes, **fields):
        recipe = dataclasses.replace(recipes.Recipe(), **fields)
        return resume.run_identity(recipe, seed, index, classes, n_rank, n_rank * recipe.batch_size)

    return run


def assert_rejected(before, now, *words):
    with pytest.raises(InputError) as error:
        resume.check_same_run(before, now, PATH)
    for word in words:
        assert word in str(error.value)
    assert str(PATH) in str(error.value) and '\n' not in str(error.value)


def test_ranks_batch_size_and_length_may_change(run):
    before = run()
    for now in (
        run(),
        run(n_rank=5),
        run(batch_size=3),
        run(epochs=3.0),
        run(suppression_iou=0.3),
        run(name='other', about='words'),
    ):
        resume.check_same_run(before, now, PATH)
    # Snapshots of older versions without an identity, or without a field.
    resume.check_same_run({}, before, PATH)
    older = {**before, 'recipe': {k: v for k, v in before['recipe'].items() if k != 'psp'}}
    resume.check_same_run(older, before, PATH)


def test_error_names_the_changed_field(run, small_world):
    before = run()
    assert_rejected(before, run(seed=4), 'seed=0', 'seed=4')
    assert_rejected(before, run(psp=True), 'psp=False', 'psp=True')
    assert_rejected(before, run(base_lr=0.5), 'base_lr=0.01', 'base_lr=0.5')
    assert_rejected(before, run(steps=(0.5,)), 'steps=[0.66')
    other = AnnotationIndex.open(small_world / 'validation.index')
    assert_rejected(before, run(index=other), 'images=24', 'images=8')
    classes = other.classes.pick([1, 2])
    assert_rejected(before, run(classes=classes), 'classes', '2 different')
    assert_rejected({**before, 'image_ids': 0}, before, 'other images')


def test_every_field_that_may_change_exists():
    assert {f.name for f in dataclasses.fields(recipes.Recipe)} >= resume.MAY_CHANGE


def test_new_run_in_a_directory_with_snapshots_is_rejected(tmp_path):
    comm = SimpleNamespace(rank=0, mpi_comm=SimpleNamespace(bcast=lambda value: value))
    resume.refuse_existing_snapshots(tmp_path / 'absent', comm)
    (tmp_path / 'iter_00000003.npz').write_bytes(b'')
    with pytest.raises(InputError, match=r'iter_00000003\.npz.*--resume'):
        resume.refuse_existing_snapshots(tmp_path, comm)


@pytest.mark.parametrize(
    'before, message',
    [
        ({'recipe': [1]}, 'recipe'),
        ({'recipe': None}, 'recipe'),
        ({'classes': 7}, 'classes'),
        ({'seed': ['x' * 10**6]}, 'seed'),
        ({'images': {}}, 'images'),
    ],
)
def test_description_of_any_content_is_one_line(run, tmp_path, before, message):
    now = run()
    checkpoints.write(tmp_path / 'iter_00000005.npz', {}, {**now, **before})
    comm = SimpleNamespace(rank=0, mpi_comm=SimpleNamespace(bcast=lambda value: value))
    snapshot = checkpoints.Snapshot(tmp_path, now)
    with pytest.raises(InputError, match=r'iter_00000005\.npz: ') as e:
        resume.resume_from_newest(None, snapshot, comm)
    assert '\n' not in str(e.value) and len(str(e.value)) < 600
