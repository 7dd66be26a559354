"""What CuPy 13 and 14 ask of Chainer; see :mod:`pfdet.compat.fixes` for the form.

Chainer 7.8.1 was written for CuPy 7. Which names of CuPy it uses, and that both versions still have
them, is tested in ``tests/gpu``.
"""

import importlib.util

from pfdet.compat.fixes import _replace, version_of
from pfdet.compat.import_hook import fix

PACKAGES = 'cupy-cuda12x', 'cupy-cuda13x', 'cupy'


def has_cupy() -> bool:
    """Whether any of CuPy's packages is installed."""
    # Looking for the module is cheaper than reading what is installed.
    return importlib.util.find_spec('cupy') is not None and any(map(version_of, PACKAGES))


def _sonames() -> str:
    # CuPy 14 finds them by itself, and has no use for cuDNN.
    return '()' if max(map(version_of, PACKAGES)) >= (14,) else ''


@fix('chainer.backends.cuda', since='CuPy 9, whose wheels import without a GPU', needed=has_cupy)
def gpu_is_there(source: str) -> str:
    """Have a GPU before Chainer says so; open CUDA's libraries from PyPI; cuDNN's warning.

    CuPy's wheels import on any machine, and Chainer took that for a GPU: a communicator over NCCL
    would be chosen, and the first array fail. CuPy 13 does not find what pip installed
    (:mod:`pfdet.compat.cuda_libraries`). Without cuDNN, Chainer says to install CuPy again.
    """
    source = _replace(
        source,
        'try:\n    import cupy\n    from cupy import cuda  # NOQA\n',
        'try:\n    from pfdet.compat import cuda_libraries as _cuda_libraries\n'
        f'    _cuda_libraries.preload({_sonames()})\n'
        '    import cupy\n    from cupy import cuda  # NOQA\n'
        '    if cuda.runtime.getDeviceCount() < 1:\n'
        "        raise RuntimeError('CUDA sees no GPU')\n",
    )
    return _replace(
        source,
        "'Please reinstall CuPy after you install cudnn\\n'\n"
        "            '(see https://docs-cupy.chainer.org/en/stable/install.html'\n"
        "            '#install-cudnn).')",
        "'python -m pfdet.compat says why, and what it means.')",
    )


@fix('chainermn.communicators._memory_utility', since='CuPy 14', needed=has_cupy)
def half_in_nccl_kernels(source: str) -> str:
    """Include CUDA's ``half`` in the kernels that pack gradients for NCCL; CuPy no longer does."""
    return _replace(
        source,
        '#include <cupy/carray.cuh>',
        '#include <cuda_fp16.h>\n#include <cupy/carray.cuh>',
        2,
    )
