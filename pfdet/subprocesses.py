"""Running commands of this package as processes, on several MPI ranks if asked."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from pfdet import interruption, mpi
from pfdet.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def run_python(*args: object, ranks: int = 1, quiet: bool = False, log: Path | None = None) -> None:
    """Print a command, so that it can be typed again, run it and wait for its end.

    Args:
        args: Arguments of ``python``. Absolute paths are printed relative to this directory.
        ranks (int): Number of MPI ranks. They share the cores equally.
        quiet (bool): Discard the standard output.
        log (path): File to which standard output and error are appended instead.

    Raises:
        InputError: The exit status is not 0.
    """
    command = [sys.executable, *map(str, args)]
    is_open_mpi = False
    if ranks > 1:
        command = [mpiexec(), '-n', str(ranks), *command]
        is_open_mpi = mpi.launcher_family(command[0]) == 'Open MPI'
    print(
        '$ ' + shlex.join(os.path.relpath(c) if os.path.isabs(c) else c for c in command),
        flush=True,
    )
    # Ranks that share cores must not each start one thread per core.
    threads = max(1, (os.cpu_count() or 1) // ranks)
    environment = {'OMP_NUM_THREADS': str(threads), **os.environ}
    # Subprocesses import this package, installed or not.
    path = filter(None, [str(ROOT), environment.get('PYTHONPATH')])
    environment['PYTHONPATH'] = os.pathsep.join(path)
    if log is None:
        status = _run(command, environment, is_open_mpi, subprocess.DEVNULL if quiet else None)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('a', encoding='utf-8') as out:
            status = _run(command, environment, is_open_mpi, out, subprocess.STDOUT)
    if status:
        raise InputError(
            f'the command above failed with status {status}' + (f'; see {log}' if log else '')
        )


def _run(
    command: list[str],
    environment: dict[str, str],
    is_open_mpi: bool,
    out: Any,
    errors: int | None = None,
) -> int:
    """Run a command and return its status; pass a signal that interrupts this process on to it."""
    process: subprocess.Popen | None = None
    asked: list[int] = []
    # The signal may arrive in the main thread while another one starts the process.
    starting = threading.Lock()

    def pass_on(number: int) -> None:
        with starting:
            asked.append(number)
            if process is not None:
                send(process, number, len(asked))

    def send(process: subprocess.Popen, number: int, n: int) -> None:
        if is_open_mpi:
            # At any other signal, Open MPI's mpiexec kills the ranks within a second, before they
            # have written a snapshot. The second time, that is what is asked for.
            process.send_signal(signal.SIGUSR1 if n == 1 else signal.SIGTERM)
            return
        # mpiexec would die of SIGHUP without telling its ranks.
        process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    with interruption.passed_on(pass_on):
        try:
            with interruption.held(), starting:
                # In a session of its own, so that a terminal's Ctrl-C reaches it only once, through
                # this process: mpiexec kills its ranks at the second SIGINT.
                process = subprocess.Popen(
                    command, env=environment, stdout=out, stderr=errors, start_new_session=True
                )
                for n, number in enumerate(asked, 1):
                    send(process, number, n)
            return process.wait()
        except BaseException:
            if process is not None:
                if not interruption.raised():
                    process.terminate()
                # A training run writes a snapshot before it ends.
                process.wait()
            raise


def run_pfdet(command: str, *args: object, **options: Any) -> None:
    """Run a command of :mod:`pfdet.cli.main`, such as ``'train'``; see :func:`run_python`."""
    run_python('-m', 'pfdet', command, *args, **options)


def flags(**values: object) -> list[object]:
    """``['--train-index', PATH, ...]`` from ``train_index=PATH, ...``."""
    return [part for name in values for part in ('--' + name.replace('_', '-'), values[name])]


def mpiexec() -> str:
    """The launcher of the MPI that this environment uses; see :func:`pfdet.mpi.launcher`.

    Raises:
        InputError: There is none.
    """
    found = mpi.launcher()
    if found is None:
        raise InputError(
            'no mpiexec found: none that MPIEXEC names, in the directory of the interpreter '
            'or on PATH'
        )
    return found
