"""The command ``pfdet`` and its subcommands."""

import importlib
import inspect
import subprocess
import sys

import pytest

from pfdet.cli import main as cli
from pfdet.errors import InputError


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['pfdet', *arguments])
    return cli.main()


@pytest.mark.parametrize('arguments', [(), ('--help',), ('-h',)])
def test_without_a_command_all_are_listed(arguments, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) is None
    printed = capsys.readouterr().out
    assert printed.startswith('usage: pfdet COMMAND')
    assert all(f'  {name} ' in printed for name in cli.COMMANDS)


def test_unknown_command_names_those_that_exist(monkeypatch):
    with pytest.raises(InputError, match='pfdet trane: no such command; did you mean train'):
        run(monkeypatch, 'trane')


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_a_command_is_a_function_that_can_be_called_without_arguments(name):
    main = importlib.import_module(cli.COMMANDS[name][0]).main
    parameters = inspect.signature(main).parameters.values()
    assert all(parameter.default is not parameter.empty for parameter in parameters)


def test_a_subcommand_gets_its_arguments_and_its_name(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, 'train', '--help')
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith('usage: pfdet train ')


def test_a_module_that_can_be_run():
    done = subprocess.run(
        [sys.executable, '-m', 'pfdet', 'train', '--list'], capture_output=True, text=True
    )
    assert done.returncode == 0 and 'table1-baseline' in done.stdout
