"""A logarithmic axis of counts with a few plain numbers, however narrow its range."""

import math

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, NullLocator

_MIN_TICKS = 3
_MAX_TICKS = 9


class CountLocator(Locator):
    """Ticks at powers of ten, or between them where fewer than three are in the range."""

    def __call__(self) -> np.ndarray:
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> np.ndarray:
        """The ticks from ``vmin`` to ``vmax``, whole numbers from 1."""
        low, high = max(min(vmin, vmax), 1), max(vmin, vmax, 1)
        decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in (1,), (1, 2, 5):
            ticks = np.outer(decades, factors).ravel()
            ticks = ticks[(ticks >= low) & (ticks <= high)]
            if len(ticks) >= _MIN_TICKS:
                return ticks[:: -(-len(ticks) // _MAX_TICKS)]
        ticks = MaxNLocator(5, integer=True).tick_values(low, high)
        return ticks[(ticks >= low) & (ticks <= high) & (ticks == np.rint(ticks))]


def label_counts(axis: Axis) -> None:
    """Set the ticks and labels of a logarithmic axis.

    Args:
        axis (matplotlib.axis.Axis): Such as ``ax.yaxis``.
    """
    axis.set_major_locator(CountLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,.0f}'))
    # Matplotlib labels minor ticks where the range is short, as powers of ten.
    axis.set_minor_locator(NullLocator())
