import importlib
import subprocess
import sys
import types

from pfdet.compat import import_hook
from pfdet.compat.import_hook import FIXES

import pytest

from pfdet.cpu.install import REPLACED


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=600)


def test_importing_compat_imports_no_other_package():
    result = run('-c', 'import sys, pfdet.compat; print(*sys.modules)')
    loaded = {name.split('.')[0] for name in result.stdout.split()}
    assert 'pfdet' in loaded
    assert not loaded & {'numpy', 'chainer', 'chainermn', 'chainercv', 'mpi4py', 'matplotlib'}


def test_nothing_is_added_to_numpy():
    result = run(
        '-W',
        'ignore',
        '-c',
        """if True:
        import numpy
        names = 'bool', 'float', 'int', 'object', 'product', 'sctypes', 'distutils'
        before = [name in vars(numpy) for name in names]
        import pfdet, chainer, chainermn, chainercv, chainer.testing
        assert before == [name in vars(numpy) for name in names], names
    """,
    )
    assert result.returncode == 0, result.stderr


def test_removed_packages_are_not_needed():
    # As on Python 3.12 with a setuptools without pkg_resources.
    result = run(
        '-c',
        """if True:
        import sys
        for removed in 'pkg_resources', 'setuptools', 'distutils', 'numpy.distutils':
            sys.modules[removed] = None
        import pfdet, chainer, chainermn, chainercv, chainer.testing
        print(chainercv.__version__)
    """,
    )
    assert result.stdout == '0.13.1\n', result.stderr


def test_imports_do_not_warn():
    result = run('-W', 'default', '-c', 'import pfdet, chainer, chainermn, chainercv')
    assert result.returncode == 0, result.stderr
    # Other packages may warn, but not about Chainer's code.
    assert 'site-packages/chainer' not in result.stderr
    assert 'pfdet' not in result.stderr


@pytest.mark.parametrize('fix', FIXES, ids=lambda fix: fix.name)
def test_every_needed_fix_is_applied(fix):
    for module in fix.modules:
        importlib.import_module(module)
    assert fix.applied == (set(fix.modules) if fix.needed() else set())


@pytest.mark.parametrize('fix', FIXES, ids=lambda fix: fix.name)
def test_an_unknown_source_is_an_error(fix):
    if fix.name == 'nms_gpu_post':
        pytest.skip('creates a module that does not exist')
    with pytest.raises(ValueError, match='expected'):
        fix.repair('import numpy as np\n')


def test_the_error_names_module_fix_and_version(tmp_path):
    path = tmp_path / 'as_strided.py'
    path.write_text('x = 1\n')
    fix = next(f for f in FIXES if f.name == 'numpy_sctypes')
    loader = import_hook._RepairingLoader(fix.modules[0], str(path), [fix], exists=True)
    with pytest.raises(ImportError, match='as_strided .*numpy_sctypes.* supports chainer 7.8.1'):
        loader.get_code(fix.modules[0])


def test_chainer_imported_too_early_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, 'meta_path', [])
    monkeypatch.setitem(sys.modules, 'chainer._environment_check', types.ModuleType('early'))
    with pytest.raises(ImportError, match='put "import pfdet" above the imports of chainer'):
        import_hook.install()
    assert sys.meta_path == []


def test_a_fix_that_is_not_needed_is_skipped(monkeypatch):
    fix = import_hook.Fix('name', ('colorsys',), 'never', lambda: False, lambda source: 'broken')
    monkeypatch.setattr(import_hook, 'FIXES', [fix])
    assert import_hook._RepairingFinder().find_spec('colorsys') is None


def test_a_fixed_module_keeps_its_file(monkeypatch, tmp_path):
    (tmp_path / 'frozen_package.py').write_text('x = old_name\n')
    fix = import_hook.Fix(
        'name', ('frozen_package',), 'always', lambda: True, lambda s: s.replace('old_name', '1')
    )
    monkeypatch.setattr(import_hook, 'FIXES', [fix])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'frozen_package', raising=False)
    module = importlib.import_module('frozen_package')
    monkeypatch.delitem(sys.modules, 'frozen_package')
    assert module.x == 1
    assert module.__file__ == str(tmp_path / 'frozen_package.py')
    assert fix.applied == {'frozen_package'}


def test_the_report_has_a_line_for_every_version_and_fix():
    # Python warns if the module to run has already been imported.
    result = run('-W', 'error::RuntimeWarning', '-m', 'pfdet.compat')
    assert result.returncode == 0, result.stderr
    versions, gpu, fixes, (_, *replaced) = (
        [line.split()[0] for line in part.splitlines()] for part in result.stdout.split('\n\n')
    )
    packages = ['Python', 'NumPy', 'SciPy', 'Chainer', 'ChainerCV', 'mpi4py']
    # Where Slurm is installed, srun follows.
    assert versions[:9] == [*packages, 'MPI', 'MPI', 'mpiexec']
    assert gpu[0] == 'CuPy' and gpu[-1] == 'Chainer'
    assert fixes == [fix.name for fix in FIXES]
    assert replaced == [name.split()[0] for name in REPLACED]
    assert 'not found' not in result.stdout.split('\n\n')[0]
