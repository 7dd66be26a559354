"""What tests of several modules share: running under ``mpiexec``, and a small data set."""

import contextlib
import io
import os
import shutil
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

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def mpiexec() -> Callable[..., subprocess.CompletedProcess]:
    """Run a Python program on several MPI ranks of this machine.

    Called as ``mpiexec(n_rank, program, *args, timeout=600, check=True)``. The program is source
    code (a :obj:`str`, dedented) or a script (a :class:`~pathlib.Path`). The ranks get one thread
    each, start in the repository's root and can import ``pfdet``. Lines that two ranks print at
    the same time may be mixed: gather, and print on rank 0. Returned is a
    :class:`subprocess.CompletedProcess` with ``stdout`` and ``stderr`` as text. A program that
    fails, unless ``check=False``, or that outlasts ``timeout`` seconds fails the test with what it
    printed; whatever was still running is ended.
    """
    return _run_ranks


@pytest.fixture(scope='session')
def assert_same_up_to_rounding() -> Callable[..., None]:
    """Compare what a network found in the same images in two ways that round differently.

    Called as ``assert_same_up_to_rounding(a, b, share=0.95, atol=1e-3)`` with
    :class:`~pfdet.evaluation.detections.Detections` of the same images. Of each, the ``share`` must
    have a partner in the other: of the same image and class, with score and box within ``atol``.
    The order is free, and so are a few boxes: of almost equal scores the one or the other is first,
    or is cut.
    """

    def partners(a, b, atol):
        found = np.zeros(len(a), bool)
        for i in range(len(a)):
            rows = (b.image == a.image[i]) & (b.label == a.label[i])
            found[i] = (
                (abs(b.score[rows] - a.score[i]) <= atol)
                & (abs(b.bbox[rows] - a.bbox[i]).max(axis=1, initial=0) <= atol)
            ).any()
        return found

    def check(a, b, share=0.95, atol=1e-3):
        assert list(a.image_ids) == list(b.image_ids)
        for one, other in ((a, b), (b, a)):
            assert len(one) and partners(one, other, atol).mean() >= share

    return check


def _run_ranks(
    n_rank: int, program: str | Path, *args: object, timeout: float = 600, check: bool = True
) -> subprocess.CompletedProcess:
    source = [str(program)] if isinstance(program, Path) else ['-c', textwrap.dedent(program)]
    command = [_find_mpiexec(), '-n', str(n_rank), sys.executable, *source, *map(str, args)]
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
        stdout, stderr = _end(process)
        pytest.fail(f'{n_rank} ranks did not end within {timeout} s\n{stdout}\n{stderr}')
    if check and process.returncode != 0:
        pytest.fail(f'{n_rank} ranks ended with status {process.returncode}\n{stdout}\n{stderr}')
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _find_mpiexec() -> str:
    # The one that was installed with the interpreter knows the library that mpi4py loads.
    beside = Path(sys.executable).with_name('mpiexec')
    found = str(beside) if beside.exists() else shutil.which('mpiexec')
    if found is None:
        pytest.fail('there is no mpiexec, neither beside the interpreter nor on PATH')
    return found


def _end(process: subprocess.Popen) -> tuple[str, str]:
    # mpiexec ends its ranks when asked politely; killed outright, it would leave them behind.
    for end in signal.SIGTERM, signal.SIGKILL:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, end)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=5)
    return '', 'its output is still held open by a process that outlived it'


@pytest.fixture(scope='session')
def small_world(tmp_path_factory):
    """A directory with ``train.index`` of 24 images, ``validation.index`` of 8, and the files."""
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
