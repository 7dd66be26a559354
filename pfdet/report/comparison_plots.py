"""Plots of the comparison: differences, mAP during training, AP against class frequency."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from pfdet.evaluation.run_directory import Run
from pfdet.report.comparison import Cell, ComparedTable
from pfdet.report.plot_style import FG, LINE, MUTED, SERIES, draw_svg
from pfdet.report.plots import ap_against_frequency, logged_values, map_over_epochs

#: Pairs of recipes in figure 5 of Peng et al. (2020): no balance and class-aware sampling, and
#: class-aware sampling and soft-balance with :math:`\lambda = 0.7`.
FIGURE_5 = (
    ('cs-table3-non-balance', 'cs-table3-class-aware'),
    ('cs-table3-class-aware', 'cs-table3-soft-0.7'),
)


def difference_chart(compared: ComparedTable) -> str | None:
    """Plot the difference of each row from the row it is compared with, in the paper and here.

    Args:
        compared (ComparedTable): The table.

    Returns:
        str: SVG, or :obj:`None` if the runs have no differences.
    """
    table = compared.table
    entries: list[tuple[str, Cell]] = []
    for row in compared.rows:
        row_label = ', '.join(filter(None, [row.row.label, row.setting, row.deviation]))
        for measure, cell in zip(table.measures, row.cells):
            if cell.differences and cell.paper_difference is not None:
                label = (
                    measure.name
                    if table.across
                    else f'{row_label}, {measure.name}'
                    if sum(bool(m.of) for m in table.measures) > 1
                    else row_label
                )
                entries.append((label, cell))
    if not entries:
        return None

    def draw(ax: Axes) -> None:
        y = np.arange(len(entries))
        ax.axvline(0, color=MUTED, linewidth=1)
        ax.scatter(
            [cell.paper_difference or 0.0 for _, cell in entries],
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
            [cell.difference or 0.0 for _, cell in entries],
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
        ax.set_xlabel('difference in percentage points')
        ax.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)

    return draw_svg(
        draw, f'differences-{table.key}-{compared.scale}', 9.6, 1.1 + 0.27 * len(entries)
    )


def training_curves(compared: ComparedTable) -> str | None:
    """Plot validation mAP over epochs for the rows whose runs were validated during training.

    For Table 3 of Peng et al. (2020), this corresponds to figure 4.

    Args:
        compared (ComparedTable): The table.

    Returns:
        str: SVG, or :obj:`None` if no run has a curve.
    """
    series: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for row in compared.rows:
        curves = [curve for run in row.runs if (curve := map_curve_of(run)) is not None]
        series[', '.join(filter(None, [row.row.label, row.setting, row.deviation]))] = curves
    return map_over_epochs(series, f'curves-{compared.table.key}-{compared.scale}')


def map_curve_of(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
    """Read the validation mAP over epochs from the log of a run.

    Args:
        run (Run): The run.

    Returns:
        pair of arrays: Epochs and mAP in [0, 1], both :math:`(n,)`; :obj:`None` if the log has
        fewer than two values.
    """
    name = next(
        (
            key
            for entry in run.log
            for key in entry
            if key.lower().rsplit('/', 1)[-1] in ('map', 'mean_ap')
        ),
        None,
    )
    epoch_per_iteration = run.epoch(1)
    if name is None or epoch_per_iteration is None:
        return None
    iteration, value = logged_values(run.log, name)
    if len(iteration) < 2:
        return None
    return iteration * epoch_per_iteration, value


def frequency_figures(
    runs: Sequence[Run], images: Mapping[str, int], unit: str
) -> list[tuple[str, str]]:
    """Plot AP against class frequency for the pairs of :data:`FIGURE_5` that were run.

    Args:
        runs (sequence of Run): Runs of any recipes.
        images (mapping): From MID to number of images.
        unit (str): What ``images`` counts, for the axis label.

    Returns:
        list of pairs: Caption and SVG of each plot.
    """
    figures = []
    for scale in sorted({run.scale for run in runs}):
        for pair in FIGURE_5:
            chosen = [[r for r in runs if (r.name, r.scale) == (name, scale)] for name in pair]
            if not all(chosen):
                continue
            series = {name: mean_ap(group) for name, group in zip(pair, chosen)}
            svg = ap_against_frequency(
                images, series, _class_names(runs), f'frequency-{pair[1]}-{scale}', unit
            )
            if svg:
                n = ', '.join(f'{len(group)} of {name}' for name, group in zip(pair, chosen))
                figures.append(
                    (f'{pair[0]} and {pair[1]}, {scale} scale. Mean over runs: {n}.', svg)
                )
    return figures


def mean_ap(runs: Sequence[Run]) -> dict[str, float | None]:
    """Compute the mean AP of each class over runs.

    Args:
        runs (sequence of Run): At least one run.

    Returns:
        dict: From MID to AP in [0, 1]; :obj:`None` if one of the runs has no AP for the class.
    """
    means = {}
    for mid in runs[0].score['AP']:
        aps = [run.score['AP'].get(mid) for run in runs]
        means[mid] = None if None in aps else float(np.mean(aps))
    return means


def _class_names(runs: Sequence[Run]) -> dict[str, str]:
    return {mid: name for run in runs for mid, name in run.score.get('name', {}).items()}
