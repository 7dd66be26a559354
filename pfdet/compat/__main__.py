"""Print this environment's versions, what a GPU has and lacks, and what was fixed.

``python -m pfdet.compat``
"""

import importlib.metadata
import sys

import pfdet.compat  # noqa: F401
from pfdet.compat import cuda_libraries
from pfdet.compat.import_hook import FIXES

import chainercv  # noqa: F401
import chainermn  # noqa: F401

from pfdet.cpu.install import REPLACED

PACKAGES = {
    'NumPy': ['numpy'],
    'SciPy': ['scipy'],
    'Chainer': ['chainer'],
    'ChainerCV': ['chainercv'],
    'mpi4py': ['mpi4py'],
}


def versions() -> dict[str, str]:
    """The versions of Python, of packages and of MPI's library, by name."""
    found = {'Python': sys.version.split()[0]}
    for name, packages in PACKAGES.items():
        found[name] = ' '.join(filter(None, map(_version, packages))) or 'not installed'
    try:
        from mpi4py import MPI

        found['MPI'] = ' '.join(MPI.Get_library_version().rstrip('\0').splitlines()[0].split())
    except (ImportError, RuntimeError) as e:
        found['MPI'] = f'not found ({e})'
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def report() -> str:
    """The versions, what a GPU needs, and the fixes: name, whether applied, why, since when."""
    lines = [f'{name:<13}{version}' for name, version in versions().items()]
    lines.append('')
    for name, version, meaning in cuda_libraries.findings():
        lines.append(f'{name:<13}{version or "missing"}{f" ({meaning})" if meaning else ""}')
    lines.append(f'{"Chainer uses":<13}{_backend()}')
    lines.append('')
    for fix in FIXES:
        if fix.applied:
            state = f'in {len(fix.applied)} module{"s" * (len(fix.applied) > 1)}'
        else:
            state = 'not loaded' if fix.needed() else 'not needed'
        lines.append(f'{fix.name:<22}{state:<14}{fix.reason} ({fix.since})')
    lines += ['', 'On the CPU, when pfdet builds a network (pfdet.cpu.install):']
    lines += [f'{name:<50}by {module.__name__}' for name, module in REPLACED.items()]
    return '\n'.join(lines)


def _backend() -> str:
    from chainer.backends import cuda

    if not cuda.available:
        return 'the CPU'
    return (
        'the GPU, cuDNN for convolutions'
        if cuda.cudnn_enabled
        else ('the GPU, im2col and cuBLAS for convolutions')
    )


def main() -> None:
    print(report())


if __name__ == '__main__':
    main()
