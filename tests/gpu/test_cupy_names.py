"""All names of CuPy used by pfdet, Chainer, ChainerMN and ChainerCV exist in CuPy 13 and 14.

``list_cupy_names.py`` writes the names of the installed CuPy. The file has those of both versions.
"""

import ast
import importlib.util
import json
from pathlib import Path

import pfdet.compat  # noqa: F401
from pfdet.compat.import_hook import FIXES

import pytest

import pfdet

# Python 3.12 warns about backslashes in ChainerCV's docstrings.
pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::SyntaxWarning')

NAMES = {
    major: {module: set(names.split()) for module, names in modules.items()}
    for major, modules in json.loads(
        Path(__file__).with_name('cupy_names.json').read_text()
    ).items()
}

# Aliases of CuPy's modules in the sources.
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

# Expressions that only look like names of CuPy. In chainer.backends.cuda, `cuda` is cupy.cuda, and
# the old name is a fallback for the new one. In chainer.functions.math.inv, `cp` is an array.
FALSE_POSITIVES = {
    ('chainer.backends.cuda', 'cupy.cudnn.CUDNN_TENSOR_NCHW'),
    ('chainer.backends.cuda', 'cupy.cudnn.CUDNN_TENSOR_NHWC'),
    ('chainer.backends.cuda', 'cupy.cudnn.getVersion'),
    ('chainer.backends.cuda', 'cupy.util.PerformanceWarning'),
    ('chainer.functions.math.inv', 'cupy.data'),
    ('chainer.functions.math.inv', 'cupy.data.ptr'),
}


def dotted(node):
    """Return ``a.b.c`` for an attribute of a name, otherwise :obj:`None`."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return '.'.join([node.id, *parts]) if isinstance(node, ast.Name) else None


def uses(tree):
    """Yield the names of CuPy used in a source, such as ``cupy.linalg.norm``."""
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
    """Whether a name is missing in a version. Attributes of unlisted modules are not checked."""
    owner, *rest = name.split('.')
    for part in rest:
        if owner not in names or part.startswith('__'):
            return False
        if part not in names[owner] and f'{owner}.{part}' not in names:
            return True
        owner = f'{owner}.{part}'
    return False


def sources(package):
    """Yield the modules of a package and their sources after the fixes."""
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
def test_lists_are_of_the_versions_in_setup(major):
    (version,) = NAMES[major]['version']
    assert version.startswith(f'{major}.')
    assert {'nonzero', 'argsort', 'searchsorted', 'take_along_axis'} <= NAMES[major]['cupy']
    # A name that is new in CuPy 14.
    assert ('put_along_axis' in NAMES[major]['cupy']) == (major == '14')


@pytest.mark.parametrize('major', NAMES)
def test_pfdet_uses_only_names_that_exist(major):
    used = {
        (module, name) for module, source in sources('pfdet') for name in uses(ast.parse(source))
    }
    names = {name for _, name in used if name.startswith('cupy.')}
    assert {'cupy.nonzero', 'cupy.take_along_axis', 'cupy.searchsorted'} <= names
    # In pfdet, cudnn is NVIDIA's front end of cuDNN 9: test_on_fake_cudnn.py.
    of_cupy = {(m, n) for m, n in used if not n.startswith('cupy.cudnn.')}
    assert not sorted((m, n) for m, n in of_cupy if missing(n, NAMES[major]))


@pytest.mark.parametrize('package', ['chainer', 'chainermn', 'chainercv'])
@pytest.mark.parametrize('major', NAMES)
def test_packages_use_only_names_that_exist(major, package):
    used = {
        (module, name)
        for module, source in sources(package)
        for name in uses(ast.parse(source))
        if not module.startswith(('chainer.testing', 'chainer.function_hooks'))
    }
    unknown = {(m, n) for m, n in used if missing(n, NAMES[major])}
    if major == '14':
        # CuPy 14 has no cuDNN. Chainer uses these names only if cuda.cudnn_enabled.
        unknown = {(m, n) for m, n in unknown if '.cudnn' not in n}
    assert len(used) > 5
    assert not sorted(unknown - FALSE_POSITIVES)


def test_unknown_names_are_detected():
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
