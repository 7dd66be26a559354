"""The MPI library of this environment, its launcher, and whether the ranks have found each other.

    python -m pfdet.mpi

prints the value of ``srun --mpi=`` that the library needs. ``pfdet compat`` prints the rest.

mpi4py takes the library that ``MPI4PY_LIBMPI`` names; else the one in the environment's ``lib``,
such as that of the package ``mpich``; else the one that the dynamic loader finds. Under a launcher
of another library, every rank is alone.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pfdet.errors import InputError, run_command

# Variables with the number of processes and the rank. PMI is that of MPICH, Intel MPI and srun.
_MPI_LAUNCHERS = (
    ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'),
    ('MV2_COMM_WORLD_SIZE', 'MV2_COMM_WORLD_RANK'),
    ('PMI_SIZE', 'PMI_RANK'),
)
# srun, jsrun and flux run. They also start the launchers above, one process per machine. A batch
# script of one process has SLURM_NTASKS, too, so it says nothing.
_SCHEDULERS = (
    ('SLURM_STEP_NUM_TASKS', 'SLURM_PROCID'),
    ('JSM_NAMESPACE_SIZE', 'JSM_NAMESPACE_RANK'),
    ('FLUX_JOB_SIZE', 'FLUX_TASK_RANK'),
)
# PMIx gives a process its rank only.
_PMIX_RANK = 'PMIX_RANK'
# Launchers end all processes when the first one fails, so the one that reports ends first.
_SECONDS_FIRST = 3.0
# Words in the version of a library or of its launcher.
_FAMILIES = {
    'Open MPI': ('Open MPI', 'OpenRTE', 'PRRTE', 'prterun'),
    'Intel MPI': ('Intel(R) MPI',),
    'MVAPICH': ('MVAPICH',),
    'MPICH': ('MPICH', 'HYDRA'),
}
#: By the family of a library: the value of ``srun --mpi=`` that it needs.
SRUN_MPI = {'Open MPI': 'pmix', 'Intel MPI': 'pmi2', 'MVAPICH': 'pmi2', 'MPICH': 'pmi2'}


class Library(NamedTuple):
    """An MPI library.

    Attributes:
        version (str): Its name and version.
        family (str): A key of the launchers that fit it: ``'MPICH'``, ``'Open MPI'``,
            ``'Intel MPI'``, ``'MVAPICH'``, or ``''`` for another one.
        path (str): Its file, or ``''`` if that is not known.
    """

    version: str
    family: str
    path: str


def check_ranks(size: int, environ: Mapping[str, str] | None = None) -> None:
    """Refuse ranks that have not found each other.

    Each of them would otherwise do all of the work, and write to the same files as the others.

    Args:
        size (int): Number of ranks in ``MPI.COMM_WORLD``.
        environ (mapping): Environment variables, by default those of this process.

    Raises:
        InputError: The launcher has started more ranks. Only the first rank raises it.
        SystemExit: The same on other ranks, a little later, without a message and with the same
            status.
    """
    found = _unfound_ranks(size, os.environ if environ is None else environ)
    if found is None:
        return
    how_many, is_first = found
    if not is_first:
        time.sleep(_SECONDS_FIRST)
        raise SystemExit(2)
    used = library()
    fitting = launcher() or f'the mpiexec of {used.family or "this library"}'
    if used.family:
        fitting += f', or srun --mpi={SRUN_MPI[used.family]}'
    raise InputError(
        f'the launcher started {how_many}, but MPI has {size}: the ranks have not found each '
        f'other, because the launcher does not fit the library, {used.version}; expected {fitting}'
    )


def _unfound_ranks(size: int, environ: Mapping[str, str]) -> tuple[str, bool] | None:
    """How many ranks were started in words, and whether this is the first one, or None."""
    launches = _launches(environ, _MPI_LAUNCHERS) or _launches(environ, _SCHEDULERS)
    if launches:
        variable, n, rank = max(launches, key=lambda launch: launch[1])
        # With several ranks, a launcher may have been started by another one.
        is_known = size > 1 and any(n == size for _, n, _ in launches)
        if n > size and not is_known:
            return f'{n} ranks ({variable}={n})', rank == 0
        return None
    rank = _number(environ.get(_PMIX_RANK))
    if rank is not None and rank >= size:
        # The first rank cannot know, so that the second one reports.
        return f'more than {rank} ranks ({_PMIX_RANK}={rank})', rank == 1
    return None


def _launches(
    environ: Mapping[str, str], launchers: tuple[tuple[str, str], ...]
) -> list[tuple[str, int, int]]:
    """The variable, the number of processes and the rank of each launcher that has set them."""
    found = []
    for variable, rank in launchers:
        n = _number(environ.get(variable))
        if n is not None:
            found.append((variable, n, _number(environ.get(rank)) or 0))
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None


def family(version: str) -> str:
    """The family of a library or launcher from its version; see :class:`Library`."""
    for name, words in _FAMILIES.items():
        if any(word in version for word in words):
            return name
    return ''


def library() -> Library:
    """The MPI library that mpi4py has loaded. Imports mpi4py.

    Raises:
        ImportError, RuntimeError: There is none.
    """
    from mpi4py import MPI

    text = MPI.Get_library_version().rstrip('\0')
    version = ' '.join(text.splitlines()[0].split(',')[0].replace('Version:', '').split())
    return Library(version, family(text), _file_of(MPI.__file__))


class _Symbol(ctypes.Structure):
    """``Dl_info`` of ``dladdr(3)``."""

    _fields_ = (
        ('file', ctypes.c_char_p),
        ('base', ctypes.c_void_p),
        ('name', ctypes.c_char_p),
        ('address', ctypes.c_void_p),
    )


def _file_of(extension: str) -> str:
    """The file that an extension module's MPI functions are in."""
    try:
        function = ctypes.cast(ctypes.CDLL(extension).MPI_Init, ctypes.c_void_p)
        found = _Symbol()
        if ctypes.CDLL(None).dladdr(function, ctypes.byref(found)) and found.file:
            return os.path.realpath(os.fsdecode(found.file))
    except (OSError, AttributeError, TypeError):
        pass
    return ''


