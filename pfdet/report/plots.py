"""Plots of a report: training curves, precision-recall curves, AP against class frequency."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pfdet.openimages.count_axis import label_counts
from pfdet.report.plot_style import FG, MUTED, SERIES, draw_svg


def loss_curves(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Plot all losses over iterations, with the total loss as the thickest line.

    Args:
        log (sequence of dicts): Entries of Chainer's ``LogReport``.

    Returns:
        str: SVG, or :obj:`None` if the log has no loss.
    """
    names = [k for k in _keys(log) if k.startswith('main/') and 'loss' in k]
    names.sort(key=lambda k: (k != 'main/loss', k))
    if not names:
        return None

    def draw(ax: Axes) -> None:
        for k, name in enumerate(names):
            x, y = logged_values(log, name)
            colour = SERIES[k % len(SERIES)]
            window = max(1, len(y) // 40)
            if window > 2:
                ax.plot(x, y, color=colour, linewidth=0.7, alpha=0.3)
                y = _running_mean(y, window)
            ax.plot(
                x,
                y,
                color=colour,
                linewidth=2 if name == 'main/loss' else 1.3,
                label=name.removeprefix('main/'),
                marker='o' if len(y) == 1 else None,
            )
        ax.set_ylim(bottom=0)
        ax.legend(loc='upper right', ncols=2)
        _set_iteration_axis(ax)

    return draw_svg(draw, 'losses', width=9.6, height=3.2)


def lr_curve(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Plot the learning rate over iterations.

    Args:
        log (sequence of dicts): Entries of Chainer's ``LogReport``.

    Returns:
        str: SVG, or :obj:`None` if the log has no learning rate.
    """
    if 'lr' not in _keys(log):
        return None

    def draw(ax: Axes) -> None:
        x, y = logged_values(log, 'lr')
        ax.plot(x, y, color=SERIES[3], linewidth=1.6, marker='o' if len(y) == 1 else None)
        ax.set_ylim(bottom=0)
        _set_iteration_axis(ax)

    return draw_svg(draw, 'lr', width=4.7, height=2.2)


def map_curve(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Plot the validation mAP over iterations.

    Args:
        log (sequence of dicts): Entries of Chainer's ``LogReport``.

    Returns:
        str: SVG, or :obj:`None` if the log has no mAP.
    """
    names = [k for k in _keys(log) if k.lower().rsplit('/', 1)[-1] in ('map', 'mean_ap')]
    if not names:
        return None

    def draw(ax: Axes) -> None:
        x, y = logged_values(log, names[0])
        ax.plot(x, y, color=SERIES[0], linewidth=1.8, marker='o', markersize=4)
        ax.annotate(
            f'{y[-1]:.3f}',
            (x[-1], y[-1]),
            (0, 6),
            textcoords='offset points',
            ha='center',
            color=FG,
        )
        ax.set_ylim(0, max(0.05, y.max() * 1.25))
        _set_iteration_axis(ax)

    return draw_svg(draw, 'map', width=4.7, height=2.2)


def precision_recall_curves(
    precision: Mapping[str, Sequence[float]], names: Mapping[str, str]
) -> str | None:
    """Plot precision over recall for some classes.

    Args:
        precision (dict): From MID to precision at equally spaced recalls from 0 to 1.
        names (dict): From MID to label in the legend.

    Returns:
        str: SVG, or :obj:`None` without classes.
    """
    if not precision:
        return None

    def draw(ax: Axes) -> None:
        for k, (key, values) in enumerate(precision.items()):
            recall = np.linspace(0, 1, len(values))
            # The curve ends at the highest recall of the class.
            n = max(1, int(np.count_nonzero(values)))
            ax.plot(
                recall[:n],
                values[:n],
                color=SERIES[k % len(SERIES)],
                linewidth=1.6,
                label=names[key],
            )
            ax.plot(
                recall[n - 1], values[n - 1], 'o', color=SERIES[k % len(SERIES)], markersize=3.5
            )
        ax.set_xlim(0, 1.01)
        ax.set_ylim(0, 1.03)
        ax.set_xlabel('recall')
        ax.set_ylabel('precision')
        ax.legend(loc='center left', bbox_to_anchor=(1, 0.5))

    return draw_svg(draw, 'precision-recall', width=9.6, height=3.6)


def map_over_epochs(
    series: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], salt: str
) -> str | None:
    """Plot validation mAP over epochs for several recipes (Peng et al., 2020, figure 4).

    The curves of single runs are thin. The mean over runs with the same epochs is thick.

    Args:
        series (dict): From the name of a recipe to the curves of its runs, each a pair of epochs
            and mAP in [0, 1], both :math:`(n,)`.
        salt (str): Makes the SVG ids unique within a page.

    Returns:
        str: SVG, or :obj:`None` without curves.
    """
    series = {name: curves for name, curves in series.items() if curves}
    if not series:
        return None

    def draw(ax: Axes) -> None:
        for k, (name, curves) in enumerate(series.items()):
            # If there are more series than colours, line styles distinguish them.
            stroke = ('-', '--', ':')[k // len(SERIES) % 3]
            colour = SERIES[k % len(SERIES)]
            if len(curves) > 1:
                for epoch, value in curves:
                    ax.plot(
                        epoch,
                        100 * np.asarray(value),
                        stroke,
                        color=colour,
                        linewidth=0.9,
                        alpha=0.45,
                    )
            for j, (epoch, value) in enumerate(_mean_curves(curves)):
                ax.plot(
                    epoch,
                    100 * np.asarray(value),
                    stroke,
                    label=None if j else name,
                    color=colour,
                    linewidth=1.7,
                    marker='o',
                    markersize=3,
                )
        ax.set_xlim(left=0)
        ax.set_xlabel('epoch')
        ax.set_ylabel('validation mAP (%)')
        ax.legend(loc='center left', bbox_to_anchor=(1, 0.5))

    return draw_svg(draw, salt, width=9.6, height=3.6)


def ap_against_frequency(
    images: Mapping[str, int],
    series: Mapping[str, Mapping[str, float | None]],
    names: Mapping[str, str],
    salt: str,
    unit: str = 'training images',
    max_named: int = 60,
    window: int = 15,
) -> str | None:
    """Plot AP by class, most frequent class first (Peng et al., 2020, figure 5).

    A second panel shows the number of images of each class.

    Args:
        images (dict): From MID to number of images.
        series (dict): From the name of a recipe to its AP in [0, 1] by MID. Classes without AP in
            one of the recipes are omitted.
        names (dict): From MID to class name.
        salt (str): Makes the SVG ids unique within a page.
        unit (str): What ``images`` counts, for the axis label.
        max_named (int): With up to this many classes, the axis shows their names. With more, it
            shows their rank, and a running mean is drawn.
        window (int): Number of classes in the running mean.

    Returns:
        str: SVG, or :obj:`None` without classes.
    """
    mids = [mid for mid in images if all(s.get(mid) is not None for s in series.values())]
    if not mids or not series:
        return None
    mids.sort(key=lambda mid: -images[mid])
    named = len(mids) <= max_named
    rank = np.arange(1, len(mids) + 1)

    def draw(ax: Axes, below: Axes) -> None:
        for k, (name, aps) in enumerate(series.items()):
            ap = 100 * np.array([aps[mid] for mid in mids])
            if named:
                ax.plot(rank, ap, 'o-', color=SERIES[k], linewidth=1.1, markersize=4, label=name)
            else:
                ax.plot(rank, ap, '.', color=SERIES[k], alpha=0.35, markersize=3)
                ax.plot(
                    rank,
                    _centred_mean(ap, window),
                    color=SERIES[k],
                    linewidth=1.8,
                    label=f'{name}, mean over {window} classes',
                )
        ax.set_ylim(-3, 103)
        ax.set_ylabel('AP (%)')
        if len(series) > 1 or not named:
            ax.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
        below.bar(rank, [images[mid] for mid in mids], color=MUTED, width=0.8, alpha=0.6)
        below.set_yscale('log')
        label_counts(below.yaxis)
        below.set_ylabel(unit)
        below.set_xlim(0.3, len(mids) + 0.7)
        if named:
            below.set_xticks(rank, [names.get(mid, mid) for mid in mids], rotation=90, fontsize=9)
        else:
            below.set_xlabel('rank of the class, most frequent first')

    return draw_svg(draw, salt, 9.6, 5 if named else 4.4, panels=(3, 1.2))


def _mean_curves(
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
) -> list[tuple[np.ndarray, np.ndarray]]:
    # Averages the curves that have the same epochs.
    groups: dict[bytes, list[tuple[np.ndarray, np.ndarray]]] = {}
    for epoch, value in curves:
        groups.setdefault(np.round(epoch, 3).tobytes(), []).append((epoch, value))
    return [
        (group[0][0], np.mean([value for _, value in group], axis=0)) for group in groups.values()
    ]


def _centred_mean(y: np.ndarray, window: int) -> np.ndarray:
    # The window is truncated at both ends.
    ones = np.ones(min(window, len(y)))
    return np.convolve(y, ones, 'same') / np.convolve(np.ones(len(y)), ones, 'same')


def _set_iteration_axis(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.0f}'))
    ax.set_xlabel('iteration')


def _keys(log: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for entry in log for k in entry))


def logged_values(log: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the values of one key from a log.

    Args:
        log (sequence of dicts): Entries of Chainer's ``LogReport``.
        name (str): The key. At least one entry must have it.

    Returns:
        pair of arrays: Iterations and values of the entries that have the key, both :math:`(n,)`.
    """
    points = [
        (entry.get('iteration', i), entry[name])
        for i, entry in enumerate(log, 1)
        if entry.get(name) is not None
    ]
    x, y = np.array(points, np.float64).T
    return x, y


def _running_mean(y: np.ndarray, window: int) -> np.ndarray:
    # Mean over the last values; the window is truncated at the beginning.
    y = np.nan_to_num(y)
    total = np.concatenate(([0], np.cumsum(y)))
    end = np.arange(1, len(y) + 1)
    begin = np.maximum(end - window, 0)
    return (total[end] - total[begin]) / (end - begin)
