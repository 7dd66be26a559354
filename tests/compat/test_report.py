"""``python -m pfdet.compat``: what it says about MPI."""

import pfdet.compat  # noqa: F401
from pfdet.compat import __main__ as report

import pytest

from pfdet import mpi


def which(*names):
    return lambda name, **_: f'/bin/{name}' if name in names else None


@pytest.fixture
def environment(monkeypatch):
    """Set what is installed: the library, the launcher with its family, and whether srun is."""

    def install(library, launcher=None, family='', srun=False):
        monkeypatch.setattr(mpi, 'library', lambda: library)
        monkeypatch.setattr(mpi, 'launcher', lambda: launcher)
        monkeypatch.setattr(mpi, 'launcher_family', {launcher: family}.get)
        monkeypatch.setattr(report.shutil, 'which', which(*['srun'] * srun))

    return install


MPICH = mpi.Library('MPICH 5.0.2', 'MPICH', '/opt/lib/libmpi.so.12')
OTHER = mpi.Library('HP MPI 1', '', '')


@pytest.mark.parametrize(
    'installed, lines',
    [
        (
            (MPICH, '/opt/bin/mpiexec', 'MPICH', True),
            {
                'MPI': 'MPICH 5.0.2',
                'MPI library': '/opt/lib/libmpi.so.12',
                'mpiexec': '/opt/bin/mpiexec (MPICH)',
                'srun': '--mpi=pmi2',
            },
        ),
        (
            (MPICH, '/bin/mpiexec', 'Open MPI'),
            {
                'mpiexec': '/bin/mpiexec (Open MPI): does not fit MPICH 5.0.2, set MPIEXEC or '
                'MPI4PY_LIBMPI',
            },
        ),
        (
            (MPICH, '/bin/mpiexec', ''),
            {'mpiexec': '/bin/mpiexec (of an unknown MPI): does not fit MPICH 5.0.2, set MPIEXEC '
             'or MPI4PY_LIBMPI'},
        ),
        ((MPICH,), {'mpiexec': 'not found'}),
        (
            (OTHER, '/bin/mpiexec', '', True),
            {
                'MPI': 'HP MPI 1',
                'MPI library': 'unknown file',
                'mpiexec': '/bin/mpiexec (of an unknown MPI)',
                'srun': 'see srun --mpi=list',
            },
        ),
    ],
)  # fmt: skip
def test_the_mpi_and_its_launchers(environment, installed, lines):
    environment(*installed)
    printed = report.mpi_versions()
    assert {name: printed[name] for name in lines} == lines
    assert ('srun' in printed) == (len(installed) > 3)


def test_a_missing_library_is_one_line(environment, monkeypatch):
    def missing():
        raise RuntimeError('cannot load MPI library\nlibmpi.so: no such file')

    monkeypatch.setattr(mpi, 'library', missing)
    expected = 'not found (cannot load MPI library libmpi.so: no such file)'
    assert report.mpi_versions() == {'MPI': expected}


def test_the_report_has_them(environment):
    environment(MPICH, '/opt/bin/mpiexec', 'MPICH')
    lines = report.report().splitlines()
    assert 'MPI          MPICH 5.0.2' in lines
    assert 'MPI library  /opt/lib/libmpi.so.12' in lines
