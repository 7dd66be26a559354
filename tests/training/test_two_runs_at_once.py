"""Two training runs into one directory: the second ends at once, the first is not disturbed."""

import signal

import numpy as np
import pytest


@pytest.mark.faults('two runs to one output')
def test_second_run_is_refused_on_all_ranks(small_world, tmp_path, launch, mpiexec):
    out = tmp_path / 'run'
    arguments = [
        *('--recipe', 'mini', '--train-index', small_world / 'train.index', '--out', out),
        *('--log-interval', 1, '--iterations', 4),
        *('--set', 'min_size=(48,64)', 'n_anchor=16', 'n_roi=8', 'batch_size=1'),
    ]
    first = launch(1, *arguments, hold=2)
    first.wait_for(2)
    before = (out / 'recipe.json').stat().st_mtime_ns
    (pid,) = first.ranks(1)
    for resume in [], ['--resume']:
        second = launch(2, *arguments, *resume)
        assert second.wait(600) == 2
        lines = [line for line in second.errors if line.startswith('error: ')]
        assert set(lines) == {lines[0]} and f'{out}: in use by process {pid} on ' in lines[0]
        assert 'Traceback' not in second.output()
    assert (out / 'recipe.json').stat().st_mtime_ns == before

    # Killed, it no longer holds the lock.
    first.send(signal.SIGKILL, pid)
    first.wait(600)
    third = launch(2, *arguments, '--resume')
    assert third.wait(600) == 0, third.output()
    with np.load(out / 'model.npz') as weights:
        assert weights.files
    assert not [path for path in out.rglob('*') if 'lock' in path.name]
