"""Lazy imports in the packages of Chainer and ChainerCV.

Their ``__init__`` files import all submodules: ``import chainer`` and ``import chainercv`` load
SciPy's file formats, pytest, matplotlib, and data sets and networks that training does not use.
Each rank has its own copy, so with hundreds of ranks on a node these imports are most of a rank's
cost before the network is built. With this fix, a package imports a name on first use. ``from
chainer import functions as F``, ``F.relu``, ``from chainercv.links import Conv2DBNActiv``
and ``dir()`` work as before.
"""

import importlib
import importlib.util
import re
import sys

from pfdet.compat.import_hook import fix

# An __init__ may contain only one-line imports, comments and a docstring.
_IMPORT = re.compile(
    r'^from ((?:chainer|pfdet)[\w.]*) import (\w+)(?: as (\w+))?[ \t]*(?:#.*)?\n', re.M
)
_EMPTY = re.compile(r'\s*(?:"""(?:[^"]|"(?!""))*""")?\s*(?:#.*\s*)*\Z')


@fix(
    'chainer.dataset',
    'chainer.dataset.tabular',
    'chainer.datasets',
    'chainer.distributions',
    'chainer.function_hooks',
    'chainer.functions',
    *(
        f'chainer.functions.{part}'
        for part in (
            'activation',
            'array',
            'connection',
            'evaluation',
            'loss',
            'math',
            'noise',
            'normalization',
            'pooling',
            'rnn',
            'theano',
            'util',
        )
    ),
    'chainer.iterators',
    'chainer.link_hooks',
    'chainer.links',
    *(
        f'chainer.links.{part}'
        for part in ('activation', 'connection', 'loss', 'model', 'normalization', 'rnn', 'theano')
    ),
    'chainer.optimizer_hooks',
    'chainer.optimizers',
    'chainer.serializers',
    'chainer.training',
    'chainer.training.extensions',
    'chainer.training.triggers',
    'chainer.training.updaters',
    'chainercv.chainer_experimental',
    'chainercv.chainer_experimental.datasets',
    'chainercv.chainer_experimental.datasets.sliceable',
    'chainercv.chainer_experimental.training',
    'chainercv.chainer_experimental.training.extensions',
    'chainercv.datasets',
    'chainercv.evaluations',
    'chainercv.experimental',
    'chainercv.experimental.links',
    'chainercv.experimental.links.model.fcis',
    'chainercv.experimental.links.model.pspnet',
    'chainercv.experimental.links.model.yolo',
    'chainercv.extensions',
    'chainercv.functions',
    'chainercv.links',
    'chainercv.links.connection',
    *(
        f'chainercv.links.model.{part}'
        for part in (
            'deeplab',
            'faster_rcnn',
            'fpn',
            'resnet',
            'segnet',
            'senet',
            'ssd',
            'vgg',
            'yolo',
        )
    ),
    'chainercv.transforms',
    'chainercv.utils',
    'chainercv.utils.bbox',
    'chainercv.utils.image',
    'chainercv.utils.iterator',
    'chainercv.utils.mask',
    'chainercv.visualizations',
    'chainermn.extensions',
    'chainermn.functions',
    'chainermn.iterators',
    'chainermn.links',
    since='always',
)
def lazy_names(source: str) -> str:
    """Import the names of a package on first use instead of with the package."""
    if not _EMPTY.match(_IMPORT.sub('', source)):
        raise ValueError('expected nothing but imports, found other statements')
    names = ''.join(
        f'{module} {name} {alias or name}\n' for module, name, alias in _IMPORT.findall(source)
    )
    return (
        'from pfdet.compat.lazy_packages import lookup\n'
        f"lookup(__name__, '''{names}''')\ndel lookup\n"
    )


@fix('chainercv', since='always')
def lazy_chainercv(source: str) -> str:
    """Import ChainerCV's subpackages and version on first use; its configuration immediately."""
    imports = [m[0] for m in _IMPORT.finditer(source) if m[2] != 'global_config']
    if len(imports) != 11:
        raise ValueError(f'expected ten subpackages and a version, found {len(imports)} imports')
    for line in imports:
        source = source.replace(line, '')
    return source + lazy_names(''.join(imports))


def lookup(package: str, names: str) -> None:
    """Make a package import its names on first use (PEP 562).

    Args:
        package (str): Name of the package, which is being imported.
        names (str): One name per line: the module, the name in the module, and the name in the
            package.
    """
    namespace = vars(sys.modules[package])
    rows = [line.split() for line in names.splitlines()]
    table = {alias: (module, name) for module, name, alias in rows}

    def find(name: str) -> object:
        if name in table:
            module, original = table[name]
            value = (
                importlib.import_module(f'{package}.{name}')
                if module == package
                else getattr(importlib.import_module(module), original)
            )
        elif not name.startswith('__') and importlib.util.find_spec(f'{package}.{name}'):
            # A submodule that the original package imported as a side effect.
            value = importlib.import_module(f'{package}.{name}')
        else:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        namespace[name] = value
        return value

    namespace.update(
        __getattr__=find, __dir__=lambda: sorted({*namespace, *table}), __all__=[*table]
    )
    for alias, (module, name) in table.items():
        if module == f'{package}.{alias}':
            # A name equal to that of its module. Importing the module later would overwrite it.
            namespace[alias] = getattr(importlib.import_module(module), name)
