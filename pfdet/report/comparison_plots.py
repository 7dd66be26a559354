"""The figures of a comparison: differences, curves over training, AP against class frequency."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from pfdet.evaluation.run_directory import Run
from pfdet.report.comparison import ComparedTable
from pfdet.report.plot_style import FG, LINE, MUTED, SERIES, draw_svg
from pfdet.report.plots import ap_against_frequency, map_over_epochs, series_of

#: The pairs of figure 5 of the second paper: no balance and class-aware sampling, then class-aware
#: and soft-balance at 0.7.
FIGURE_5 = (
    ('cs-table3-non-balance', 'cs-table3-class-aware'),
    ('cs-table3-class-aware', 'cs-table3-soft-0.7'),
)


def difference_chart(compared: ComparedTable) -> str | None:
    """Draw what each row is above the one it is compared with, in the paper and here.

    Args:
        compared (ComparedTable): A table.

    Returns:
        str: SVG, or :obj:`None` if no difference is known here.
    """
    table = compared.table
    entries = []
    for row in compared.rows:
        label = ', '.join(filter(None, [row.row.label, row.setting]))
        for measure, cell in zip(table.measures, row.cells):
            if cell.differences and cell.paper_difference is not None:
                of = (
                    measure.name
                    if table.across
                    else f'{label}, {measure.name}'
                    if sum(bool(m.of) for m in table.measures) > 1
                    else label
                )
                entries.append((of, cell))
    if not entries:
        return None

    def draw(ax: Axes) -> None:
        y = np.arange(len(entries))
        ax.axvline(0, color=MUTED, linewidth=1)
        ax.scatter(
            [cell.paper_difference for _, cell in entries],
            y,
            s=60,
            marker='D',
            facecolors='none',
            edgecolors=FG,
            linewidths=1.2,
            label='paper',
            zorder=3,
        )
        for k, (_, cell) in enumerate(entries):
            ax.plot(
                cell.differences,
                [k] * len(cell.differences),
                '|',
                color=SERIES[0],
                markersize=9,
                alpha=0.7,
            )
        ax.scatter(
            [cell.difference for _, cell in entries],
            y,
            s=34,
            color=SERIES[0],
            label='here (strokes: seeds)'
            if any(len(c.differences) > 1 for _, c in entries)
            else 'here',
            zorder=4,
        )
        ax.set_yticks(y, [label for label, _ in entries])
        ax.tick_params(axis='y', labelcolor=FG)
        ax.grid(True, axis='x', color=LINE)
        ax.set_ylim(len(entries) - 0.4, -0.6)
        ax.set_xlabel('difference in points of percent')
        ax.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)

    return draw_svg(
        draw, f'differences-{table.key}-{compared.scale}', 9.6, 1.1 + 0.27 * len(entries)
    )


def training_curves(compared: ComparedTable) -> str | None:
    """Draw validation mAP over epochs for the rows of a table that were validated while training.

    For Table 3 of the second paper this is its figure 4.

    Args:
        compared (ComparedTable): A table.

    Returns:
        str: SVG, or :obj:`None` without a curve.
    """
    series = {}
    for row in compared.rows:
        curves = [curve for run in row.runs if (curve := map_curve_of(run)) is not None]
        series[', '.join(filter(None, [row.row.label, row.setting]))] = curves
    return map_over_epochs(series, f'curves-{compared.table.key}-{compared.scale}')


def map_curve_of(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
    """The epochs and validation mAPs, in [0, 1], of a run's log, at least two of each."""
    name = next(
        (
            key
            for entry in run.log
            for key in entry
            if key.lower().rsplit('/', 1)[-1] in ('map', 'mean_ap')
        ),
        None,
    )
    if name is None or run.epoch(1) is None:
        return None
    iteration, value = series_of(run.log, name)
    if len(iteration) < 2:
        return None
    return iteration * run.epoch(1), value


def frequency_figures(
    runs: Sequence[Run], images: Mapping[str, int], unit: str
) -> list[tuple[str, str]]:
    """Draw AP against class frequency: the pairs of figure 5, as far as they were run.

    Args:
        runs (sequence of Run): Of any recipes.
        images (mapping): From machine id to its number of images.
        unit (str): What ``images`` counts.

    Returns:
        list of pairs: A caption and SVG.
    """
    figures = []
    for scale in sorted({run.scale for run in runs}):
        for pair in FIGURE_5:
            chosen = [[r for r in runs if (r.name, r.scale) == (name, scale)] for name in pair]
            if not all(chosen):
                continue
            series = {name: mean_ap(some) for name, some in zip(pair, chosen)}
            svg = ap_against_frequency(
                images, series, _names(runs), f'frequency-{pair[1]}-{scale}', unit
            )
            if svg:
                n = ', '.join(f'{len(some)} of {name}' for name, some in zip(pair, chosen))
                figures.append(
                    (f'{pair[0]} and {pair[1]}, {scale} scale. Mean over runs: {n}.', svg)
                )
    return figures


def mean_ap(runs: Sequence[Run]) -> dict[str, float | None]:
    """AP by class in [0, 1], the mean over runs; :obj:`None` where one has none."""
    means = {}
    for mid in runs[0].score['AP']:
        aps = [run.score['AP'].get(mid) for run in runs]
        means[mid] = None if None in aps else float(np.mean(aps))
    return means


def _names(runs: Sequence[Run]) -> dict[str, str]:
    return {mid: name for run in runs for mid, name in run.score.get('name', {}).items()}
