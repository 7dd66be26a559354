"""Every flag of every command with odd values: one line or none, never a traceback."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pfdet import flags
from pfdet.cli.main import COMMANDS
from pfdet.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ODD = [
    *('', ' ', '0', '-1', '1', '1.5', '-0.0', 'nan', 'inf', '-inf', '1e400', '1_000', '٣'),
    *(str(2**31), str(2**63), str(2**70), '9' * 5000, '0x10', 'None', 'a=b', '[1', 'é', '\udcff'),
    *('n' * 300, '/' + 'p/' * 3000, '.', '..', '/', '/dev/null', '/proc/self/mem', '~', '-', '--'),
]
FEW = ['', '0', '-1', 'nan', str(2**70), 'n' * 300, '.', '\udcff']
# These begin to work without any file.
WITHOUT_INPUT = {'quickstart', 'make-mini', 'compat'}
BEGINS = {'--dry-run', '--table'}
# These are searched for runs, and other tests or users may have some there.
SEARCHED = {'--runs': {'..', '/'}}

# Runs a command once per line of arguments and prints the status and what it wrote to stderr.
DRIVER = """
import contextlib, io, json, sys, traceback
from pfdet import errors
from pfdet.cli import main as cli

for arguments in json.load(sys.stdin):
    sys.argv = ['pfdet', *arguments]
    printed, status = io.StringIO(), 0
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = cli.main() or 0
        except SystemExit as e:
            status = e.code or 0
        except BaseException as e:
            status, line = errors._outcome(e)
            print(line or traceback.format_exc(), file=sys.stderr)
    print(json.dumps([arguments, status, printed.getvalue()]))
"""


class CapturedError(Exception):
    pass


@pytest.fixture(scope='module')
def parsers() -> dict[str, flags.Parser]:
    """The parser of every command."""

    def capture(self, *_):
        raise CapturedError(self)

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flags.Parser, 'parse_known_args', capture)
        for name, (module, _) in COMMANDS.items():
            patch.setattr(sys, 'argv', [f'pfdet {name}'])
            with pytest.raises(CapturedError) as captured:
                importlib.import_module(module).main()
            found[name] = captured.value.args[0]
    return found


def required(parser: flags.Parser, besides: object = None) -> list[str]:
    """The arguments that a command needs; the files do not exist."""
    given = []
    for action in parser._actions:
        if action is besides or not action.required:
            continue
        name = str(action.metavar or 'none').lower()
        suffix = next((s for s in ('.html', '.csv', '.npz', '.json', '.onnx') if s in name), '.csv')
        value = next(iter(action.choices), None) if action.choices else 'none' + suffix
        values = [value] * (action.nargs if isinstance(action.nargs, int) else 1)
        given += [*action.option_strings[:1], *values]
    return given


def flags_with_values(parser: flags.Parser):
    return [a for a in parser._actions if a.option_strings and a.nargs != 0]


@pytest.mark.parametrize('command', COMMANDS)
def test_every_number_has_a_domain(parsers, command):
    for action in parsers[command]._actions:
        assert action.type not in (int, float), action.option_strings
        for text in (action.default, action.const) if isinstance(action.type, flags.Number) else ():
            for value in text if isinstance(text, (list, tuple)) else [text]:
                assert value is None or action.type.domain.accepts(value), action.option_strings


@pytest.mark.parametrize('command', COMMANDS)
def test_every_path_is_checked(parsers, command):
    for action in parsers[command]._actions:
        name = str(action.metavar)
        if re.fullmatch(r'CSV|JSON|DIR|INDEX|RUN|FILE|[\w.]+\.(npz|csv|json|png|html)', name):
            assert action.type in (Path, flags.path_text), action.option_strings


@pytest.mark.faults('values of flags')
@pytest.mark.parametrize('command', COMMANDS)
def test_odd_values_are_taken_or_refused_in_one_line(parsers, command, tried):
    parser = parsers[command]
    tried(len(ODD) * len(flags_with_values(parser)))
    for action in flags_with_values(parser):
        flag = action.option_strings[0]
        for value in ODD:
            n = action.nargs if isinstance(action.nargs, int) else 1
            arguments = [*required(parser, action), flag, *[value] * n]
            try:
                parsed = parser.parse_args(arguments)
            except InputError as e:
                message = str(e)
                assert '\n' not in message and len(message) < 1000
                assert flag in message or command in message, message
                continue
            taken = getattr(parsed, action.dest)
            for one in taken if isinstance(taken, list) else [taken]:
                if isinstance(action.type, flags.Number):
                    assert action.type.domain.accepts(one), (flag, value)
                if isinstance(one, Path):
                    assert value.strip()


def run_all(parsers, command, values, tmp_path):
    parser, lines = parsers[command], []
    for action in flags_with_values(parser):
        if action.option_strings[0] in BEGINS:
            continue
        for value in values:
            if value in SEARCHED.get(action.option_strings[0], ()):
                continue
            n = action.nargs if isinstance(action.nargs, int) else 1
            lines.append([command, *required(parser, action), action.option_strings[0]])
            lines[-1] += [value] * n
    environment = {k: v for k, v in os.environ.items() if not k.startswith('PFDET_')}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', DRIVER],
        input=json.dumps(lines),
        cwd=tmp_path,
        env={**environment, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [arguments for arguments, *_ in results] == lines
    for arguments, status, printed in results:
        errors = [line for line in printed.splitlines() if line.startswith('error:')]
        assert status == 2 and len(errors) == 1 and 'Traceback' not in printed, (
            shlex.join(arguments)[:500],
            status,
            printed[-2000:],
        )
    # Nothing has been written, not even in part.
    assert not [path for path in tmp_path.rglob('*') if not path.is_dir()]


@pytest.mark.parametrize('command', sorted(COMMANDS.keys() - WITHOUT_INPUT))
def test_a_command_ends_in_one_line(parsers, command, tmp_path):
    run_all(parsers, command, FEW, tmp_path)


@pytest.mark.faults('values of flags')
@pytest.mark.soak
@pytest.mark.parametrize('command', sorted(COMMANDS.keys() - WITHOUT_INPUT))
def test_a_command_ends_in_one_line_for_any_odd_value(parsers, command, tmp_path, tried):
    tried(len(ODD) * len(flags_with_values(parsers[command])))
    run_all(parsers, command, ODD, tmp_path)


@pytest.mark.parametrize('command', COMMANDS)
def test_help_is_whole_and_has_an_example_that_can_be_parsed(parsers, command):
    parser = parsers[command]
    text = parser.format_help()
    assert '%(' not in text and 'None)' not in text
    if command == 'compat':
        return
    # Continued lines are joined; optional parts are in brackets.
    pattern = rf'(?m)^ +(?:mpiexec -n \d+ )?pfdet {command}((?:.*\\\n)*.*)$'
    examples = re.findall(pattern, parser.description)
    assert examples, text
    for example in examples:
        words = shlex.split(re.sub(r'\\\n', ' ', example.replace('[', '').replace(']', '')))
        words = [word for word in words if word != '...']
        assert 'pfdet' not in words, f'lines are joined: {example}'
        parser.parse_args([word.replace('|', '') for word in words])
