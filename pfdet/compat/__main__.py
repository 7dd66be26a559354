"""Print the versions in this environment, its MPI and CUDA libraries, and the fixes applied.

Usage: ``python -m pfdet.compat``
"""

import importlib.metadata
import shutil
import sys

import pfdet.compat  # noqa: F401
from pfdet.compat import cuda_libraries
from pfdet.compat.import_hook import FIXES

import chainercv  # noqa: F401
import chainermn  # noqa: F401

from pfdet import mpi
from pfdet.cpu.install import REPLACED
from pfdet.flags import Parser
from pfdet.gpu import cudnn

PACKAGES = {
    'NumPy': ['numpy'],
    'SciPy': ['scipy'],
    'Chainer': ['chainer'],
    'ChainerCV': ['chainercv'],
    'mpi4py': ['mpi4py'],
}


def versions() -> dict[str, str]:
    """Return the versions of Python, of the packages and of the MPI, by name."""
    result = {'Python': sys.version.split()[0]}
    for name, packages in PACKAGES.items():
        result[name] = ' '.join(filter(None, map(_version, packages))) or 'not installed'
    result.update(mpi_versions())
    return result


def mpi_versions() -> dict[str, str]:
    """Return the version and the file of the MPI library, and the launchers found, by name."""
    try:
        library = mpi.library()
    except (ImportError, RuntimeError) as e:
        return {'MPI': f'not found ({" ".join(str(e).split())})'}
    result = {'MPI': library.version, 'MPI library': library.path or 'unknown file'}
    path = mpi.launcher()
    if path is None:
        result['mpiexec'] = 'not found'
    else:
        family = mpi.launcher_family(path)
        result['mpiexec'] = f'{path} ({family or "of an unknown MPI"})'
        if family != library.family:
            result['mpiexec'] += f': does not fit {library.version}, set MPIEXEC or MPI4PY_LIBMPI'
    if shutil.which('srun'):
        plugin = mpi.SRUN_MPI.get(library.family)
        result['srun'] = f'--mpi={plugin}' if plugin else 'see srun --mpi=list'
    return result


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def report() -> str:
    """Format versions, CUDA libraries, fixes and replaced CPU functions."""
    lines = [f'{name:<13}{version}' for name, version in versions().items()]
    lines.append('')
    for name, version, meaning in cuda_libraries.findings():
        lines.append(f'{name:<13}{version or "missing"}{f" ({meaning})" if meaning else ""}')
    lines.append(f'{"cuDNN 9":<13}{cudnn.find().meaning}')
    lines.append(f'{"Chainer uses":<13}{_backend()}')
    lines.append('')
    for fix in FIXES:
        if fix.applied:
            state = f'in {len(fix.applied)} module{"s" * (len(fix.applied) > 1)}'
        else:
            state = 'not loaded' if fix.needed() else 'not needed'
        lines.append(f'{fix.name:<22}{state:<14}{fix.reason} ({fix.since})')
    lines += ['', 'Replaced on the CPU when pfdet builds a network (pfdet.cpu.install):']
    lines += [f'{name:<50}by {module.__name__}' for name, module in REPLACED.items()]
    return '\n'.join(lines)


def _backend() -> str:
    from chainer.backends import cuda

    if not cuda.available:
        return 'the CPU'
    if cuda.cudnn_enabled:
        return 'the GPU, cuDNN 8 for convolutions'
    if cudnn.front_end() is not None:
        return 'the GPU, cuDNN 9 for convolutions (pfdet.gpu)'
    return 'the GPU, im2col and cuBLAS for convolutions'


def main() -> None:
    """Run the command."""
    Parser(description=__doc__).parse_args()
    print(report())


if __name__ == '__main__':
    main()
