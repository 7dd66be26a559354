"""Files of the first rank of a run."""

import pytest

from pfdet.errors import InputError
from pfdet.training.run_output import write_description


@pytest.mark.parametrize('name', ['model.npz', 'log', 'score.json'])
def test_directory_in_the_place_of_a_result_is_noticed_at_the_start(tmp_path, name):
    """Not after the training."""
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf'{name}: cannot be written: Is a directory'):
        write_description(tmp_path, None, None, {})
    assert [path.name for path in tmp_path.iterdir()] == [name]
