"""Running commands of this package as processes, on several MPI ranks if asked."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from pfdet.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def run_python(*args: object, ranks: int = 1, quiet: bool = False, log: Path | None = None) -> None:
    """Run a Python program and wait for it; the command is printed so that it can be typed again.

    Args:
        args: What follows ``python``; paths below this directory are printed as relative ones.
        ranks (int): MPI ranks. They share out the cores.
        quiet (bool): Nothing of what the program prints is shown.
        log (path): Where what it prints goes instead, after what is there.

    Raises:
        InputError: It ended with a status other than 0.
    """
    command = [sys.executable, *map(str, args)]
    if ranks > 1:
        command = [mpiexec(), '-n', str(ranks), *command]
    print(
        '$ ' + shlex.join(os.path.relpath(c) if os.path.isabs(c) else c for c in command),
        flush=True,
    )
    # Ranks that share cores must not each start a thread a core.
    threads = max(1, (os.cpu_count() or 1) // ranks)
    environment = {'OMP_NUM_THREADS': str(threads), **os.environ}
    # The scripts run with this package, installed or not.
    path = filter(None, [str(ROOT), environment.get('PYTHONPATH')])
    environment['PYTHONPATH'] = os.pathsep.join(path)
    if log is None:
        status = subprocess.run(
            command, env=environment, check=False, stdout=subprocess.DEVNULL if quiet else None
        ).returncode
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('a', encoding='utf-8') as out:
            status = subprocess.run(
                command, env=environment, check=False, stdout=out, stderr=subprocess.STDOUT
            ).returncode
    if status:
        raise InputError(
            f'the command above ended with status {status}' + (f'; see {log}' if log else '')
        )


def mpiexec() -> str:
    """The launcher of the MPI that this environment uses.

    Raises:
        InputError: There is none.
    """
    # The one that was installed with the interpreter knows the library that mpi4py loads.
    beside = Path(sys.executable).with_name('mpiexec')
    found = str(beside) if beside.exists() else shutil.which('mpiexec')
    if found is None:
        raise InputError('there is no mpiexec, neither beside the interpreter nor on PATH')
    return found


def commit() -> str:
    """What the code is at: a commit's short name, ``-dirty`` after changes outside ``docs/``, or
    ``'unknown'``."""

    def git(*args: str) -> str:
        return subprocess.run(
            ['git', '-C', str(ROOT), *args], capture_output=True, text=True, check=False
        ).stdout.strip()

    if not (ROOT / 'setup.py').exists():
        # Installed: what git knows of the directory is another project.
        return 'unknown'
    name = git('describe', '--always')
    # The study writes its page and results to docs/; what it runs does not read them.
    changed = git('status', '--porcelain', '--untracked-files=no', '--', '.', ':(exclude)docs')
    return (name or 'unknown') + ('-dirty' if name and changed else '')
