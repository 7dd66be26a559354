"""Write the public names of the installed CuPy to ``cupy_names.json`` in this directory.

CuPy can be imported without a GPU. Run this once for each major version that ``setup.py`` allows,
in an environment with the corresponding extra::

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
# Lazy attributes of CuPy, which dir() does not list.
LAZY = {'cupy.cuda': ('cublas', 'cusolver', 'cusparse', 'curand', 'nccl', 'nvtx_enabled')}


def main() -> None:
    """Add or replace the names of the installed version."""
    warnings.simplefilter('ignore')
    from pfdet.compat import cuda_libraries

    cuda_libraries.preload()
    import cupy

    path = Path(__file__).with_name('cupy_names.json')
    known = read(path) if path.exists() else {}
    major = cupy.__version__.split('.')[0]
    names = {'version': cupy.__version__, 'cupy.ndarray': public(cupy.ndarray)}
    for module in MODULES:
        imported = find(module)
        if imported is not None:
            lazy = {name for name in LAZY.get(module, ()) if hasattr(imported, name)}
            names[module] = sorted({*public(imported), *lazy})
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
    """Read the file: by major version and module, a list of names; ``'version'`` is a string."""
    return {
        major: {key: value if key == 'version' else value.split() for key, value in names.items()}
        for major, names in json.loads(path.read_text()).items()
    }


def find(module: str):
    """Import a module, or get it as an attribute of its parent; :obj:`None` if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        parent, _, name = module.rpartition('.')
        return getattr(find(parent), name, None) if parent else None


def public(owner) -> list[str]:
    """Return the names of a module or class that do not start with two underscores."""
    return sorted(name for name in dir(owner) if not name.startswith('__'))


if __name__ == '__main__':
    main()
