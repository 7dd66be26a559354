"""Chainer's and ChainerCV's packages import what is asked of them, when it is.

Their ``__init__`` files import all they have: ``import chainer`` and ``import chainercv`` load
SciPy's file formats, pytest and matplotlib, data sets and networks that a training run never uses.
With hundreds of ranks on a node, and each with a copy of its own, that is most of what a rank costs
before it has a network. Here a package looks a name up when it is first used. ``from chainer import
functions as F``, ``F.relu``, ``from chainercv.links import Conv2DBNActiv`` and ``dir()`` are as
they were.
"""

import importlib
import importlib.util
import re
import sys

from pfdet.compat.import_hook import fix

# What an __init__ may consist of: imports a line, comments, a docstring.
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
    since='ever',
)
def names_when_asked_for(source: str) -> str:
    """Import what a package offers when it is first used, not when the package is imported."""
    if not _EMPTY.match(_IMPORT.sub('', source)):
        raise ValueError('expected nothing but imports, found other statements')
    names = ''.join(
        f'{module} {name} {alias or name}\n' for module, name, alias in _IMPORT.findall(source)
    )
    return (
        'from pfdet.compat.lazy_packages import lookup\n'
        f"lookup(__name__, '''{names}''')\ndel lookup\n"
    )


@fix('chainercv', since='ever')
def parts_when_asked_for(source: str) -> str:
    """Import ChainerCV's parts, and find its version, when asked; its settings are set at once."""
    found = [m[0] for m in _IMPORT.finditer(source) if m[2] != 'global_config']
    if len(found) != 11:
        raise ValueError(f'expected to find ten parts and a version, found {len(found)} imports')
    for line in found:
        source = source.replace(line, '')
    return source + names_when_asked_for(''.join(found))


def lookup(package: str, names: str) -> None:
    """Have a package find its names when asked (PEP 562).

    Args:
        package (str): Its name; it is being imported.
        names (str): In each line, a module, a name there, and its name in the package.
    """
    space = vars(sys.modules[package])
    rows = [line.split() for line in names.splitlines()]
    table = {alias: (module, name) for module, name, alias in rows}

    def find(name: str) -> object:
        if name in table:
            module, there = table[name]
            value = (
                importlib.import_module(f'{package}.{name}')
                if module == package
                else getattr(importlib.import_module(module), there)
            )
        elif not name.startswith('__') and importlib.util.find_spec(f'{package}.{name}'):
            # A module that the package used to import along with its names.
            value = importlib.import_module(f'{package}.{name}')
        else:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        space[name] = value
        return value

    space.update(__getattr__=find, __dir__=lambda: sorted({*space, *table}), __all__=[*table])
    for alias, (module, name) in table.items():
        if module == f'{package}.{alias}':
            # A function of its module's name: importing the module later would take its place.
            space[alias] = getattr(importlib.import_module(module), name)
