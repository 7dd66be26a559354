"""What may change between a run and the one that goes on with it."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import pytest

from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import recipe as recipes
from pfdet.training import resume

PATH = Path('out/snapshots/iter_00000005.npz')


@pytest.fixture
def run(small_world):
    index = AnnotationIndex.open(small_world / 'train.index')

    def run(seed=0, n_rank=2, index=index, classes=index.classes, **fields):
        recipe = dataclasses.replace(recipes.Recipe(), **fields)
        return resume.run_identity(recipe, seed, index, classes, n_rank, n_rank * recipe.batch_size)

    return run


def refused(before, now, *words):
    with pytest.raises(InputError) as error:
        resume.check_same_run(before, now, PATH)
    for word in words:
        assert word in str(error.value)
    assert str(PATH) in str(error.value) and '\n' not in str(error.value)


def test_ranks_batches_and_length_may_change(run):
    before = run()
    for now in (
        run(),
        run(n_rank=5),
        run(batch_size=3),
        run(epochs=3.0),
        run(nmw_thresh=0.3),
        run(name='other', about='words'),
    ):
        resume.check_same_run(before, now, PATH)
    # of versions that did not say, or did not know a field
    resume.check_same_run({}, before, PATH)
    older = {**before, 'recipe': {k: v for k, v in before['recipe'].items() if k != 'psp'}}
    resume.check_same_run(older, before, PATH)


def test_what_may_not_change_is_named(run, small_world):
    before = run()
    refused(before, run(seed=4), 'seed=0', 'seed=4')
    refused(before, run(psp=True), 'psp=False', 'psp=True')
    refused(before, run(base_lr=0.5), 'base_lr=0.01', 'base_lr=0.5')
    refused(before, run(steps=(0.5,)), 'steps=[0.66')
    other = AnnotationIndex.open(small_world / 'validation.index')
    refused(before, run(index=other), 'images=24', 'images=8')
    classes = other.classes.pick([1, 2])
    refused(before, run(classes=classes), 'classes', 'other 2')
    refused({**before, 'image_ids': 0}, before, 'other images')


def test_every_field_that_may_change_exists():
    assert {f.name for f in dataclasses.fields(recipes.Recipe)} >= resume.MAY_CHANGE


def test_no_snapshot_is_overwritten_by_a_new_run(tmp_path):
    comm = SimpleNamespace(rank=0, mpi_comm=SimpleNamespace(bcast=lambda value: value))
    resume.refuse_existing_snapshots(tmp_path / 'absent', comm)
    (tmp_path / 'iter_00000003.npz').write_bytes(b'')
    with pytest.raises(InputError, match=r'iter_00000003\.npz.*--resume'):
        resume.refuse_existing_snapshots(tmp_path, comm)
