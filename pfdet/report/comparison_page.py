"""A comparison with the papers as one HTML page."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pfdet.evaluation.run_directory import Run
from pfdet.report.comparison import ComparedRow, ComparedTable
from pfdet.report.comparison_plots import difference_chart, frequency_figures, training_curves
from pfdet.report.comparison_text import READING, SCALE_REMARK, grid, others_grid, title
from pfdet.report.examples import ClassSample
from pfdet.report.images import Example
from pfdet.report.page import (
    shown_classes,
    shown_curves,
    shown_errors,
    shown_examples,
    svg,
    write_page,
)
from pfdet.report.plots import ap_against_frequency


def write_comparison(
    path: str | os.PathLike,
    compared: Sequence[ComparedTable],
    others: Sequence[ComparedRow],
    shown: Run,
    *,
    examples: Sequence[Example] = (),
    errors: Sequence[ClassSample] = (),
    frequency: Mapping[str, int] | None = None,
    unfinished: Sequence[os.PathLike] = (),
    score_thresh: float = 0.3,
    n_curve: int = 8,
) -> None:
    """Write all tables with the runs beside them, and a closer look at one run.

    Args:
        path (path): Where the page goes.
        compared (sequence of ComparedTable): Of :func:`~pfdet.report.comparison.compare`.
        others (sequence of ComparedRow): Of :func:`~pfdet.report.comparison.other_runs`.
        shown (Run): The run to look at more closely.
        examples (sequence of Example): Images with its detections.
        errors (sequence of ClassSample): Its errors.
        frequency (mapping): From machine id to training images. Without, classes are set against
            their validation boxes.
        unfinished (sequence of paths): Directories of runs that have no score yet, to mention.
        score_thresh (float): Detections in ``examples`` below this score are not drawn; that of
            ``errors``.
        n_curve (int): Classes to draw precision and recall of: those with the most ground truth.
    """
    runs = [run for table in compared for row in table.rows for run in row.runs]
    runs += [run for row in others for run in row.runs]
    images = frequency if frequency is not None else shown.score.get('n_ground_truth', {})
    images = {mid: int(n) for mid, n in images.items() if n > 0}
    unit = 'training images' if frequency is not None else 'validation boxes'
    figures = frequency_figures(runs, images, unit)
    if not figures:
        drawn = ap_against_frequency(
            images, {shown.name: shown.score['AP']}, shown.score.get('name', {}), 'frequency', unit
        )
        figures = [(f'{shown.path}.', drawn)] if drawn else []
    classes = shown_classes(shown.score)
    write_page(
        path,
        'comparison.html.jinja',
        title='Runs beside the papers',
        reading=READING,
        remark=SCALE_REMARK if any(table.scale == 'mini' for table in compared) else '',
        n_run=len(runs),
        tables=[_table(table) for table in compared],
        others=others_grid(others) if others else None,
        unfinished=[str(path) for path in unfinished],
        frequency=[(caption, svg(figure)) for caption, figure in figures],
        frequency_unit=unit,
        shown=shown,
        shown_seed=shown.seed,
        curves=shown_curves(shown.score, n_curve),
        classes=classes,
        has_parents=any(c['is_parent'] for c in classes),
        examples=shown_examples(examples, score_thresh),
        errors=shown_errors(errors, shown.score),
        score_thresh=score_thresh,
    )


def _table(compared: ComparedTable) -> dict[str, Any]:
    laid = grid(compared)
    told = [sign for sign in laid.agreement if sign]
    return {
        'id': f'{compared.table.key}-{compared.scale}'.strip('-'),
        'title': title(compared),
        'table': compared.table,
        'n_run': compared.n_run,
        'n_recipe': compared.n_recipe,
        'grid': laid,
        'chart': svg(difference_chart(compared)),
        'curves': svg(training_curves(compared)),
        'n_told': len(told),
        'n_same': told.count('as in the paper'),
        'n_opposite': told.count('opposite'),
    }
