"""The MPI library, its launcher, and ranks that have not found each other."""

import os
import subprocess
import sys
from pathlib import Path

import pfdet.compat  # noqa: F401

import pytest

from pfdet import mpi, recipes
from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import build, model_directory

ROOT = Path(__file__).resolve().parents[1]


def srun(n, rank):
    return {'SLURM_STEP_NUM_TASKS': str(n), 'SLURM_PROCID': str(rank), 'SLURM_NTASKS': str(n)}


def pmi(n, rank):
    return {'PMI_SIZE': str(n), 'PMI_RANK': str(rank)}


def open_mpi(n, rank):
    name = 'OMPI_COMM_WORLD'
    return {f'{name}_SIZE': str(n), f'{name}_RANK': str(rank), 'PMIX_RANK': str(rank)}


FOUND = {
    'a single process': (1, {}),
    'in a batch script': (1, {'SLURM_NTASKS': '8', 'SLURM_PROCID': '0'}),
    'srun with one task': (1, srun(1, 0)),
    'srun with PMIx': (4, {**srun(4, 3), 'PMIX_RANK': '3'}),
    'srun with PMI-2': (4, {**srun(4, 3), **pmi(4, 3)}),
    'MPICH': (2, pmi(2, 1)),
    'MPICH, one rank': (1, pmi(1, 0)),
    'Open MPI': (3, open_mpi(3, 2)),
    'MVAPICH2': (3, {'MV2_COMM_WORLD_SIZE': '3', 'MV2_COMM_WORLD_RANK': '1'}),
    # One proxy per machine is started by srun, and starts the ranks.
    'MPICH by srun on two machines': (16, {**srun(2, 1), **pmi(16, 9)}),
    'MPICH with one rank by srun on two machines': (1, {**srun(2, 1), **pmi(1, 0)}),
    'Open MPI in an interactive step': (4, {**srun(1, 0), **open_mpi(4, 1)}),
    'MPICH in an older job of Open MPI': (2, {**open_mpi(4, 1), **pmi(2, 1)}),
    'PMIx alone': (4, {'PMIX_RANK': '3'}),
    'the first rank of PMIx alone': (1, {'PMIX_RANK': '0'}),
    'not numbers': (1, {'PMI_SIZE': '', 'OMPI_COMM_WORLD_SIZE': '²', 'SLURM_STEP_NUM_TASKS': '-2'}),
}

# The size, the variables of a rank by its number, and what the first one reports.
UNFOUND = {
    'srun without a plugin': (1, srun, 'started 4 ranks (SLURM_STEP_NUM_TASKS=4), but MPI has 1:'),
    'MPICH': (1, pmi, 'started 4 ranks (PMI_SIZE=4), but MPI has 1:'),
    'Open MPI': (1, open_mpi, 'started 4 ranks (OMPI_COMM_WORLD_SIZE=4), but MPI has 1:'),
    'MVAPICH2': (
        1,
        lambda n, k: {'MV2_COMM_WORLD_SIZE': str(n), 'MV2_COMM_WORLD_RANK': str(k)},
        '(MV2_COMM_WORLD_SIZE=4)',
    ),
    'jsrun': (
        1,
        lambda n, k: {'JSM_NAMESPACE_SIZE': str(n), 'JSM_NAMESPACE_RANK': str(k)},
        '(JSM_NAMESPACE_SIZE=4)',
    ),
    'flux': (
        1,
        lambda n, k: {'FLUX_JOB_SIZE': str(n), 'FLUX_TASK_RANK': str(k)},
        '(FLUX_JOB_SIZE=4)',
    ),
    'one machine of two': (2, pmi, 'started 4 ranks (PMI_SIZE=4), but MPI has 2:'),
    'a launcher on one machine by srun': (1, lambda n, k: {**srun(1, 0), **pmi(n, k)}, '(PMI_S'),
    'a launcher in an older job': (1, lambda n, k: {**pmi(1, 0), **open_mpi(n, k)}, '(OMPI_COMM'),
}


@pytest.fixture
def seconds_slept(monkeypatch):
    slept = []
    monkeypatch.setattr(mpi.time, 'sleep', slept.append)
    return slept


@pytest.mark.parametrize('name', FOUND)
def test_ranks_that_have_found_each_other(name, seconds_slept):
    mpi.check_ranks(*FOUND[name])
    assert not seconds_slept


@pytest.mark.parametrize('name', UNFOUND)
def test_the_first_of_the_other_ranks_reports(name, seconds_slept):
    size, variables, words = UNFOUND[name]
    with pytest.raises(InputError) as refused:
        mpi.check_ranks(size, variables(4, 0))
    message = str(refused.value)
    assert words in message and '\n' not in message
    # The remedy: the launcher of the library that is loaded.
    used = mpi.library()
    assert used.version in message and mpi.launcher() in message and '--mpi=' in message
    assert not seconds_slept
    for rank in 1, 2, 3:
        with pytest.raises(SystemExit) as ended:
            mpi.check_ranks(size, variables(4, rank))
        assert ended.value.code == 2
    assert len(seconds_slept) == 3


