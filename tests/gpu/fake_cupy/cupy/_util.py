"""Of CuPy's module of this name, what Chainer imports."""


class PerformanceWarning(RuntimeWarning):
    """Never given."""
