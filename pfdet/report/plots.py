"""The report's curves: training, precision and recall, AP against class frequency."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pfdet.report.plot_style import FG, MUTED, SERIES, draw_svg


def loss_curves(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Draw every loss against the iteration, the sum strongest.

    Args:
        log (sequence of dicts): Entries of Chainer's ``LogReport``.

    Returns:
        str: SVG, or :obj:`None` without any loss in the log.
    """
    names = [k for k in _keys(log) if k.startswith('main/') and 'loss' in k]
    names.sort(key=lambda k: (k != 'main/loss', k))
    if not names:
        return None

    def draw(ax: Axes) -> None:
        for k, name in enumerate(names):
            x, y = series_of(log, name)
            colour = SERIES[k % len(SERIES)]
            strong = name == 'main/loss'
            window = max(1, len(y) // 40)
            if window > 2:
                ax.plot(x, y, color=colour, linewidth=0.7, alpha=0.3)
                y = _running_mean(y, window)
            ax.plot(
                x,
                y,
                color=colour,
                linewidth=2 if strong else 1.3,
                label=name.removeprefix('main/'),
                marker='o' if len(y) == 1 else None,
            )
        ax.set_ylim(bottom=0)
        ax.legend(loc='upper right', ncols=2)
        _of_iteration(ax)

    return draw_svg(draw, 'losses', width=9.6, height=3.2)


def lr_curve(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Draw the learning rate; arguments and result as of :func:`loss_curves`."""
    if 'lr' not in _keys(log):
        return None

    def draw(ax: Axes) -> None:
        x, y = series_of(log, 'lr')
        ax.plot(x, y, color=SERIES[3], linewidth=1.6, marker='o' if len(y) == 1 else None)
        ax.set_ylim(bottom=0)
        _of_iteration(ax)

    return draw_svg(draw, 'lr', width=4.7, height=2.2)


def map_curve(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Draw validation mAP over training; arguments and result as of :func:`loss_curves`."""
    names = [k for k in _keys(log) if k.lower().rsplit('/', 1)[-1] in ('map', 'mean_ap')]
    if not names:
        return None

    def draw(ax: Axes) -> None:
        x, y = series_of(log, names[0])
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
        _of_iteration(ax)

    return draw_svg(draw, 'map', width=4.7, height=2.2)


def precision_recall_curves(
    precision: Mapping[str, Sequence[float]], names: Mapping[str, str]
) -> str | None:
    """Draw precision against recall for a few classes.

    Args:
        precision (dict): From class to its precision at equally spaced recalls from 0 to 1.
        names (dict): From class to what to call it.

    Returns:
        str: SVG, or :obj:`None` without a class.
    """
    if not precision:
        return None

    def draw(ax: Axes) -> None:
        for k, (key, values) in enumerate(precision.items()):
            recall = np.linspace(0, 1, len(values))
            # The curve ends where the class's recall does.
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
    """Draw validation mAP over training for several recipes (Concurrent softmax, figure 4).

    Args:
        series (dict): From the name of a recipe to the curves of its runs, each a pair of epochs
            and mAP in [0, 1], both :math:`(n,)`. Runs of a recipe that were validated at the same
            epochs are drawn faintly, and their mean strongly.
        salt (str): Keeps the figures of a page apart.

    Returns:
        str: SVG, or :obj:`None` without a curve.
    """
    series = {name: curves for name, curves in series.items() if curves}
    if not series:
        return None

    def draw(ax: Axes) -> None:
        for k, (name, curves) in enumerate(series.items()):
            # More series than colours are told apart by their strokes.
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
            strong = dict(color=colour, linewidth=1.7, marker='o', markersize=3)
            for j, (epoch, value) in enumerate(_means(curves)):
                ax.plot(epoch, 100 * np.asarray(value), stroke, label=None if j else name, **strong)
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
    most_named: int = 60,
    window: int = 15,
) -> str | None:
    """Draw AP by class, the class with the most images first (Concurrent softmax, figure 5).

    Below it stands how many images each class has.

    Args:
        images (dict): From class to its number of images.
        series (dict): From the name of a recipe to AP in [0, 1] by class. Classes without AP in
            one of them are left out.
        names (dict): From class to what to call it.
        salt (str): Keeps the figures of a page apart.
        unit (str): What ``images`` counts.
        most_named (int): Up to so many classes are named; of more, their rank stands there, and
            single classes are dots with a running mean through them.
        window (int): Classes that the running mean is over.

    Returns:
        str: SVG, or :obj:`None` without a class.
    """
    mids = [mid for mid in images if all(s.get(mid) is not None for s in series.values())]
    if not mids or not series:
        return None
    mids.sort(key=lambda mid: -images[mid])
    named = len(mids) <= most_named
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
        below.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:,.0f}'))
        below.set_ylabel(unit)
        below.minorticks_off()
        below.set_xlim(0.3, len(mids) + 0.7)
        if named:
            below.set_xticks(rank, [names.get(mid, mid) for mid in mids], rotation=90, fontsize=9)
        else:
            below.set_xlabel('rank of the class, that with the most images first')

    return draw_svg(draw, salt, 9.6, 5 if named else 4.4, panels=(3, 1.2))


def _means(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    # Of curves with the same epochs the mean.
    together: dict[bytes, list[tuple[np.ndarray, np.ndarray]]] = {}
    for epoch, value in curves:
        together.setdefault(np.round(epoch, 3).tobytes(), []).append((epoch, value))
    return [
        (same[0][0], np.mean([value for _, value in same], axis=0)) for same in together.values()
    ]


def _centred_mean(y: np.ndarray, window: int) -> np.ndarray:
    # Over as many as there are at either end.
    ones = np.ones(min(window, len(y)))
    return np.convolve(y, ones, 'same') / np.convolve(np.ones(len(y)), ones, 'same')


def _of_iteration(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.0f}'))
    ax.set_xlabel('iteration')


def _keys(log: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for entry in log for k in entry))


def series_of(log: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and values of the entries of a log that have a value, :math:`(n,)` each."""
    points = [
        (entry.get('iteration', i), entry[name])
        for i, entry in enumerate(log, 1)
        if entry.get(name) is not None
    ]
    x, y = np.array(points, np.float64).T
    return x, y


def _running_mean(y: np.ndarray, window: int) -> np.ndarray:
    # Over the window's values so far at the beginning, so that nothing is invented there.
    y = np.nan_to_num(y)
    total = np.concatenate(([0], np.cumsum(y)))
    end = np.arange(1, len(y) + 1)
    begin = np.maximum(end - window, 0)
    return (total[end] - total[begin]) / (end - begin)
