"""The names of CuPy that pfdet, Chainer, ChainerMN and ChainerCV use exist in CuPy 13 and 14.

``list_cupy_names.py`` writes the names of the CuPy that is installed; the file has both versions.
"""

import ast
import importlib.util
import json
from pathlib import Path

import pfdet.compat  # noqa: F401
from pfdet.compat.import_hook import FIXES

import pytest

import pfdet

# Python 3.12 and pytest show what is wrong with the backslashes in ChainerCV's docstrings.
pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::SyntaxWarning')

NAMES = {
    major: {module: set(names.split()) for module, names in modules.items()}
    for major, modules in json.loads(
        Path(__file__).with_name('cupy_names.json').read_text()
    ).items()
}

# What `xp` or an alias stands for, as it is written in the sources.
ROOTS = {
    'xp': 'cupy',
    'self.xp': 'cupy',
    'self._xp': 'cupy',
    'cupy': 'cupy',
    'cuda.cupy': 'cupy',
    'chainer.cuda.cupy': 'cupy',
    'cp': 'cupy',
    'cuda.cupyx': 'cupyx',
    'cupyx': 'cupyx',
    'cuda.cudnn': 'cupy.cudnn',
    'cudnn': 'cupy.cudnn',
    'libcudnn': 'cupy.cuda.cudnn',
    'cuda.libcudnn': 'cupy.cuda.cudnn',
    'chainer.cuda.Stream': 'cupy.cuda.Stream',
}

# What reads like a name of CuPy's and is none: in this module `cuda` is cupy.cuda, and the old name
# is tried where the new one is missing; in the other, `cp` is an array.
MISREAD = {
    ('chainer.backends.cuda', 'cupy.cudnn.CUDNN_TENSOR_NCHW'),
    ('chainer.backends.cuda', 'cupy.cudnn.CUDNN_TENSOR_NHWC'),
    ('chainer.backends.cuda', 'cupy.cudnn.getVersion'),
    ('chainer.backends.cuda', 'cupy.util.PerformanceWarning'),
    ('chainer.functions.math.inv', 'cupy.data'),
    ('chainer.functions.math.inv', 'cupy.data.ptr'),
}


def dotted(node):
    """``a.b.c`` of an attribute, or :obj:`None`."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return '.'.join([node.id, *parts]) if isinstance(node, ast.Name) else None


def uses(tree):
    """The names below CuPy's modules in a source, as ``cupy.linalg.norm``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('cupy'):
            yield from (f'{node.module}.{alias.name}' for alias in node.names)
        name = dotted(node) if isinstance(node, ast.Attribute) else None
        if name is None:
            continue
        for root in sorted(ROOTS, key=len, reverse=True):
            if name.startswith(root + '.'):
                yield ROOTS[root] + name[len(root) :]
                break


def missing(name, names):
    """Whether a version lacks a name; below something that is no listed module all may be."""
    owner, *rest = name.split('.')
    for part in rest:
        if owner not in names or part.startswith('__'):
            return False
        if part not in names[owner] and f'{owner}.{part}' not in names:
            return True
        owner = f'{owner}.{part}'
    return False


def sources(package):
    """The sources of a package as they run: repaired where there is a fix."""
    root = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    for path in sorted(root.rglob('*.py')):
        parts = path.relative_to(root.parent).with_suffix('').parts
        name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
        source = path.read_text(encoding='utf-8')
        for fix in FIXES:
            if name in fix.modules and fix.needed():
                source = fix.repair(source)
        yield name, source


@pytest.mark.parametrize('major', NAMES)
def test_the_lists_are_of_the_versions_that_setup_asks_for(major):
    (version,) = NAMES[major]['version']
    assert version.startswith(f'{major}.')
    assert {'nonzero', 'argsort', 'searchsorted', 'take_along_axis'} <= NAMES[major]['cupy']
    # One that came with CuPy 14, so that this test can fail
    assert ('put_along_axis' in NAMES[major]['cupy']) == (major == '14')


@pytest.mark.parametrize('major', NAMES)
def test_pfdet_uses_only_names_that_exist(major):
    found = {
        (module, name) for module, source in sources('pfdet') for name in uses(ast.parse(source))
    }
    ours = {name for _, name in found if name.startswith('cupy.')}
    assert {'cupy.nonzero', 'cupy.take_along_axis', 'cupy.searchsorted'} <= ours
    # NumPy's own types and constants may be asked of xp as well.
    assert not sorted((m, n) for m, n in found if missing(n, NAMES[major]))


@pytest.mark.parametrize('package', ['chainer', 'chainermn', 'chainercv'])
@pytest.mark.parametrize('major', NAMES)
def test_packages_use_only_names_that_exist(major, package):
    found = {
        (module, name)
        for module, source in sources(package)
        for name in uses(ast.parse(source))
        if not module.startswith(('chainer.testing', 'chainer.function_hooks'))
    }
    lacking = {(m, n) for m, n in found if missing(n, NAMES[major])}
    if major == '14':
        # CuPy 14 has no cuDNN; Chainer asks only where cuda.cudnn_enabled.
        lacking = {(m, n) for m, n in lacking if '.cudnn' not in n}
    assert len(found) > 5
    assert not sorted(lacking - MISREAD)


def test_names_that_do_not_exist_are_found():
    source = 'import x\nxp.no_such(1)\nself.xp.linalg.no_such\ncuda.cupyx.no_such\nxp.linalg.norm'
    names = set(uses(ast.parse(source)))
    assert names == {
        'cupy.no_such',
        'cupy.linalg.no_such',
        'cupy.linalg',
        'cupyx.no_such',
        'cupy.linalg.norm',
    }
    for major in NAMES:
        assert [n for n in sorted(names) if missing(n, NAMES[major])] == [
            'cupy.linalg.no_such',
            'cupy.no_such',
            'cupyx.no_such',
        ]
    assert pfdet.__version__
