"""Plots of the statistics of a data set, as in Figures 2 and 3 of Peng et al. (2020)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import scipy.sparse as sp
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.sparse.csgraph import connected_components

from pfdet.atomic_write import replace_when_done
from pfdet.openimages.concurrent_rates import ConfusedPair
from pfdet.openimages.count_axis import label_counts

_INK, _MUTED, _LINE = '#1f2933', '#5f6b7a', '#d9dee5'
_BLUE, _LIGHT, _ORANGE, _GREY = '#2b6cb0', '#9ec5e8', '#dd6b20', '#cbd2da'
_SERIES = (_BLUE, _ORANGE, '#2f855a', '#805ad5', '#b83280')
_STYLE = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'pfdet',
    'text.parse_math': False,
    'font.size': 9,
    'text.color': _INK,
    'axes.labelcolor': _MUTED,
    'xtick.color': _MUTED,
    'ytick.color': _INK,
    'axes.edgecolor': _LINE,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.titlesize': 11,
    'axes.titleweight': 'bold',
    'axes.titlelocation': 'left',
    'axes.grid': True,
    'grid.color': _LINE,
    'grid.linewidth': 0.7,
    'axes.axisbelow': True,
    'xtick.major.size': 3,
    'ytick.major.size': 0,
    'figure.dpi': 100,
}
_BAR_HEIGHT = 0.19  # inches per row of a bar chart


def save(figure: Figure, path: Path) -> None:
    """Write a figure as ``path.svg`` and ``path.png``. Each file appears when it is complete.

    Args:
        figure (matplotlib.figure.Figure): The figure.
        path (pathlib.Path): The path without a suffix.

    Raises:
        OSError: If a file cannot be written.
    """
    with matplotlib.rc_context(_STYLE):
        for suffix, metadata in (
            ('.svg', {'Date': None, 'Creator': None}),
            ('.png', {'Software': None}),
        ):
            with replace_when_done(path.with_name(path.name + suffix)) as unfinished:
                figure.savefig(unfinished, dpi=150, metadata=metadata)


def images_per_class(series: Sequence[tuple[str, np.ndarray]], names: Sequence[str]) -> Figure:
    """Plot the number of images per class in descending order, as in Figure 2.

    Args:
        series (sequence of pairs): Name of a data set, and its numbers of images per class. One
            pair per curve.
        names (sequence of str): Class names of the first data set.

    Returns:
        matplotlib.figure.Figure: Number of images, on a logarithmic scale, over the rank.
    """
    figure, ax = _figure(9, 4.2)
    with matplotlib.rc_context(_STYLE):
        for k, (title, images) in enumerate(series):
            images = np.asarray(images)
            order = np.argsort(-images, kind='stable')[: np.count_nonzero(images)]
            if not len(order):
                continue
            colour = _SERIES[k % len(_SERIES)]
            count = images[order]
            edges = np.arange(len(order) + 1) + 0.5
            ax.stairs(
                count,
                edges,
                color=colour,
                linewidth=1.6,
                label=f'{title}: {len(order)} classes, largest : smallest = '
                f'{count[0] / count[-1]:,.0f} : 1',
            )
            ax.stairs(count, edges, color=colour, fill=True, alpha=0.12)
            if k == 0:
                _annotate_ends(ax, count, [names[i] for i in order])
        if ax.patches:
            ax.set_yscale('log')
            label_counts(ax.yaxis)
            ax.legend(frameon=False, loc='upper right')
        else:
            _show_text(ax, 'no image has a box')
        ax.set_title('Images per class')
        ax.set_xlabel('classes, most frequent first')
        ax.set_ylabel('images')
        ax.set_xlim(left=0)
        ax.grid(axis='x', visible=False)
    return figure


def _annotate_ends(ax: Axes, count: np.ndarray, names: Sequence[str]) -> None:
    for rank, offset, align in ((1, (14, 2), 'left'), (len(count), (-14, 0), 'right')):
        ax.annotate(
            f'{names[rank - 1]} {count[rank - 1]:,}',
            (rank, count[rank - 1]),
            offset,
            textcoords='offset points',
            ha=align,
            va='center',
            fontsize=8.5,
            color=_MUTED,
        )


def pair_bars(
    pairs: Sequence[ConfusedPair], names: Sequence[str], threshold: float = 0.0
) -> Figure:
    """Plot the concurrent rates of confused pairs, as in Figure 3a.

    Args:
        pairs (sequence of ConfusedPair): By descending rate. Both directions of a pair share one
            bar. The lower rate is a mark on it.
        names (sequence of str): Class names.
        threshold (float): Minimum rate of a pair, drawn as a line.

    Returns:
        matplotlib.figure.Figure: One bar per unordered pair.
    """
    shown = list({frozenset((p.i, p.j)): p for p in reversed(pairs)}.values())[::-1]
    figure, ax = _figure(9, 1.1 + _BAR_HEIGHT * max(len(shown), 3))
    with matplotlib.rc_context(_STYLE):
        ax.set_title('Objects of one class labelled as another')
        if not shown:
            _show_text(ax, f'no pair of leaf classes has a rate of {threshold:g} or more')
            return figure
        rows = np.arange(len(shown))
        ax.barh(rows, [p.rate for p in shown], height=0.7, color=_BLUE, label='first as second')
        ax.plot(
            [p.reverse for p in shown],
            rows,
            '|',
            color=_ORANGE,
            markersize=8,
            markeredgewidth=2.2,
            label='second as first',
        )
        ax.axvline(threshold, color=_MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        for y, p in zip(rows, shown):
            ax.annotate(
                f'{p.rate:.0%}',
                (max(p.rate, p.reverse), y),
                (5, 0),
                textcoords='offset points',
                va='center',
                fontsize=8,
                color=_MUTED,
            )
        _label_rows(ax, [f'{names[p.i]} as {names[p.j]}' for p in shown])
        ax.set_xlabel('concurrent rate')
        ax.set_xlim(0, 1.06)
        ax.legend(frameon=False, loc='lower right')
    return figure


def confusion_matrix(
    rates: np.ndarray, pairs: Sequence[ConfusedPair], names: Sequence[str]
) -> Figure:
    """Plot the matrix of concurrent rates of the classes in confused pairs.

    Args:
        rates (array): ``(C, C)``, :math:`r_{ij}` in row i, column j.
        pairs (sequence of ConfusedPair): Pairs whose classes are shown. Classes that are confused
            with each other are adjacent.
        names (sequence of str): Class names.

    Returns:
        matplotlib.figure.Figure: A heat map.
    """
    chosen = np.unique([c for p in pairs for c in (p.i, p.j)]).astype(int)
    if not len(chosen):
        figure, ax = _figure(5, 1.6)
        with matplotlib.rc_context(_STYLE):
            ax.set_title('Concurrent rates')
            _show_text(ax, 'no confused pair')
        return figure
    edges = sp.coo_array(
        (
            [1] * len(pairs),
            (
                np.searchsorted(chosen, [p.i for p in pairs]),
                np.searchsorted(chosen, [p.j for p in pairs]),
            ),
        ),
        (len(chosen),) * 2,
    )
    cluster = connected_components(edges, directed=False)[1]
    chosen = chosen[np.lexsort((chosen, cluster, -np.bincount(cluster)[cluster]))]
    side = max(2.4, 0.175 * len(chosen))
    figure, ax = _figure(side + 2.4, side + 2.0)
    with matplotlib.rc_context(_STYLE):
        image = ax.imshow(
            np.ma.masked_equal(rates[np.ix_(chosen, chosen)], 0), vmin=-0.08, vmax=1, cmap='Blues'
        )
        labels = [names[c] for c in chosen]
        ax.set_xticks(range(len(chosen)), labels, rotation=90, fontsize=8, color=_INK)
        ax.set_yticks(range(len(chosen)), labels, fontsize=8)
        ax.tick_params(length=0)
        ax.set_xticks(np.arange(len(chosen) + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(len(chosen) + 1) - 0.5, minor=True)
        ax.tick_params(which='minor', length=0)
        ax.grid(False)
        ax.grid(which='minor', color=_LINE, linewidth=0.5)
        ax.set_title('Concurrent rates')
        ax.set_ylabel('objects of the class')
        ax.set_xlabel('that are labelled as')
        bar = figure.colorbar(
            image, ax=ax, shrink=0.5, aspect=30, pad=0.01, format=PercentFormatter(1, 0)
        )
        bar.outline.set_visible(False)
        bar.ax.set_ylim(0, 1)
    return figure


def parent_bars(
    objects: np.ndarray,
    without_descendant: np.ndarray,
    without_leaf: np.ndarray,
    names: Sequence[str],
) -> Figure:
    """Plot the share of each parent class's objects without a more specific label (Figure 3b).

    Args:
        objects (array): ``(P,)``, number of objects of each parent class. Parents without objects
            are not shown.
        without_descendant (array): ``(P,)``, number of these without a label of a descendant.
        without_leaf (array): ``(P,)``, number of these without a label of a leaf class.
        names (sequence of str): Names of the ``P`` parents.

    Returns:
        matplotlib.figure.Figure: One bar per parent, by descending share without a leaf label.
    """
    shown = np.flatnonzero(objects)
    alone, no_leaf = (part[shown] / objects[shown] for part in (without_descendant, without_leaf))
    order = np.lexsort((-objects[shown], -alone, -no_leaf))
    shown, alone, no_leaf = shown[order], alone[order], no_leaf[order]
    figure, ax = _figure(9, 1.2 + _BAR_HEIGHT * max(len(shown), 3))
    with matplotlib.rc_context(_STYLE):
        ax.set_title('Labels of the objects of parent classes')
        if not len(shown):
            _show_text(ax, 'no object of a parent class')
            return figure
        rows = np.arange(len(shown))
        for left, width, colour, label in (
            (0, alone, _ORANGE, 'the parent only'),
            (alone, no_leaf - alone, '#f6c28b', 'an intermediate class, no leaf'),
            (no_leaf, 1 - no_leaf, _LIGHT, 'a leaf'),
        ):
            ax.barh(rows, width, left=left, height=0.74, color=colour, label=label)
        for y, k in zip(rows, shown):
            ax.annotate(
                f'{objects[k]:,}',
                (1, y),
                (4, 0),
                textcoords='offset points',
                va='center',
                fontsize=8,
                color=_MUTED,
            )
        _label_rows(ax, [names[k] for k in shown])
        ax.set_xlabel('share of the objects (number of objects on the right)')
        ax.set_xlim(0, 1)
        ax.legend(
            frameon=False, loc='upper center', bbox_to_anchor=(0.5, 0), ncols=3, borderaxespad=3.6
        )
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout='constrained')
        FigureCanvasAgg(figure)
        return figure, figure.subplots()


def _label_rows(ax: Axes, labels: Sequence[str]) -> None:
    ax.set_yticks(range(len(labels)), labels, fontsize=8)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
    ax.grid(axis='y', visible=False)


def _show_text(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, ha='center', va='center', transform=ax.transAxes, color=_MUTED)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
