"""Write the public names of the CuPy that is installed into ``cupy_names.json``, beside this file.

CuPy imports without a GPU. Once for each version that ``setup.py`` allows, in an environment with
that extra::

    python tests/gpu/list_cupy_names.py
"""

import importlib
import json
import warnings
from pathlib import Path

MODULES = (
    'cupy',
    'cupy.cuda',
    'cupy.cuda.memory_hook',
    'cupy.cuda.nccl',
    'cupy.cuda.nvtx',
    'cupy.cuda.runtime',
    'cupy.cuda.driver',
    'cupy.cuda.cublas',
    'cupy.cuda.memory',
    'cupy.cuda.cudnn',
    'cupy.cudnn',
    'cupy.linalg',
    'cupy.random',
    'cupy.lib.stride_tricks',
    'cupy._util',
    'cupyx',
    'cupyx.scipy.special',
    'cupyx.scipy.linalg',
    'cupyx.scipy.sparse',
)
# Attributes that CuPy makes when they are asked for, and that dir() does not list.
LAZY = {'cupy.cuda': ('cublas', 'cusolver', 'cusparse', 'curand', 'nccl', 'nvtx_enabled')}


def main() -> None:
    """Add this version's names, or replace them."""
    warnings.simplefilter('ignore')
    from pfdet.compat import cuda_libraries

    cuda_libraries.preload()
    import cupy

    path = Path(__file__).with_name('cupy_names.json')
    known = read(path) if path.exists() else {}
    major = cupy.__version__.split('.')[0]
    names = {'version': cupy.__version__, 'cupy.ndarray': public(cupy.ndarray)}
    for module in MODULES:
        found = find(module)
        if found is not None:
            lazy = {name for name in LAZY.get(module, ()) if hasattr(found, name)}
            names[module] = sorted({*public(found), *lazy})
    known[major] = names
    lines = []
    for version in sorted(known):
        entries = ',\n'.join(
            f'  {json.dumps(key)}: {json.dumps(" ".join(value))}'
            if isinstance(value, list)
            else f'  {json.dumps(key)}: {json.dumps(value)}'
            for key, value in known[version].items()
        )
        lines.append(f' {json.dumps(version)}: {{\n{entries}\n }}')
    path.write_text('{\n' + ',\n'.join(lines) + '\n}\n')
    print(f'{path.name}: CuPy {cupy.__version__}, {sum(map(len, names.values()))} names')


def read(path: Path) -> dict[str, dict]:
    """The file: by major version, by module, a list of names; and ``'version'``, in full."""
    return {
        major: {key: value if key == 'version' else value.split() for key, value in names.items()}
        for major, names in json.loads(path.read_text()).items()
    }


def find(module: str):
    """A module, also one that is only an attribute of another; :obj:`None` if there is none."""
    try:
        return importlib.import_module(module)
    except ImportError:
        parent, _, name = module.rpartition('.')
        return getattr(find(parent), name, None) if parent else None


def public(owner) -> list[str]:
    """The names of a module or class that do not begin with two underscores."""
    return sorted(name for name in dir(owner) if not name.startswith('__'))


if __name__ == '__main__':
    main()
