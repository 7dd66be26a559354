"""Whole tables in one process, so that each of their many commands takes a fraction of a second."""

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from pfdet.openimages.build_index import build_index
from pfdet.openimages.make_mini import make_mini
from pfdet.openimages.mini.knobs import Knobs

ROOT = Path(__file__).resolve().parents[3]
SMALL = (
    *('--set', 'min_size=(64, 64)', 'test_sizes=64', 'batch_size=2', 'fpn_channel=16'),
    *('head_unit=32', 'epochs=0.2', 'score_thresh=0.0', 'test_proposals=(20, 10)'),
)
# Runs commands of pfdet one after another, and prints what each printed and started as a line of
# JSON. Commands that they would start as processes run in this one.
PROGRAM = """
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

import pfdet.compat
from pfdet import subprocesses
from pfdet.cli.main import main
from pfdet.errors import InputError
from pfdet.training.tables import experts, halves, merging, rows

started = []


@contextlib.contextmanager
def output_to(file):
    # By its number, since objects keep references to sys.stdout.
    sys.stdout.flush()
    before = os.dup(1)
    os.dup2(file.fileno(), 1)
    yield
    sys.stdout.flush()
    os.dup2(before, 1)
    os.close(before)


def run_python(*args, ranks=1, quiet=False, log=None):
    args = [str(arg) for arg in args]
    assert args[:2] == ['-m', 'pfdet'] and ranks == 1
    started.append(args[2:])
    if args[2] == 'compare-tables' and Path(args[-1]).exists():
        return
    argv, sys.argv = sys.argv, args[1:]
    log = log or Path(os.devnull)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as out, output_to(out):
        assert not main()
    sys.argv = argv


for module in experts, halves, merging, rows, subprocesses:
    module.run_python = run_python
for arguments in json.loads(sys.argv[1]):
    sys.argv = ['pfdet', 'train-table', *arguments]
    started.clear()
    error = ''
    with tempfile.TemporaryFile('w+') as printed:
        with output_to(printed):
            try:
                main()
            except InputError as e:
                error = str(e)
        printed.seek(0)
        text = printed.read()
    print(json.dumps({'started': started, 'printed': text, 'error': error}), flush=True)
"""


class Finished(NamedTuple):
    """A finished ``pfdet train-table``.

    Attributes:
        started (list of lists of str): The commands that it started, without the comparison.
        printed (str): What it printed itself.
        error (str): Its error; empty without one.
    """

    started: list[list[str]]
    printed: str
    error: str


@pytest.fixture
def train_tables(small_world):
    """Run ``pfdet train-table`` several times on the small data set, at mini size.

    Call it with a list of arguments for each; it returns a list of :class:`Finished`.
    """

    def run(*arguments: Sequence[object]) -> list[Finished]:
        always = (
            *('--scale', 'mini', '--ranks', 1),
            *('--train-index', small_world / 'train.index'),
            *('--val-index', small_world / 'validation.index'),
        )
        lists = [list(map(str, (*always, *given, *SMALL))) for given in arguments]
        done = subprocess.run(
            [sys.executable, '-c', PROGRAM, json.dumps(lists)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        finished = []
        for line in done.stdout.splitlines():
            content = json.loads(line)
            started = [args for args in content['started'] if args[0] != 'compare-tables']
            finished.append(Finished(started, content['printed'], content['error']))
        return finished

    return run


@pytest.fixture(scope='session')
def second_world(tmp_path_factory):
    """Another small data set with the same classes; returns the index of its training images."""
    out = tmp_path_factory.mktemp('second')
    make_mini(out / 'data', Knobs(images=12, validation_images=1, seed=5), workers=1)
    with contextlib.redirect_stdout(io.StringIO()):
        build_index(
            out / 'data' / 'train-annotations-bbox.csv',
            out / 'data' / 'train-annotations-human-imagelabels.csv',
            out / 'data' / 'class-descriptions.csv',
            out / 'data' / 'hierarchy.json',
            out / 'data' / 'train',
            out / 'train.index',
        )
    return out / 'train.index'
