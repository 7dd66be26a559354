"""A run of several ranks asks to be told when its launcher dies."""

import signal
import sys
from pathlib import Path

import pytest

TRAIN = Path(__file__).resolve().parents[2] / 'train' / 'train_multi.py'

# Train, then print the signal that the kernel sends when the parent process dies.
SCRIPT = """
import ctypes, os, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
except SystemExit as e:
    assert not e.code, e.code
got = ctypes.c_int()
PR_GET_PDEATHSIG = 2
assert ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(got)) == 0
# In one piece, so that the ranks' lines do not mix
sys.stdout.flush()
os.write(1, f'death signal {got.value}\\n'.encode())
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs prctl of Linux')
def test_each_rank_gets_a_signal_when_its_parent_dies(mpiexec, small_world, tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    done = mpiexec(
        2,
        script,
        TRAIN,
        *('--recipe', 'mini', '--train-index', small_world / 'train.index'),
        *('--out', tmp_path / 'run', '--iterations', 1, '--threads', 1),
        *('--set', 'min_size=(64,64)', 'n_anchor=32', 'n_roi=16'),
    )
    assert done.stdout.count(f'death signal {int(signal.SIGTERM)}') == 2
