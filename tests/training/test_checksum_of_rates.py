"""The concurrent rates of a run, whose checksum is in its recipe.json."""

import json
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.recipes import Recipe
from pfdet.training import model_directory
from pfdet.training.run_output import write_description

CLASSES = Classes(tuple(f'/m/{c}' for c in 'abc'), tuple('abc'))
HIERARCHY = flat_hierarchy(3)
RATES = np.linspace(0, 1, 9, dtype=np.float32).reshape(3, 3)


@pytest.fixture
def run(tmp_path):
    net = SimpleNamespace(classes=CLASSES, hierarchy=HIERARCHY, rates=RATES)
    write_description(tmp_path, Recipe(), net, {'seed': 0})
    return tmp_path


def read(directory):
    return model_directory.read_rates(directory / 'rates.npy', CLASSES, HIERARCHY, 1.0)


def test_flipped_bits_of_rates_are_one_line(run):
    np.testing.assert_array_equal(read(run), RATES)
    whole = (run / 'rates.npy').read_bytes()
    rng = np.random.default_rng(0)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        (run / 'rates.npy').write_bytes(damaged)
        with pytest.raises(InputError, match=r'rates\.npy: damaged') as e:
            read(run)
        assert '\n' not in str(e.value)


def test_runs_of_earlier_versions_and_other_files_are_read(run):
    np.save(run / 'other.npy', RATES.T)
    other = model_directory.read_rates(run / 'other.npy', CLASSES, HIERARCHY, 1.0)
    np.testing.assert_array_equal(other, RATES.T)
    for content in {'run': {'seed': 0}}, {'run': []}, {}:
        (run / 'recipe.json').write_text(json.dumps(content))
        np.testing.assert_array_equal(read(run), RATES)
    (run / 'recipe.json').unlink()
    np.testing.assert_array_equal(read(run), RATES)
