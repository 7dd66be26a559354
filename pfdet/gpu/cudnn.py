"""NVIDIA's Python front end of cuDNN 9: whether it can be used, and its handles.

CuPy 14 has no cuDNN. The packages ``nvidia-cudnn-frontend`` and ``nvidia-cudnn-cu13`` (or
``-cu12``) bring it. With CuPy 13 and cuDNN 8, Chainer's own functions call cuDNN, and this module
stays off.
"""

import functools
import os
import threading
from types import ModuleType
from typing import Any, NamedTuple

#: Environment variable that switches cuDNN 9 off (``0``).
SWITCH = 'PFDET_CUDNN'
#: Packages of the front end and of the library.
PACKAGES = 'nvidia-cudnn-frontend nvidia-cudnn-cu13'
_NEEDED = 'pygraph', 'create_handle', 'set_stream', 'cudnnGraphNotSupportedError', 'numerical_note'
_LEAST_VERSION = 90_000


class FrontEnd(NamedTuple):
    """What was found.

    Attributes:
        cudnn (module): The front end, or :obj:`None` if it is not used.
        meaning (str): Versions, or why it is not used.
    """

    cudnn: ModuleType | None
    meaning: str


def find() -> FrontEnd:
    """Import the front end, whether or not there is a GPU."""
    if os.environ.get(SWITCH, '').strip() == '0':
        return FrontEnd(None, f'switched off by {SWITCH}=0')
    try:
        import cudnn
    except ImportError:
        return FrontEnd(None, f'not installed; it needs {PACKAGES}')
    except Exception as e:
        return FrontEnd(None, f'{_first_line(e)}; it needs {PACKAGES}')
    version = getattr(cudnn, '__version__', 'unknown')
    missing = [name for name in _NEEDED if not hasattr(cudnn, name)]
    if missing:
        return FrontEnd(None, f'version {version} of the front end lacks {", ".join(missing)}')
    try:
        library = cudnn.backend_version()
    except Exception as e:
        return FrontEnd(None, f'libcudnn.so.9 was not found ({_first_line(e)}); install {PACKAGES}')
    if library < _LEAST_VERSION:
        return FrontEnd(None, f'the library has version {library}; expected at least 9.0')
    dotted = f'{library // 10_000}.{library % 10_000 // 100}.{library % 100}'
    return FrontEnd(cudnn, f'{dotted}, front end {version}')


@functools.lru_cache(maxsize=1)
def front_end() -> ModuleType | None:
    """The front end if it is to be used in this process; otherwise :obj:`None`.

    It is used with a GPU, unless Chainer calls cuDNN itself.
    """
    from chainer.backends import cuda

    if not cuda.available or cuda.cudnn_enabled:
        return None
    return find().cudnn


_handles = threading.local()


def handle(cudnn: ModuleType) -> Any:
    """The cuDNN handle of this thread and the current device, on CuPy's current stream.

    Args:
        cudnn (module): The front end.
    """
    from chainer.backends.cuda import cupy

    by_device = _handles.__dict__.setdefault('by_device', {})
    device = cupy.cuda.runtime.getDevice()
    if device not in by_device:
        by_device[device] = cudnn.create_handle()
    cudnn.set_stream(by_device[device], cupy.cuda.get_current_stream().ptr)
    return by_device[device]


def _first_line(e: Exception) -> str:
    return next(iter(str(e).strip().splitlines()), type(e).__name__)
