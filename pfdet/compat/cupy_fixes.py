"""Fixes of Chainer and ChainerMN for CuPy 13 and 14, in the form of :mod:`pfdet.compat.fixes`.

Chainer 7.8.1 was written for CuPy 7. ``tests/gpu`` checks that all names of CuPy used by Chainer
exist in CuPy 13 and 14.
"""

import importlib.util

from pfdet.compat.fixes import _replace, version_of
from pfdet.compat.import_hook import fix

PACKAGES = 'cupy-cuda12x', 'cupy-cuda13x', 'cupy'


def has_cupy() -> bool:
    """Whether one of CuPy's packages is installed."""
    # Finding the module is cheaper than reading package metadata, so it comes first.
    return importlib.util.find_spec('cupy') is not None and any(map(version_of, PACKAGES))


def _sonames() -> str:
    # CuPy 14 finds the libraries by itself and does not use cuDNN.
    return '()' if max(map(version_of, PACKAGES)) >= (14,) else ''


@fix('chainer.backends.cuda', since='CuPy 9, whose wheels import without a GPU', needed=has_cupy)
def require_gpu(source: str) -> str:
    """Enable CUDA only if there is a GPU; open CUDA libraries from PyPI; correct a warning.

    CuPy's wheels import on any machine, and Chainer concludes that there is a GPU. It would select
    a communicator over NCCL, and the first array would fail. CuPy 13 does not find libraries
    installed by pip (:mod:`pfdet.compat.cuda_libraries`). Without cuDNN, Chainer's warning advises
    reinstalling CuPy, which does not help.
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
        "'Run python -m pfdet.compat for the reason and its consequence.')",
    )


@fix('chainermn.communicators._memory_utility', since='CuPy 14', needed=has_cupy)
def half_in_nccl_kernels(source: str) -> str:
    """Include ``cuda_fp16.h`` in the kernels that pack gradients; CuPy no longer includes it."""
    return _replace(
        source,
        '#include <cupy/carray.cuh>',
        '#include <cuda_fp16.h>\n#include <cupy/carray.cuh>',
        2,
    )


@fix('chainermn.functions.batch_normalization', since='float16 activations', needed=lambda: True)
def statistics_in_float32(source: str) -> str:
    """Square activations in float32; squares of float16 above 255 are infinite."""
    return _replace(source, 'xp.square(x).mean(', 'xp.square(x, dtype=gamma.dtype).mean(', 2)
