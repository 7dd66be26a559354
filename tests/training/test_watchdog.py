"""The watchdog on several ranks."""

import signal
import socket
import textwrap
import time

import pfdet.compat  # noqa: F401

import pytest

from pfdet.training import startup_guard, watchdog_threads

STATUS = startup_guard.STATUS
# Ranks of the tests are frozen after a shorter time than those of the default.
TIMEOUT = 4

# A job of ranks that do what a name in the table says, with the watchdog.
RANKS = """
    import os, signal, sys, threading, time, types

    import pfdet.compat
    from pfdet import progress
    from pfdet.errors import run_command
    from pfdet.training.startup_guard import StartupGuard

    timeout, tells = float(sys.argv[1]), sys.argv[2]

    def tell(text):
        # One line at once, although the ranks share the output.
        os.write(1, (text + '\\n').encode())

    def freeze():
        os.kill(os.getpid(), signal.SIGSTOP)

    def hang():
        progress.report('a read from the disk')
        time.sleep(3600)

    class FrozenAfterTheBarrier:
        def __init__(self, world):
            self.world = world

        def __getattr__(self, name):
            return getattr(self.world, name)

        def barrier(self):
            self.world.barrier()
            # Some heartbeats with this phase
            time.sleep(1)
            freeze()

    def main():
        rank = int(os.environ['PMI_RANK'])
        guard = StartupGuard(timeout)
        if tells == f'frozen at the start: {rank}':
            freeze()
        from pfdet.training import watchdog
        from pfdet.training.communicators import communicator

        comm, _ = communicator('packed')
        guard.close()
        world = comm.mpi_comm
        if tells == f'stopped after the barrier: {rank}':
            comm = types.SimpleNamespace(size=comm.size, mpi_comm=FrozenAfterTheBarrier(world))
        with watchdog.watch(comm, timeout):
            progress.report('the test')
            if tells.startswith('frozen'):
                # Some heartbeats with this phase
                time.sleep(1)
                if str(rank) in tells:
                    freeze()
                world.barrier()
            elif tells == f'hanging: {rank}':
                hang()
            elif tells == 'deadlock':
                world.recv(source=(rank + 1) % comm.size)
            elif tells == 'slow' and rank == 1:
                # Longer than the limit, with progress in different ways.
                for _ in progress.reporting(range(30)):
                    time.sleep(timeout / 20)
                end = time.monotonic() + 1.5 * timeout
                while time.monotonic() < end:
                    sum(range(10000))
            elif tells == 'threads':
                tell(' '.join(sorted(t.name for t in threading.enumerate())))
            world.barrier()
            tell(f'rank {rank} is done')
        tell(f'rank {rank} ends')

    run_command(main)
"""


@pytest.fixture
def job(launch, tmp_path):
    script = tmp_path / 'train_nothing.py'
    script.write_text(textwrap.dedent(RANKS))

    def job(n_rank, tells, timeout=TIMEOUT):
        run = launch(n_rank, timeout, tells, script=script)
        run.ranks(n_rank)
        return run

    return job


def check_end(run, *words):
    """The job has ended with one line that has these words, and nothing of it is left."""
    assert run.wait(600) == STATUS, run.output()
    [line] = run.errors
    assert line.startswith('error: '), line
    for word in (*words, f'{TIMEOUT} seconds', '--rank-timeout', 'the job ends'):
        assert word in line, line
    assert socket.gethostname() in line
    assert run.remaining() == []
    assert not any(' ends' in line for line in run.lines)


STOPPED = {
    'frozen: 1': ('rank 1 on node', 'has not answered', 'last phase: the test'),
    'frozen: 0': ('rank 0 on node', 'has not answered', 'last phase: the test'),
    'frozen: 1, 2': ('rank 1 on node', 'has not answered', 'likewise rank 2 on node'),
    'frozen: 0, 1': ('rank 0 on node', 'has not answered'),
    'hanging: 2': ('rank 2 on node', 'has made no progress', 'last phase: a read from the disk'),
    'hanging: 0': ('rank 0 on node', 'has made no progress', 'last phase: a read from the disk'),
    'deadlock': ('rank 0 on node', 'has waited for other ranks', 'in recv', '2 more ranks'),
    'stopped after the barrier: 1': ('rank 1 on node', 'has not answered', 'last phase: end'),
    'stopped after the barrier: 0': ('rank 0 on node', 'has not answered', 'last phase: end'),
    'frozen at the start: 1': ('rank 1 on node', 'is frozen in the start-up'),
    'frozen at the start: 0': ('rank 0 on node', 'is frozen in the start-up'),
}


# The others take another way in the end of a job, or in what is watched.
LONG = 'frozen: 1, 2', 'frozen: 0, 1', 'hanging: 0', 'frozen at the start: 0'


@pytest.mark.faults('frozen ranks')
@pytest.mark.parametrize(
    'tells',
    [pytest.param(k, marks=[pytest.mark.soak] if k in LONG else []) for k in STOPPED],
)
def test_a_stopped_rank_ends_the_job(tells, job):
    check_end(job(3, tells), *STOPPED[tells])


def test_a_slow_rank_does_not(job):
    run = job(3, 'slow', 4)
    assert run.wait(600) == 0, run.output()
    assert run.errors == []
    assert sorted(run.lines) == sorted(
        f'rank {rank} {end}\n' for rank in range(3) for end in ('is done', 'ends')
    )


@pytest.mark.faults('frozen ranks')
@pytest.mark.soak
def test_a_suspended_job_goes_on(job):
    run = job(3, 'slow', 4)
    ranks = run.ranks(3)
    time.sleep(1)
    for pid in ranks:
        run.send(signal.SIGSTOP, pid)
    # Twice as long as the limit.
    time.sleep(8)
    for pid in ranks:
        run.send(signal.SIGCONT, pid)
    assert run.wait(600) == 0, run.output()
    assert run.errors == []


@pytest.mark.parametrize('timeout, n', [(600, 3), (0, 0)])
def test_0_switches_it_off(timeout, n, job):
    run = job(3, 'threads', timeout)
    assert run.wait(600) == 0, run.output()
    assert sum('watchdog' in line for line in run.lines) == n, run.output()


def test_a_job_ends_at_once_with_the_default_limit(job):
    """Nothing waits for the next heartbeat, which may be seconds away."""
    start = time.monotonic()
    run = job(2, 'nothing', 600)
    assert run.wait(600) == 0, run.output()
    # Most of the time is that of the imports.
    assert time.monotonic() - start < 300
    assert watchdog_threads.interval_of(600) == 10
