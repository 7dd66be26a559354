"""Suggestions for misspelled names."""

import os
import sys

import pytest

from pfdet import cores, recipes
from pfdet.cli import main as cli
from pfdet.cli import train_table
from pfdet.errors import InputError
from pfdet.similar_names import expected_name, similar


@pytest.mark.parametrize(
    'text, names, expected',
    [
        ('trian', ['train', 'score'], 'did you mean train?'),
        ('abc', ['abd', 'abe', 'abf', 'x'], 'expected one of abd, abe, abf, x'),
        ('abcd1', ['abcd2', 'abcd3', 'x'], 'did you mean abcd3 or abcd2?'),
        ('quite', ['train', 'score'], 'expected one of train, score'),
        ('', ['train'], 'expected one of train'),
        ('x' * 100_000, ['train'], 'expected one of train'),
    ],
)
def test_the_end_of_a_message(text, names, expected):
    assert expected_name(text, names) == expected
    assert len(similar(text, names)) <= 2


def test_recipes_commands_and_rows(monkeypatch):
    with pytest.raises(InputError, match='--recipe table1-basline: .* did you mean table1-basel'):
        recipes.find('table1-basline')
    with pytest.raises(InputError, match='--recipe zzz: no such recipe; expected one of table1-b'):
        recipes.find('zzz')
    monkeypatch.setattr(sys, 'argv', ['pfdet', 'trian'])
    with pytest.raises(InputError, match='pfdet trian: no such command; did you mean train'):
        cli.main()
    given = ['--train-index', 'a', '--val-index', 'b', '--out', 'c']
    for table, words in (
        (['--table', 'tabel1'], '--table tabel1: did you mean table1'),
        (['--table', 'table1', '--rows', 'table1-pps'], '--rows table1-pps: no row of table1; did'),
    ):
        monkeypatch.setattr(sys, 'argv', ['pfdet train-table', *table, *given])
        with pytest.raises(InputError, match=words):
            train_table.main()


def test_cores_where_the_system_does_not_tell_which_may_be_used(monkeypatch):
    expected = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None
    assert expected in (None, cores.n_core())
    monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 7)
    assert cores.n_core() == 7
    monkeypatch.setattr(os, 'cpu_count', lambda: None)
    assert cores.n_core() == 1
