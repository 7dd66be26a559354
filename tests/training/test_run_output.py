"""Files of the first rank of a run."""

import shutil

import pfdet.compat  # noqa: F401

import pytest

from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import find, override
from pfdet.training import run_output
from pfdet.training.communicators import create_communicator
from pfdet.training.run_options import RunOptions
from pfdet.training.run_output import StillThere, write_description, write_results
from pfdet.training.train import train


@pytest.mark.parametrize('name', ['model.npz', 'log', 'score.json'])
def test_directory_in_the_place_of_a_result_is_noticed_at_the_start(tmp_path, name):
    """Not after the training."""
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf'{name}: cannot be written: Is a directory'):
        write_description(tmp_path, None, None, {})
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_file_in_the_place_of_the_snapshots_is_noticed_at_the_start(tmp_path):
    (tmp_path / 'snapshots').touch()
    with pytest.raises(InputError, match='snapshots: is a file; expected a directory, or none'):
        write_description(tmp_path, None, None, {})


@pytest.mark.parametrize('remove', [shutil.rmtree, lambda out: out.rename(out.with_name('moved'))])
def test_a_directory_that_is_removed_during_training_ends_it(small_world, tmp_path, remove):
    """Otherwise a new directory would have the log and the last weights without the recipe."""
    out = tmp_path / 'run'
    recipe = override(find('mini'), ['min_size=(64,64)', 'n_anchor=32', 'n_roi=16'])

    class Remove(StillThere):
        priority = StillThere.priority + 1

        def __call__(self, trainer):
            if trainer.updater.iteration == 2:
                remove(self.out)
            super().__call__(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_output, 'StillThere', Remove)
        with pytest.raises(InputError, match='run: recipe.json is gone; the directory was removed'):
            train(
                recipe,
                AnnotationIndex.open(small_world / 'train.index'),
                out,
                create_communicator(),
                RunOptions(iterations=3, log_interval=1),
            )
    assert not out.exists()
    with pytest.raises(InputError, match='recipe.json is gone'):
        write_results(out, None, None)
    assert not out.exists()
