"""Fixtures to start training runs under mpiexec, follow their output and send them signals."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pfdet.subprocesses import mpiexec as find_mpiexec

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / 'train' / 'train_multi.py'

# Run a training script that waits after the iteration given in a file, until the number is raised
# or the ranks are asked to stop. So a run never finishes before the test has acted on it, however
# slow the test is. The file is read by all ranks of a model.
HELD = """
import runpy
import sys
import time

import pfdet.compat
from pfdet.training.preemption import AgreeToStop

limit, *sys.argv = sys.argv[1:]
agree = AgreeToStop.__call__

def hold(self, trainer):
    def may_continue():
        return bool(self.request.signal) or trainer.updater.iteration <= int(open(limit).read())

    while not any(self.comm.mpi_comm.allgather(may_continue())):
        time.sleep(0.01)
    agree(self, trainer)

AgreeToStop.__call__ = hold
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture
def launch(tmp_path):
    """Start a training script on several ranks.

    Call it as ``launch(n_rank, *args, hold=None, script=TRAIN)``; it returns a `LaunchedRun`. With
    ``hold``, the run waits after that iteration until it is asked to stop.
    """
    runs = []

    def launch(
        n_rank: int, *args: object, hold: int | None = None, script: Path = TRAIN
    ) -> LaunchedRun:
        program = [str(script)]
        if hold is not None:
            limit = tmp_path / f'limit-{len(runs)}'
            limit.write_text(str(hold))
            program = ['-c', HELD, str(limit), *program]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
        runs.append(
            LaunchedRun(
                [find_mpiexec(), '-n', str(n_rank), sys.executable, *program, *map(str, args)],
                dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1'),
                ROOT,
            )
        )
        return runs[-1]

    yield launch
    for run in runs:
        run.kill()


class LaunchedRun:
    """A job of several ranks; the constructor starts it.

    Args:
        command (list of str): ``mpiexec ...``.
        environment (dict): Environment variables of the job.
        directory (path): Working directory.
    """

    def __init__(self, command: list[str], environment: dict[str, str], directory: Path):
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            # Jobs that a script starts in the background ignore SIGINT.
            preexec_fn=default_signals,
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=args, daemon=True)
            for args in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()
        self.seen: dict[int, str] = {}

    def _read(self, stream, lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def logged_iterations(self) -> list[int]:
        """The iterations logged so far."""
        matches = (re.search(r'iteration +(\d+)  lr', line) for line in self.lines)
        return [int(match[1]) for match in matches if match]

    def wait_for(self, n: int, timeout: float = 600) -> None:
        """Wait until the job has logged ``n`` iterations or ended."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self.logged_iterations()) >= n or self.process.poll() is not None,
                timeout,
            )

    def ranks(self, n: int, timeout: float = 600) -> list[int]:
        """Wait until there are ``n`` ranks; return their process ids."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.poll() is None:
            pids = {}
            for pid in _descendants(self.process.pid):
                rank, start = _rank(pid), _start_time(pid)
                if start is not None:
                    self.seen[pid] = start
                if rank is not None:
                    pids[rank] = pid
            if len(pids) == n:
                return [pids[rank] for rank in range(n)]
            time.sleep(0.02)
        raise AssertionError(f'did not find {n} ranks: {self.output()}')

    def send(self, number: int, pid: int | None = None) -> None:
        """Send a signal to a rank, or to mpiexec."""
        os.kill(self.process.pid if pid is None else pid, number)

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the exit status; kill the job at the timeout."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f'did not end within {timeout} s: {self.output()}') from None
        for reader in self._readers:
            reader.join(timeout)
        return self.process.returncode

    def remaining(self, timeout: float = 600) -> list[int]:
        """Wait for all processes of the job to end; return those that remain, including zombies."""
        deadline = time.monotonic() + timeout
        while True:
            pids = [pid for pid, start in self.seen.items() if _start_time(pid) == start]
            if not pids or time.monotonic() > deadline:
                return pids
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill all processes of the job."""
        for pid in [*self.seen, *_descendants(self.process.pid), self.process.pid]:
            if self.seen.get(pid, _start_time(pid)) == _start_time(pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def output(self) -> str:
        """The output of the job so far."""
        return ''.join([*self.lines, *self.errors])


def default_signals() -> None:
    """Have this process handle signals as one that a user starts in a terminal."""
    for number in signal.SIGINT, signal.SIGQUIT, signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return None
    # Split after the program name, which may contain blanks and parentheses.
    return text.rpartition(')')[2].split()


def _start_time(pid: int) -> str | None:
    """The start time of a process, to distinguish it from a later one with the same id."""
    stat = _stat(pid)
    return stat and stat[19]


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir('/proc'):
        stat = _stat(int(entry)) if entry.isdigit() else None
        if stat:
            children.setdefault(int(stat[1]), []).append(int(entry))
    descendants, generation = [], [pid]
    while generation:
        generation = [child for parent in generation for child in children.get(parent, [])]
        descendants += generation
    return descendants


def _rank(pid: int) -> int | None:
    try:
        environment = Path(f'/proc/{pid}/environ').read_bytes()
        command = Path(f'/proc/{pid}/cmdline').read_bytes()
    except OSError:
        return None
    match = re.search(rb'(?:^|\0)PMI_RANK=(\d+)\0', environment)
    return int(match[1]) if match and re.search(rb'/(?:train_\w+|predict)\.py\0', command) else None
