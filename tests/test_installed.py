"""The wheel: its files, and its commands from a directory without a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pfdet.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
# Reads the data files of the package. Prints the path of the package and counts.
READ_DATA = """
import pfdet.compat
from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.recipes.paper_tables import paper_tables
classes = challenge_classes()
print(pfdet.__file__, len(classes), len(read_pairs(classes)[1]), len(paper_tables()))
"""

# Runs each command with --help as the console script does. Prints the first line of its output.
DESCRIBE = """
import contextlib, io, sys
from pfdet.cli.main import COMMANDS, console
for name in COMMANDS:
    sys.argv = ['pfdet', name, '--help']
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            console()
    except SystemExit as e:
        assert not e.code, (name, e.code)
    print(name, printed.getvalue().splitlines()[0], sep='\\t')
"""


def run(*command: object, cwd: Path, **environment: object) -> str:
    """Run a command whose environment is PATH, HOME and what is given; return its output."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={
            'PATH': os.environ['PATH'],
            'HOME': str(cwd.parent),
            **{name: str(value) for name, value in environment.items()},
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f'{command}: {done.stdout}{done.stderr}'
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the sources, without network."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    for name in 'setup.py', 'pyproject.toml', 'README.md':
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / 'pfdet', source / 'pfdet', ignore=shutil.ignore_patterns('__pycache__'))
    options = ['--no-deps', '--no-build-isolation', '--no-index']
    run(*PIP, 'wheel', *options, '--wheel-dir', folder, source, cwd=folder)
    (built,) = folder.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> Path:
    """A directory with the installed wheel alone."""
    target = tmp_path_factory.mktemp('installed')
    options = ['--no-deps', '--no-index', '--no-compile']
    run(*PIP, 'install', *options, '--target', target, wheel, cwd=target)
    return target


def test_the_wheel_has_all_files_of_the_package_and_no_others(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in n}
    files = {p for p in (ROOT / 'pfdet').rglob('*') if p.is_file() and p.suffix != '.pyc'}
    assert names == {p.relative_to(ROOT).as_posix() for p in files}
    assert 'pfdet/recipes/data/paper_tables.json' in names
    assert 'pfdet/openimages/data/challenge-2018-class-descriptions-500.csv' in names
    templates = {p.relative_to(ROOT).as_posix() for p in ROOT.glob('pfdet/report/*.jinja')}
    assert templates and templates <= names


def test_the_installed_package_reads_its_data(installed, tmp_path):
    printed = run(sys.executable, '-c', READ_DATA, cwd=tmp_path, PYTHONPATH=installed).split()
    assert printed == [str(installed / 'pfdet/__init__.py'), '500', '47', '9']


def test_installed_commands_describe_themselves_in_any_directory(installed, tmp_path):
    printed = run(sys.executable, '-c', DESCRIBE, cwd=tmp_path, PYTHONPATH=installed)
    lines = dict(line.split('\t') for line in printed.splitlines())
    assert list(lines) == list(COMMANDS)
    for name, line in lines.items():
        assert line.startswith('usage: '), name
    assert not list(tmp_path.iterdir())


def test_the_console_script(installed, tmp_path):
    script = installed / 'bin' / 'pfdet'
    printed = run(sys.executable, script, 'train', '--list', cwd=tmp_path, PYTHONPATH=installed)
    assert 'table1-baseline' in printed


@pytest.mark.soak
def test_the_wheelhouse_has_one_wheel_for_all_versions_of_python(tmp_path):
    """Needs the network: the wheels are built from the source distributions on PyPI."""
    source = tmp_path / 'source'
    source.mkdir()
    for name in 'Makefile', 'constraints.txt', 'setup.py':
        shutil.copy(ROOT / name, source)
    run('make', 'wheelhouse', f'PYTHON={sys.executable}', cwd=source, PIP_NO_CACHE_DIR=1)
    wheels = sorted((source / 'wheelhouse').iterdir())
    assert [p.name for p in wheels] == [
        'chainer-7.8.1-py3-none-any.whl',
        'chainercv-0.13.1-py3-none-any.whl',
    ]
    assert sum(p.stat().st_size for p in wheels) < 2e6
    # Nothing is left of the environment that built them.
    assert not (source / 'build' / 'wheels').exists()
    target = tmp_path / 'target'
    options = ['--no-deps', '--no-index', '--target', target]
    run(*PIP, 'install', *options, *wheels, cwd=tmp_path)
    program = 'import pfdet.compat, chainer, chainercv; print(chainer.__file__)'
    path = os.pathsep.join(map(str, (target, ROOT)))
    printed = run(sys.executable, '-c', program, cwd=tmp_path, PYTHONPATH=path)
    assert printed.strip() == str(target / 'chainer' / '__init__.py')


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['MPI=lam'], 'MPI=lam: expected mpich or system'),
        (['CONSTRAINTS=none.txt'], 'CONSTRAINTS=none.txt is not a readable file'),
        (['PYTHON=no-python'], 'no-python does not run: set PYTHON='),
    ],
)
def test_set_up_refuses_before_it_removes_anything(tmp_path, arguments, words):
    shutil.copy(ROOT / 'Makefile', tmp_path)
    (tmp_path / 'constraints.txt').touch()
    old = tmp_path / '.venv' / 'file'
    old.parent.mkdir()
    old.touch()
    command = ['make', 'setup', f'PYTHON={sys.executable}', *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and words in done.stderr
    assert old.exists()
