"""The parts of ``cupy._util`` that Chainer imports."""


class PerformanceWarning(RuntimeWarning):
    """Never raised."""
