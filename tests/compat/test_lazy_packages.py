"""Packages that look names up when asked have the names they had, and cost less."""

import subprocess
import sys

# What an old package has, and what becomes of it when everything is asked for.
NAMES = """if True:
    import importlib, sys, warnings
    warnings.simplefilter('ignore')
    import pfdet.compat
    from pfdet.compat.import_hook import FIXES
    lazy = [f for f in FIXES if f.repair.__module__ == 'pfdet.compat.lazy_packages']
    packages = sorted({m for f in lazy for m in f.modules})
    if sys.argv[1] == 'at once':
        for f in lazy:
            FIXES.remove(f)
    asked = [line.split()[:2] for line in sys.stdin]
    import chainer, chainercv, chainermn
    for name in packages:
        package = importlib.import_module(name)
        if not asked:
            asked_here = [n for n in dir(package) if not n.startswith('__') or n == '__version__']
        else:
            asked_here = [n for p, n in asked if p == name]
        for n in asked_here:
            value = getattr(package, n)
            print(name, n, type(value).__name__, getattr(value, '__module__', None),
                  getattr(value, '__qualname__', getattr(value, '__name__', None)))
"""


def names(when, asked=''):
    result = subprocess.run(
        [sys.executable, '-c', NAMES, when],
        input=asked,
        text=True,
        capture_output=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_name_is_found_and_is_what_it_was():
    before = names('at once')
    assert before.count('\n') > 1000
    after = names('when asked', before)
    assert after.splitlines() == before.splitlines()
    # what the packages offer, without the modules that happened to be imported along
    offered = [line for line in before.splitlines() if line.split()[2] != 'module']
    assert set(offered) <= set(names('when asked').splitlines())


def loaded(statements):
    result = subprocess.run(
        [sys.executable, '-c', f'import sys\n{statements}\nprint(*sys.modules)'],
        text=True,
        capture_output=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_a_name_that_is_not_there_is_an_attribute_error():
    assert 'chainer.functions' in loaded("""if True:
        import pfdet.compat, chainer
        assert not hasattr(chainer.functions, 'rectify') and hasattr(chainer.functions, 'relu')
        assert 'relu' in dir(chainer.functions)
        assert chainer.functions.array.get_item.__name__ == 'chainer.functions.array.get_item'
        from chainer.functions import *
        assert softmax is chainer.functions.activation.softmax.softmax
    """)


def test_training_loads_no_more_than_it_needs():
    """What Chainer and ChainerCV load by themselves, and training has no use for."""
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
