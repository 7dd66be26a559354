"""Lazy packages have the same names as the original packages and load fewer modules."""

import subprocess
import sys

# Prints the names of all lazy packages, either after eager or after lazy imports. If standard input
# has names, only these are looked up.
NAMES = """if True:
    import importlib, sys, warnings
    warnings.simplefilter('ignore')
    import pfdet.compat
    from pfdet.compat.import_hook import FIXES
    lazy = [f for f in FIXES if f.repair.__module__ == 'pfdet.compat.lazy_packages']
    packages = sorted({m for f in lazy for m in f.modules})
    if sys.argv[1] == 'eager':
        for f in lazy:
            FIXES.remove(f)
    requested = [line.split()[:2] for line in sys.stdin]
    import chainer, chainercv, chainermn
    for name in packages:
        package = importlib.import_module(name)
        if not requested:
            names = [n for n in dir(package) if not n.startswith('__') or n == '__version__']
        else:
            names = [n for p, n in requested if p == name]
        for n in names:
            value = getattr(package, n)
            print(name, n, type(value).__name__, getattr(value, '__module__', None),
                  getattr(value, '__qualname__', getattr(value, '__name__', None)))
"""


def names(mode, requested=''):
    result = subprocess.run(
        [sys.executable, '-c', NAMES, mode],
        input=requested,
        text=True,
        capture_output=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_lazy_names_equal_eager_names():
    eager = names('eager')
    assert eager.count('\n') > 1000
    lazy = names('lazy', eager)
    assert lazy.splitlines() == eager.splitlines()
    # dir() lists all names except modules that were imported as a side effect.
    listed = [line for line in eager.splitlines() if line.split()[2] != 'module']
    assert set(listed) <= set(names('lazy').splitlines())


def loaded(statements):
    result = subprocess.run(
        [sys.executable, '-c', f'import sys\n{statements}\nprint(*sys.modules)'],
        text=True,
        capture_output=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_an_unknown_name_is_an_attribute_error():
    assert 'chainer.functions' in loaded("""if True:
        import pfdet.compat, chainer
        assert not hasattr(chainer.functions, 'rectify') and hasattr(chainer.functions, 'relu')
        assert 'relu' in dir(chainer.functions)
        assert chainer.functions.array.get_item.__name__ == 'chainer.functions.array.get_item'
        from chainer.functions import *
        assert softmax is chainer.functions.activation.softmax.softmax
    """)


def test_training_does_not_load_unused_modules():
    """Without the fix, Chainer and ChainerCV load all of these modules."""
    modules = loaded('import pfdet.training.train, chainermn')
    assert {'chainer.training', 'chainercv.links', 'cv2'} <= modules
    for unneeded in (
        'matplotlib',
        'pytest',
        'pyarrow',
        'scipy',
        'filelock',
        'chainer.testing',
        'chainer.datasets.svhn',
        'chainercv.visualizations',
        'chainercv.links.model.ssd',
    ):
        assert unneeded not in modules
