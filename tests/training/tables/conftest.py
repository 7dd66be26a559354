"""Whole tables in one process, so that each of their many commands takes a fraction of a second."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from pfdet.openimages.build_index import build_index
from pfdet.openimages.make_mini import make_mini
from pfdet.openimages.mini.knobs import Knobs

ROOT = Path(__file__).resolve().parents[3]
SMALL = (
    *('--set', 'min_size=(64, 64)', 'test_sizes=64', 'batch_size=2', 'fpn_channel=16'),
    *('head_unit=32', 'epochs=0.2', 'score_thresh=0.0', 'test_proposals=(20, 10)'),
)
# Runs a command of pfdet. Commands that it would start as processes run in its own one; they are
# printed as usual.
PROGRAM = """
import os
import shlex
import sys
from pathlib import Path

import pfdet.compat
from pfdet import subprocesses
from pfdet.cli.main import main
from pfdet.errors import run_command
from pfdet.training.tables import experts, halves, merging, rows


def run_python(*args, ranks=1, quiet=False, log=None):
    args = [str(arg) for arg in args]
    assert args[:2] == ['-m', 'pfdet'] and ranks == 1
    print('$ ' + shlex.join(args[2:]), flush=True)
    argv, sys.argv = sys.argv, args[1:]
    log = log or Path(os.devnull)
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(1)
    with log.open('a') as out:
        os.dup2(out.fileno(), 1)
        status = main()
        sys.stdout.flush()
        os.dup2(kept, 1)
    sys.argv = argv
    assert not status


for module in experts, halves, merging, rows, subprocesses:
    module.run_python = run_python
run_command(main)
"""


@pytest.fixture
def train_table(small_world, tmp_path):
    """Run ``pfdet train-table`` on the small data set; returns the finished process.

    ``--out`` is ``tmp_path / 'out'``, at mini size, with a small network and few iterations.
    """

    def run(*args: object, small: bool = True) -> subprocess.CompletedProcess:
        command = [
            *('train-table', '--scale', 'mini', '--ranks', 1, '--out', tmp_path / 'out'),
            *('--train-index', small_world / 'train.index'),
            *('--val-index', small_world / 'validation.index'),
            *args,
            *(SMALL if small else ()),
        ]
        return subprocess.run(
            [sys.executable, '-c', PROGRAM, *map(str, command)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

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