def launcher() -> str | None:
    """The ``mpiexec`` that fits the library of this environment, or :obj:`None`.

    It is the one that ``MPIEXEC`` names; else the one installed with the library of
    ``MPI4PY_LIBMPI``; else the one in the directory of the Python interpreter, whose library mpi4py
    prefers to others; else the first one on ``PATH``.
    """
    given = os.environ.get('MPIEXEC')
    if given:
        return shutil.which(given)
    chosen = os.environ.get('MPI4PY_LIBMPI')
    if chosen:
        folders = [p / 'bin' for name in chosen.split(os.pathsep) for p in Path(name).parents]
    else:
        folders = [Path(sys.executable).parent]
    for folder in folders:
        if found := shutil.which('mpiexec', path=str(folder)):
            return found
    return shutil.which('mpiexec')


def launcher_family(path: str) -> str:
    """The family of a launcher, from its ``--version``; ``''`` if it does not run."""
    try:
        done = subprocess.run(
            [path, '--version'], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return family(done.stdout + done.stderr)


def srun_mpi() -> str:
    """The value of ``srun --mpi=`` that the library needs. Does not start MPI.

    Raises:
        InputError: The library cannot be loaded, or is not known.
    """
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        used = library()
    except (ImportError, RuntimeError) as e:
        raise InputError(f'no MPI library for mpi4py: {e}') from e
    if not used.family:
        raise InputError(
            f'{used.version}: not a known MPI library; set PFDET_SRUN_MPI to one of those that '
            'srun --mpi=list prints'
        )
    return SRUN_MPI[used.family]


def main() -> None:
    """Print the value of ``srun --mpi=``."""
    print(srun_mpi())


if __name__ == '__main__':
    run_command(main)
