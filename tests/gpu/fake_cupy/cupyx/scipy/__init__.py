"""The parts of ``cupyx.scipy`` that Chainer imports."""

from cupyx.scipy import linalg, special  # noqa: F401
