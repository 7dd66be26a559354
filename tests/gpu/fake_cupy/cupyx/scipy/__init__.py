"""What Chainer imports of CuPy's SciPy."""

from cupyx.scipy import linalg, special  # noqa: F401
