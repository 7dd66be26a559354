"""Shared fixtures: running under ``mpiexec``, a small data set, and the table of faults."""

import collections
import contextlib
import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet.openimages.build_index import build_index
from pfdet.openimages.make_mini import make_mini
from pfdet.openimages.mini.knobs import Knobs
from pfdet.subprocesses import mpiexec as find_mpiexec

ROOT = Path(__file__).resolve().parents[1]

# A shell ignores these signals in background jobs, nohup the last, and programs inherit that. The
# programs that tests start must get them.
for _signal in signal.SIGINT, signal.SIGQUIT, signal.SIGHUP:
    if signal.getsignal(_signal) == signal.SIG_IGN:
        signal.signal(
            _signal, signal.default_int_handler if _signal == signal.SIGINT else signal.SIG_DFL
        )


@dataclasses.dataclass
class Tally:
    """Faults of one kind."""

    tried: int = 0
    lost: int = 0
    seconds: float = 0.0


TITLE = 'faults', 'tried', 'survived', 'lost', 'seconds'


class FaultsTable:
    """Prints a table of faults after ``make soak``: how many were tried, and what became of them.

    A test of faults has the marker ``faults('KIND')``. It counts as one fault, or as many as it
    gives to the fixture :func:`tried`. They have survived if it passes, and are lost if it fails:
    something was executed, hung, changed in silence, ended in a traceback, or was left behind.
    """

    def __init__(self) -> None:
        self.by_kind = collections.defaultdict(Tally)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Keep the kind with the results of the test."""
        marker = item.get_closest_marker('faults')
        if marker is not None:
            item.user_properties.append(('faults', marker.args[0]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test when it is over."""
        properties = dict(report.user_properties)
        if 'faults' not in properties or report.skipped:
            return
        tally = self.by_kind[properties['faults']]
        tally.seconds += report.duration
        n = properties.get('tried', 1)
        if report.when == 'call':
            tally.tried += n
            tally.lost += n * report.failed
        elif report.failed and report.when == 'setup':
            tally.tried += 1
            tally.lost += 1
        elif report.failed:
            # The test has been counted, and has left something behind.
            tally.lost += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        if not self.by_kind:
            return
        rows = [
            (kind, t.tried, t.tried - t.lost, t.lost, round(t.seconds))
            for kind, t in sorted(self.by_kind.items())
        ]
        rows.append(('total', *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
        width = max(len(row[0]) for row in rows)
        terminalreporter.section('faults')
        for kind, *numbers in (TITLE, *rows):
            terminalreporter.write_line(
                f'{kind:{width}}' + ''.join(f'{number!s:>10}' for number in numbers)
            )


def pytest_configure(config: pytest.Config) -> None:
    """Print the table if the long tests are run."""
    if re.search(r'(?<!not )soak', config.option.markexpr):
        config.pluginmanager.register(FaultsTable())


@pytest.fixture
def tried(record_property) -> Callable[[int], None]:
    """Tell how many faults a test tries; see :class:`FaultsTable`."""
    return lambda n: record_property('tried', n)


@pytest.fixture(scope='session')
def mpiexec() -> Callable[..., subprocess.CompletedProcess]:
    """Run a Python program on several MPI ranks of this machine.

    Call it as ``mpiexec(n_rank, program, *args, timeout=600, check=True)``. The program is source
    code (a :obj:`str`, dedented) or a script (a :class:`~pathlib.Path`). The ranks have one thread
    each, start in the repository's root and can import ``pfdet``. Output of several ranks may be
    interleaved, so gather results and print them on rank 0. The return value is a
    :class:`subprocess.CompletedProcess` with ``stdout`` and ``stderr`` as text. The test fails with
    the program's output if the program runs longer than ``timeout`` seconds, or if its exit status
    is not 0 and ``check`` is true. Processes that are still running are terminated.
    """
    return _run_ranks


@pytest.fixture(scope='session')
def assert_same_up_to_rounding() -> Callable[..., None]:
    """Compare detections of the same images by two computations that round differently.

    Call it as ``assert_same_up_to_rounding(a, b, share=0.95, atol=1e-3)`` with
    :class:`~pfdet.evaluation.detections.Detections` of the same images. At least ``share`` of each
    must have a match in the other: a detection of the same image and class, with score and box
    within ``atol``. The order is not compared, and a few detections may differ, because rounding
    decides which of two almost equal scores comes first, and which is truncated.
    """

    def matched(a, b, atol):
        result = np.zeros(len(a), bool)
        for i in range(len(a)):
            rows = (b.image == a.image[i]) & (b.label == a.label[i])
            result[i] = (
                (abs(b.score[rows] - a.score[i]) <= atol)
                & (abs(b.bbox[rows] - a.bbox[i]).max(axis=1, initial=0) <= atol)
            ).any()
        return result

    def check(a, b, share=0.95, atol=1e-3):
        assert list(a.image_ids) == list(b.image_ids)
        for one, other in ((a, b), (b, a)):
            assert len(one) and matched(one, other, atol).mean() >= share

    return check


def _run_ranks(
    n_rank: int, program: str | Path, *args: object, timeout: float = 600, check: bool = True
) -> subprocess.CompletedProcess:
    source = [str(program)] if isinstance(program, Path) else ['-c', textwrap.dedent(program)]
    command = [find_mpiexec(), '-n', str(n_rank), sys.executable, *source, *map(str, args)]
    path = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(path),
        OMP_NUM_THREADS='1',
        OPENBLAS_NUM_THREADS='1',
        PYTHONFAULTHANDLER='1',
    )
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        stdout, stderr = _terminate(process)
        pytest.fail(f'{n_rank} ranks did not end within {timeout} s\n{stdout}\n{stderr}')
    if check and process.returncode != 0:
        pytest.fail(f'{n_rank} ranks ended with status {process.returncode}\n{stdout}\n{stderr}')
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _terminate(process: subprocess.Popen) -> tuple[str, str]:
    # On SIGTERM, mpiexec ends its ranks. On SIGKILL, it would leave them running.
    for number in signal.SIGTERM, signal.SIGKILL:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=5)
    return '', 'a process that is still running holds its output open'


@pytest.fixture(scope='session')
def small_world(tmp_path_factory):
    """A directory with 24 training and 8 validation images, and their indexes."""
    out = tmp_path_factory.mktemp('world')
    data = out / 'data'
    make_mini(data, Knobs(images=24, validation_images=8), workers=1)
    for split in 'train', 'validation':
        with contextlib.redirect_stdout(io.StringIO()):
            build_index(
                data / f'{split}-annotations-bbox.csv',
                data / f'{split}-annotations-human-imagelabels.csv',
                data / 'class-descriptions.csv',
                data / 'hierarchy.json',
                data / split,
                out / f'{split}.index',
            )
    return out
