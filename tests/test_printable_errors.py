"""Errors are printed without control characters."""

import pytest

from pfdet.errors import InputError, run_command


def test_control_characters_of_a_message(capsys):
    def main():
        raise InputError('a\x1b[2J.csv, line 3: got \u202e\nx')

    with pytest.raises(SystemExit) as e:
        run_command(main)
    assert e.value.code == 2
    assert capsys.readouterr().err == 'error: a\\x1b[2J.csv, line 3: got \\u202e x\n'
