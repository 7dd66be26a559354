"""The table at the end of ``make soak``."""

import importlib.util
import re
from pathlib import Path

CONFTEST = Path(__file__).with_name('conftest.py')
pytest_plugins = ['pytester']

TESTS = """
import pytest

@pytest.mark.faults('bits')
@pytest.mark.parametrize('n', [2, 3])
def test_bits(n, record_property):
    record_property('tried', n)
    assert n == 2

@pytest.mark.faults('signals')
def test_one():
    pass

@pytest.mark.faults('signals')
def test_absent():
    pytest.skip('no launcher')

@pytest.fixture
def broken():
    raise ValueError

@pytest.mark.faults('signals')
def test_set_up(broken):
    pass

@pytest.fixture
def left():
    yield
    raise ValueError

@pytest.mark.faults('files')
def test_left(left):
    pass

def test_of_no_fault():
    assert False
"""


def test_failed_tests_are_lost(pytester):
    spec = importlib.util.spec_from_file_location('conftest_of_tests', CONFTEST)
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess(plugins=[conftest.FaultsTable()])
    printed = [re.sub(' +', ' ', line) for line in result.outlines]
    # Tried, survived, lost
    for row in 'bits 5 2 3', 'files 1 0 1', 'signals 2 1 1', 'total 8 3 5':
        assert [line for line in printed if line.startswith(f'{row} ')], result.outlines
