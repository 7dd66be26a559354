"""Tests of stopping on a signal."""

import os
import signal
import subprocess
import sys
import textwrap

import pfdet.compat  # noqa: F401

import pytest

from pfdet.training.preemption import STATUS, StopRequest


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_recorded(number):
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        request = StopRequest()
        request.listen()
        assert not request.signal
        os.kill(os.getpid(), number)
        assert request.signal == number
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def test_exit_status_is_the_documented_one():
    assert STATUS == 75


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs prctl of Linux')
def test_rank_is_signalled_when_its_launcher_is_killed():
    """Otherwise it would continue training in parallel to the resumed run."""
    rank = textwrap.dedent("""
        import time
        from pfdet.training.preemption import StopRequest, end_with_launcher
        request = StopRequest()
        request.listen()
        end_with_launcher()
        print('listening', flush=True)
        deadline = time.monotonic() + 600
        while not request.signal and time.monotonic() < deadline:
            time.sleep(0.05)
        print('got', request.signal, flush=True)
    """)
    launcher = subprocess.Popen(
        [
            sys.executable,
            '-c',
            'import subprocess, sys\nsubprocess.run([sys.executable, "-c", sys.argv[1]])',
            'import pfdet.compat\n' + rank,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with launcher.stdout as output:
        assert output.readline() == 'listening\n'
        launcher.kill()
        assert output.readline() == f'got {int(signal.SIGTERM)}\n'
    launcher.wait(600)


def test_all_ranks_stop_after_the_same_iteration(mpiexec):
    done = mpiexec(
        3,
        """
        import pfdet.compat
        from types import SimpleNamespace
        from mpi4py import MPI
        from pfdet.training.preemption import AgreeToStop, StopRequest

        world = MPI.COMM_WORLD
        request = StopRequest()
        agree = AgreeToStop(request, SimpleNamespace(size=3, mpi_comm=world))
        signals = []
        for i in range(4):
            if world.rank == 1 and i == 2:
                request.signal = 10
            agree(None)
            signals.append(agree.signal)
        signals = world.gather(signals)
        if world.rank == 0:
            print(signals)
    """,
    )
    assert done.stdout.strip() == str([[0, 0, 10, 10]] * 3)
