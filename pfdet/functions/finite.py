"""Whether values of an iteration are finite, found out without waiting for the GPU.

The proposals and the gradients are reduced to one number each on their device. The numbers are
reported like the terms of the loss, averaged over ranks with them, and checked with them
(:class:`~pfdet.training.finite_loss.FiniteLoss`).
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence

from chainer.backends import cuda

from pfdet.boxes.arrays import Array

#: Prefix of the reports.
PREFIX = 'finite/'
#: Names of the reports.
PROPOSALS = PREFIX + 'proposals'
GRADIENTS = PREFIX + 'gradients'


def nan_unless_finite(*arrays: Array) -> Array:
    """Reduce arrays to a number that is 0 if all values are finite, and otherwise not a number.

    Args:
        arrays (arrays): Floating-point arrays on one device.

    Returns:
        array: A float32 scalar on that device.
    """
    xp = cuda.get_array_module(*arrays)
    finite = xp.stack([xp.isfinite(a).all() for a in arrays]).all()
    return xp.where(finite, xp.float32(0), xp.float32('nan'))


def nan_unless_squares_finite(arrays: Sequence[Array]) -> Array:
    """The same for many values, several times as fast, but NaN also if a sum of squares overflows.

    Args:
        arrays (sequence of arrays): Floating-point arrays on one device.

    Returns:
        array: A float32 scalar on that device.
    """
    xp = cuda.get_array_module(*arrays)
    if not arrays:
        return xp.zeros((), 'f')
    return nan_unless_finite(xp.stack([xp.vdot(a, a) for a in arrays]))


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """Within the block, NumPy does not warn of values that are not finite: they are an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            'ignore', '(overflow|invalid value|divide by zero) encountered', RuntimeWarning
        )
        yield
