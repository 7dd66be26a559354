"""The version and the commit that are printed and written to ``recipe.json``."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import pytest

from pfdet import __version__, recipes, version
from pfdet.cli import main as cli
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.training.run_output import write_description


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository in place of this one; the function runs git in it."""
    if subprocess.run(['git', '--version'], capture_output=True, check=False).returncode:
        pytest.skip('git is not installed')

    def git(*args):
        identity = ['-c', 'user.name=x', '-c', 'user.email=x@x']
        command = ['git', '-C', tmp_path, *identity, *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git('init', '-q')
    (tmp_path / 'docs').mkdir()
    for name in 'setup.py', 'docs/study.md':
        (tmp_path / name).write_text('')
    git('add', '.')
    git('commit', '-q', '-m', 'x')
    monkeypatch.setattr(version, 'ROOT', tmp_path)
    version.commit.cache_clear()
    yield git
    version.commit.cache_clear()


def test_the_commit_of_a_checkout(repository, tmp_path):
    name = repository('rev-parse', '--short', 'HEAD')
    assert version.commit() == name
    # Documentation and files that git does not know do not count.
    (tmp_path / 'docs' / 'study.md').write_text('changed')
    (tmp_path / 'new').write_text('')
    version.commit.cache_clear()
    assert version.commit() == name
    (tmp_path / 'setup.py').write_text('changed')
    version.commit.cache_clear()
    assert version.commit() == f'{name}-dirty'
    assert version.describe() == f'pfdet {__version__} (commit {name}-dirty)'


def test_without_git_the_commit_is_unknown(repository, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path / 'nothing'))
    assert version.commit() == 'unknown'


@pytest.mark.parametrize(
    'recorded, expected',
    [
        (json.dumps({'url': 'u', 'vcs_info': {'commit_id': '0123456789abcdef'}}), '0123456'),
        (json.dumps({'url': 'file:///x', 'dir_info': {}}), 'unknown'),
        (json.dumps([1]), 'unknown'),
        ('{', 'unknown'),
        (None, 'unknown'),
    ],
)
def test_the_commit_of_an_installed_package(repository, tmp_path, monkeypatch, recorded, expected):
    """Not that of a repository around it."""
    (tmp_path / 'setup.py').unlink()
    distribution = SimpleNamespace(read_text=lambda name: recorded)
    monkeypatch.setattr(version.importlib.metadata, 'distribution', lambda name: distribution)
    assert version.commit() == expected


def test_the_command_prints_both(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['pfdet', '--version'])
    cli.main()
    expected = rf'pfdet {re.escape(__version__)} \(commit (unknown|[0-9a-f]{{7,}}(-dirty)?)\)\n'
    assert re.fullmatch(expected, capsys.readouterr().out)


def test_a_run_records_both(tmp_path):
    classes = Classes(('/m/a',), ('A',))
    net = SimpleNamespace(rates=None, classes=classes, hierarchy=flat_hierarchy(1))
    write_description(tmp_path, recipes.find('mini'), net, {'ranks': 3})
    run = json.loads((tmp_path / 'recipe.json').read_text())['run']
    assert run == {'version': __version__, 'commit': version.commit(), 'ranks': 3}
