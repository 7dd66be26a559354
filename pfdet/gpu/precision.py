"""TensorFloat-32: products of float32 numbers rounded to 10 bits of mantissa, on tensor cores."""

import numpy as np

_enabled = False


def allow_tf32(allowed: bool) -> None:
    """Choose whether convolutions and matrix products in float32 may use TF32, in this process.

    Without this call they may not: all products are exact to float32. Convolutions are those of
    cuDNN 9; cuDNN 8, which Chainer calls with CuPy 13, decides for itself, and uses TF32 unless the
    environment has ``NVIDIA_TF32_OVERRIDE=0``. Without a GPU, nothing changes.
    """
    global _enabled
    _enabled = allowed
    from chainer.backends import cuda

    if not cuda.available:
        return
    try:
        from cupy._core import _routines_linalg as linalg
    except ImportError:
        # The fake CuPy of the tests, whose products are NumPy's.
        return
    linalg.set_compute_type(
        np.float32, linalg.COMPUTE_TYPE_TF32 if allowed else linalg.COMPUTE_TYPE_DEFAULT
    )


def tf32_allowed() -> bool:
    """Whether TF32 may be used."""
    return _enabled


def uses_tensor_cores(dtype: np.dtype) -> bool:
    """Whether convolutions of this type run on tensor cores."""
    return dtype == np.float16 or (dtype == np.float32 and _enabled)
