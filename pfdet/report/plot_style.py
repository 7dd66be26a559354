"""Plot style: inline SVG that uses the colours and the font of the HTML page.

Colours are CSS variables (``--fg``, ``--line``, ``--c1`` ...), so plots follow light and dark mode.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from pfdet.printable import printable

# Placeholder colours for matplotlib, replaced by CSS variables in the SVG.
_VARIABLES = {'#010101': '--fg', '#020202': '--line', '#030303': '--muted'}
#: Colours of series, in order.
SERIES = [f'#0404{k:02x}' for k in range(1, 9)]
_VARIABLES.update({colour: f'--c{k}' for k, colour in enumerate(SERIES, 1)})
#: Colours of text, of grid lines, and of secondary text.
FG, LINE, MUTED = list(_VARIABLES)[:3]
_STYLE: dict[Any, Any] = {
    'svg.fonttype': 'none',
    'font.size': 10,
    'text.parse_math': False,
    'text.color': FG,
    'axes.labelcolor': MUTED,
    'xtick.color': MUTED,
    'ytick.color': MUTED,
    'axes.edgecolor': LINE,
    'axes.facecolor': 'none',
    'figure.facecolor': 'none',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.spines.left': False,
    'axes.grid': True,
    'axes.grid.axis': 'y',
    'grid.color': LINE,
    'grid.linewidth': 0.8,
    'axes.axisbelow': True,
    'xtick.major.size': 3,
    'ytick.major.size': 0,
    'lines.solid_capstyle': 'round',
    'lines.solid_joinstyle': 'round',
    'legend.frameon': False,
    'legend.labelcolor': FG,
    'legend.fontsize': 9,
}


def draw_svg(
    draw: Callable, salt: str, width: float, height: float, panels: Sequence[float] = (1,)
) -> str:
    """Draw a plot as SVG without a fixed size, so that it takes the width of its column.

    Args:
        draw (callable): Called with the axes, one per panel.
        salt (str): Makes the SVG ids unique within a page.
        width, height (float): Size in inches of 72 points. The font size is 10 points.
        panels (sequence of float): Relative heights of the panels, which share the horizontal axis.

    Returns:
        str: SVG element.
    """
    with matplotlib.rc_context({**_STYLE, 'svg.hashsalt': salt}):
        figure = Figure(figsize=(width, height), layout='constrained')
        axes = figure.subplots(
            len(panels), sharex=True, squeeze=False, gridspec_kw={'height_ratios': list(panels)}
        )
        draw(*axes[:, 0])
        buffer = io.StringIO()
        figure.savefig(buffer, format='svg', metadata={'Date': None, 'Creator': None})
    return _for_page(buffer.getvalue())


def _for_page(svg: str) -> str:
    svg = '\n'.join(map(printable, svg[svg.index('<svg') :].split('\n')))
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    # Without width and height, the SVG scales to its column. The viewBox keeps the proportions.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', '<g', svg)
    svg = re.sub(r'font: ([\d.]+)px [^;"]*', r'font-size: \1px; font-family: inherit', svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f'var({variable})')
    return svg
