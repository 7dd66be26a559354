"""The plots of the study as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.evaluation.run_directory import Run
from pfdet.openimages.classes import Classes
from pfdet.report.comparison_plots import map_curve_of, mean_ap
from study.findings import Finding

_GREY, _BLUE, _RED, _YELLOW = '#9a9a9a', '#1f6fb4', '#c0504d', '#e0a030'


def plot_claims(results: Sequence[Finding], out: Path) -> bool:
    """Plot the difference of each claim in the paper and in the study, with every seed.

    Returns:
        bool: Whether the file was written.
    """
    results = [f for f in results if f.values]
    if not results:
        return False
    figure, ax = _figure(9, 0.6 + 0.27 * len(results))
    for y, f in enumerate(reversed(results)):
        ax.plot(f.differences, [y] * len(f.differences), '|', color=_BLUE, ms=9, mew=1.2)
        colour = _RED if f.verdict.startswith('not') else _BLUE
        ax.plot(f.mean, y, 'o', color=colour, ms=5)
        if f.claim.paper is not None:
            ax.plot(f.claim.paper, y, 'D', color=_GREY, ms=5, mfc='none')
    ax.axvline(0, color='0.6', lw=0.8)
    ax.set_yticks(range(len(results)), [f.claim.text for f in reversed(results)], fontsize=8)
    ax.set_xscale('symlog', linthresh=5)
    ax.set_xticks(
        [-20, -10, -5, -2, 0, 2, 5, 10, 20], ['-20', '-10', '-5', '-2', '0', '2', '5', '10', '20']
    )
    ax.set_xlabel('difference in points of AP (diamond: paper, dot: mean here, bars: seeds)')
    ax.grid(axis='y', color='0.9')
    _save(figure, out)
    return True


def plot_lambda(runs: Sequence[Run], out: Path) -> bool:
    """Plot validation mAP over epochs by lambda (Peng et al. (2020), Figure 4).

    Returns:
        bool: Whether the file was written.
    """
    names = {
        'cs-table3-non-balance': 'no balance',
        **{f'cs-table3-soft-{x}': f'lambda {x}' for x in (0.3, 0.5, 0.7, 1.0, 1.5)},
    }
    curves = []
    for name, text in names.items():
        of_seeds = [map_curve_of(run) for run in runs if run.name == name]
        of_seeds = [curve for curve in of_seeds if curve is not None]
        if of_seeds:
            epoch, first = of_seeds[0]
            values = [value for _, value in of_seeds if len(value) == len(first)]
            curves.append((text, epoch, np.mean(values, axis=0)))
    if len(curves) < 2:
        return False
    figure, ax = _figure(7, 3.6)
    colours = matplotlib.colormaps['viridis'](np.linspace(0, 0.9, len(curves)))
    for (text, epoch, value), colour in zip(curves, colours, strict=True):
        ax.plot(epoch, 100 * np.asarray(value), color=colour, label=text)
    ax.set_xlabel('epoch')
    ax.set_ylabel('validation mAP, %')
    ax.legend(frameon=False, fontsize=8)
    _save(figure, out)
    return True


def plot_frequency(
    runs: Sequence[Run], counts: Mapping[str, int], classes: Classes, out: Path
) -> bool:
    """Plot AP against class frequency (Peng et al. (2020), Figure 5).

    Returns:
        bool: Whether the file was written.
    """
    names = {
        'cs-table3-non-balance': 'no balance',
        'cs-table3-soft-0.7': 'soft-balance, 0.7',
        'cs-table3-class-aware': 'class-aware',
    }
    ap = {
        text: mean_ap(of_seeds)
        for name, text in names.items()
        if (of_seeds := [run for run in runs if run.name == name])
    }
    if len(ap) < 2:
        return False
    first = next(iter(ap.values()))
    mids = sorted(
        (m for m, n in counts.items() if n and first.get(m) is not None), key=lambda m: -counts[m]
    )
    figure, ax = _figure(9, 3.8)
    width = 0.8 / len(ap)
    for k, (text, by_class) in enumerate(ap.items()):
        ax.bar(
            np.arange(len(mids)) + (k - (len(ap) - 1) / 2) * width,
            [100 * (by_class.get(m) or 0) for m in mids],
            width,
            label=text,
            color=(_GREY, _BLUE, _YELLOW)[k],
        )
    ax.set_xticks(
        range(len(mids)),
        [f'{classes.names[classes.id_of(m)]} ({counts[m]})' for m in mids],
        rotation=90,
        fontsize=7,
    )
    ax.set_ylabel('AP, %')
    ax.set_xlabel('classes by number of training images')
    ax.legend(frameon=False, fontsize=8, loc='lower right', bbox_to_anchor=(1, 1), ncols=len(ap))
    _save(figure, out)
    return True


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=110, layout='constrained')
    ax = figure.subplots()
    ax.spines[['top', 'right']].set_visible(False)
    return figure, ax


def _save(figure, out: Path) -> None:
    with replace_when_done(out) as path:
        figure.savefig(path)