def test_with_pmix_alone_the_second_rank_reports(seconds_slept):
    with pytest.raises(InputError, match=r'more than 1 ranks \(PMIX_RANK=1\), but MPI has 1:'):
        mpi.check_ranks(1, {'PMIX_RANK': '1'})
    with pytest.raises(SystemExit):
        mpi.check_ranks(1, {'PMIX_RANK': '2'})


@pytest.fixture(scope='module')
def commands(small_world, tmp_path_factory):
    """Every command that uses MPI, by name, with arguments for a run that would begin."""
    out = tmp_path_factory.mktemp('commands')
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.find('mini')
    model_directory.write_recipe(out, recipe, index.classes, index.hierarchy, {})
    model_directory.write_weights(out, build.detector(recipe, len(index.classes)))
    train = ['--train-index', small_world / 'train.index']
    experts = ['--recipe', 'expert-class10', '--scale', 'mini', '--init', out / 'model.npz']
    return {
        'train': ['--recipe', 'mini', *train, '--out'],
        'train-experts': [*experts, *train, '--out'],
        'predict': ['--model', out, '--index', small_world / 'validation.index', '--out'],
    }


@pytest.mark.parametrize('name', ['train', 'train-experts', 'predict'])
def test_no_command_runs_on_ranks_that_are_alone(name, commands, tmp_path):
    out = tmp_path / 'run.csv'
    command = [sys.executable, '-m', 'pfdet', name, *commands[name], out]
    ranks = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, 'OMP_NUM_THREADS': '1', **srun(2, rank)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    (out_first, first), (out_other, other) = (rank.communicate(timeout=600) for rank in ranks)
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert first.startswith('error: the launcher started 2 ranks') and first.count('\n') == 1
    assert (out_first, out_other, other) == ('', '', '')
    assert not out.exists() and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'version, expected',
    [
        ('Open MPI v4.1.4, package: Debian OpenMPI', 'Open MPI'),
        ('mpiexec (OpenRTE) 4.1.2', 'Open MPI'),
        ('prterun (PRRTE) 3.0.2', 'Open MPI'),
        ('MPICH Version:      5.0.2', 'MPICH'),
        ('HYDRA build details:', 'MPICH'),
        ('Intel(R) MPI Library for Linux* OS, Version 2021.5 (HYDRA)', 'Intel MPI'),
        ('MVAPICH2 Version      :	2.3.7', 'MVAPICH'),
        ('HP MPI', ''),
    ],
)
def test_families(version, expected):
    assert mpi.family(version) == expected


def program(path: Path, text: str = 'exit 0') -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)
    return str(path)


def test_the_launcher_is_that_of_the_library(tmp_path, monkeypatch):
    for name in 'MPIEXEC', 'MPI4PY_LIBMPI':
        monkeypatch.delenv(name, raising=False)
    on_path = program(tmp_path / 'path/mpiexec')
    monkeypatch.setenv('PATH', str(tmp_path / 'path'))
    monkeypatch.setattr(sys, 'executable', str(tmp_path / 'env/bin/python'))
    assert mpi.launcher() == on_path
    beside = program(tmp_path / 'env/bin/mpiexec')
    assert mpi.launcher() == beside
    # A library in a directory of its own, and one that shares /usr.
    of_library = program(tmp_path / 'opt/openmpi/bin/mpiexec')
    for library in 'opt/openmpi/lib', 'opt/openmpi/lib/libmpi.so.40', 'opt/openmpi/lib/x86/l.so':
        monkeypatch.setenv('MPI4PY_LIBMPI', str(tmp_path / library))
        assert mpi.launcher() == of_library
    monkeypatch.setenv('MPI4PY_LIBMPI', 'libmpi.so.40')
    assert mpi.launcher() == on_path
    given = program(tmp_path / 'mine')
    monkeypatch.setenv('MPIEXEC', given)
    assert mpi.launcher() == given
    monkeypatch.setenv('MPIEXEC', str(tmp_path / 'none'))
    assert mpi.launcher() is None


def test_the_family_of_a_launcher(tmp_path):
    assert mpi.launcher_family(program(tmp_path / 'a', 'echo "mpiexec (Open MPI) 5.0"')) == (
        'Open MPI'
    )
    assert mpi.launcher_family(program(tmp_path / 'b', 'echo HYDRA >&2; exit 1')) == 'MPICH'
    assert mpi.launcher_family(str(tmp_path / 'none')) == ''


def test_what_srun_needs_is_printed_without_starting_mpi():
    """So that batch scripts can ask, in which MPI may not be able to start."""
    program = (
        'from pfdet import mpi\nprint(mpi.srun_mpi())\n'
        'from mpi4py import MPI\nassert not MPI.Is_initialized()'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    used = mpi.library()
    assert done.stdout == {'Open MPI': 'pmix\n'}.get(used.family, 'pmi2\n')
    printed = subprocess.run(
        [sys.executable, '-m', 'pfdet.mpi'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout == done.stdout
    assert Path(used.path).is_file() and Path(used.path).name.startswith('libmpi')
