"""Loading of CUDA libraries installed by pip, and a report of which libraries are available.

CUDA libraries are installed on the machine or from PyPI (``nvidia-cublas-cu12`` and others). CuPy
14 finds both. CuPy 13 finds only those on the loader's path. :func:`preload` therefore opens the
libraries from PyPI first, because the loader finds a library by name if the process has opened it.
"""

import ctypes
import importlib
import importlib.util
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

# Libraries opened by CuPy 13 for CUDA 12, each after its dependencies. cuDNN 8 is the only version
# that CuPy 13 supports.
SONAMES = (
    'libcudart.so.12',
    'libnvJitLink.so.12',
    'libnvrtc.so.12',
    'libcublasLt.so.12',
    'libcublas.so.12',
    'libcufft.so.11',
    'libcurand.so.10',
    'libcusparse.so.12',
    'libcusolver.so.11',
    'libcudnn.so.8',
    'libcudnn_ops_infer.so.8',
    'libcudnn_ops_train.so.8',
    'libcudnn_cnn_infer.so.8',
    'libcudnn_cnn_train.so.8',
)


class Finding(NamedTuple):
    """State of one component for training on GPUs.

    Attributes:
        name (str): Name of the component.
        version (str): Its version; empty if it is missing.
        meaning (str): Consequence of the version or of the absence; may be empty.
    """

    name: str
    version: str
    meaning: str = ''


def preload(sonames: Iterable[str] = SONAMES) -> list[str]:
    """Open the libraries installed by pip that the loader does not find by itself.

    Args:
        sonames (iterable of str): Library names, each after its dependencies.

    Returns:
        list of str: Paths of the opened libraries.
    """
    opened = []
    folders = _wheel_folders()
    for soname in sonames:
        try:
            ctypes.CDLL(soname)
            continue
        except OSError:
            pass
        for folder in folders:
            path = folder / soname
            if path.exists():
                try:
                    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
                except OSError:
                    # The component that needs the library reports the error.
                    continue
                opened.append(str(path))
                break
    return opened


def _wheel_folders() -> list[Path]:
    spec = importlib.util.find_spec('nvidia')
    if spec is None or not spec.submodule_search_locations:
        return []
    roots = map(Path, spec.submodule_search_locations)
    return sorted(lib for root in roots for lib in root.glob('*/lib'))


def findings() -> list[Finding]:
    """Check CuPy, CUDA, cuDNN and NCCL.

    Returns:
        list of Finding: The components, each after its dependencies.
    """
    with warnings.catch_warnings():
        # CuPy's warnings are long, and this report contains their information.
        warnings.simplefilter('ignore')
        try:
            import cupy
        except Exception as e:
            return [
                Finding(
                    'CuPy',
                    '',
                    _first_line(e)
                    if importlib.util.find_spec('cupy')
                    else (
                        'not installed: this environment trains on the CPU; for GPUs, '
                        'make setup EXTRAS=dev,cuda12 (or cuda13)'
                    ),
                )
            ]
        return [Finding('CuPy', cupy.__version__), *_cuda(cupy), _cudnn(cupy), _nccl()]


def _cuda(cupy: Any) -> Iterable[Finding]:
    runtime = cupy.cuda.runtime
    driver = runtime.driverGetVersion()
    yield Finding(
        'CUDA driver',
        _dotted(driver),
        '' if driver else ('not loaded: there is no NVIDIA GPU, or its driver is not installed'),
    )
    built = runtime.runtimeGetVersion()
    too_old = driver and driver // 1000 < built // 1000
    yield Finding(
        'CUDA runtime',
        _dotted(built),
        (
            f'newer than the driver, which supports CUDA {driver // 1000}: update the driver or '
            f'install the extra cuda{driver // 1000}'
        )
        if too_old
        else '',
    )
    for name, module in (
        ('cuBLAS', 'cublas'),
        ('cuRAND', 'curand'),
        ('cuSOLVER', 'cusolver'),
        ('cuSPARSE', 'cusparse'),
    ):
        try:
            # CuPy opens the library on access to the attribute.
            getattr(cupy.cuda, module)
            yield Finding(name, 'found')
        except Exception as e:
            yield Finding(name, '', f'{_first_line(e)}: install the extra cuda12 or cuda13')
    try:
        nvrtc = '.'.join(map(str, cupy.cuda.nvrtc.getVersion()))
        yield Finding('NVRTC', nvrtc)
    except Exception as e:
        yield Finding('NVRTC', '', f'{_first_line(e)}: no kernel can be compiled')
    try:
        n = runtime.getDeviceCount()
    except Exception as e:
        yield Finding('GPUs', '', f'{_first_line(e)}: Chainer runs on the CPU')
        return
    names = {runtime.getDeviceProperties(i)['name'].decode() for i in range(n)}
    yield Finding(
        'GPUs',
        f'{n}: {", ".join(sorted(names))}' if n else '',
        '' if n else 'none is visible: Chainer runs on the CPU',
    )


def _cudnn(cupy: Any) -> Finding:
    fallback = 'Chainer uses im2col and cuBLAS for convolutions, which is slower'
    if int(cupy.__version__.split('.')[0]) >= 14:
        return Finding('cuDNN 8', '', f'CuPy 14 does not support it: without cuDNN 9, {fallback}')
    try:
        importlib.import_module('cupy.cudnn')
        version = importlib.import_module('cupy.cuda.cudnn').getVersion()
    except Exception as e:
        return Finding(
            'cuDNN 8',
            '',
            f'{_first_line(e)}: {fallback}. CuPy 13 needs cuDNN 8: '
            "pip install 'nvidia-cudnn-cu12<9'",
        )
    return Finding('cuDNN 8', f'{version // 1000}.{version % 1000 // 100}.{version % 100}')


def _nccl() -> Finding:
    try:
        nccl = importlib.import_module('cupy.cuda.nccl')
        if nccl.available:
            v = nccl.get_version()
            # Up to 2.8, 2708 is 2.7.8. Since 2.9, 22703 is 2.27.3.
            scale = 10000 if v >= 10000 else 1000
            return Finding('NCCL', f'{v // scale}.{v % scale // 100}.{v % 100}')
        reason = 'libnccl.so.2 was not found'
    except ImportError as e:
        reason = _first_line(e)
    return Finding(
        'NCCL',
        '',
        f'{reason}: the communicator pure_nccl, for several GPUs, is '
        'not available: install the extra cuda12 or cuda13',
    )


def _dotted(version: int) -> str:
    return f'{version // 1000}.{version % 1000 // 10}' if version else ''


def _first_line(e: Exception) -> str:
    return next(iter(str(e).strip().splitlines()), type(e).__name__)
